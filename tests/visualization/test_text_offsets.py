from dataclasses import replace

import numpy as np
import pytest
import torch

from tvilfm_plugin.analysis.text_noise import wrong_person
from tvilfm_plugin.evaluation.mer import Parts
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.visualization.text_offsets import Offsets, build_offsets, offset_cells, text_offsets


@pytest.fixture(scope="module")
def stored(tiny_evaluation):
    return StoredEvaluation.load(tiny_evaluation.folder)


def test_cosines_equal_a_loop(stored):
    found = text_offsets(stored, "all", "oracle", seed=4)
    text = stored.text("all", "oracle", 0)
    others = wrong_person(stored.query.pids, 1.0, 4)
    for q, pid in enumerate(stored.query.pids):
        own = [stored.parts.gallery[g].double().numpy() for g, other in enumerate(stored.gallery.pids) if other == pid]
        assert stored.query.pids[others[q]] != pid
        if not own:
            assert np.isnan(found.matched[q]) and np.isnan(found.mismatched[q])
            continue
        image = np.mean(own, axis=0) - stored.parts.query[q].double().numpy()
        for asked, value in ((q, found.matched[q]), (others[q], found.mismatched[q])):
            said = stored.parts.texts[text.rgb[0, asked]] - stored.parts.texts[text.ir[asked]]
            words = said.double().numpy()
            expected = image @ words / np.linalg.norm(image) / np.linalg.norm(words)
            assert value == pytest.approx(expected, abs=1e-6)
    assert np.isnan(found.matched).sum() == 4


def test_a_text_that_says_just_what_is_missing_has_cosine_one(stored):
    text = stored.text("all", "oracle", 0)
    texts = torch.zeros_like(stored.parts.texts)
    mean = {pid: stored.parts.gallery[torch.from_numpy(stored.gallery.pids == pid)].mean(dim=0) for pid in range(1, 12)}
    query = torch.zeros_like(stored.parts.query)
    for q, pid in enumerate(stored.query.pids):
        if pid in mean:
            texts[text.rgb[0, q]] = mean[pid]
    ideal = replace(stored, parts=Parts(query, stored.parts.gallery, texts))
    found = text_offsets(ideal, "all", "oracle")
    own, other, test = found.intervals(resamples=200)
    assert own.mean == pytest.approx(1, abs=1e-6) and other.mean < 0.7 and test.difference > 0.3 and test.n == 11


def test_where_texts_do_not_differ_there_is_nothing_to_compare(stored):
    for source in ("self", "none"):
        with pytest.raises(ValueError, match=f"Text source '{source}' gives no offset"):
            text_offsets(stored, "all", source)


def test_the_picture_and_the_table_say_the_same():
    pids = np.repeat(np.arange(10), 2)
    rng = np.random.default_rng(0)
    found = {"before": Offsets(rng.normal(0, 0.1, 20), rng.normal(0, 0.1, 20), pids)}
    found["after"] = Offsets(np.r_[np.nan, rng.normal(0.5, 0.1, 19)], np.r_[np.nan, rng.normal(0.1, 0.1, 19)], pids)
    figure = build_offsets(found, "title")
    cells = offset_cells(found, resamples=200)
    for axis, (name, one), line in zip(figure.axes, found.items(), cells[1:], strict=True):
        own, other = np.nanmean(one.matched), np.nanmean(one.mismatched)
        assert axis.get_title() == line[0] == name
        assert axis.get_xlabel() == f"cosine; means {own:+.3f} (own), {other:+.3f} (other)"
        assert line[1].startswith(f"{own:+.3f} [") and line[2].startswith(f"{other:+.3f} [")
        marks = sorted(float(drawn.get_xdata()[0]) for drawn in axis.lines)
        assert marks == pytest.approx(sorted([0, own, other]))
        counted = sum(bar.get_height() for bar in axis.patches if hasattr(bar, "get_height"))
        assert counted == 2 * np.isfinite(one.matched).sum()
