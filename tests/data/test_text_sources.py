import json
import random
from pathlib import Path

import numpy as np
import pytest
import tiny_trees

from tvilfm_plugin.data.captions import Caption, CaptionBank
from tvilfm_plugin.data.datasets import TriLLCM, TriRegDB, TriSYSUMM01
from tvilfm_plugin.data.items import EvalSetting, Item
from tvilfm_plugin.data.text_sources import SOURCES, draw_query_texts
from tvilfm_plugin.modality import Modality

GOLDENS = Path(__file__).parents[1] / "goldens"


class View:
    """A data set of values: queries, a visible pool, and the part of it that each draw's gallery takes."""

    key = "sysu"
    query_modality = Modality.IR
    note = ""

    def __init__(self, queries, pool, draws):
        self.query = [Item(f"ir/{pid}/{n}", pid, 3) for n, pid in enumerate(queries)]
        self.visible_pool = [Item(f"rgb/{pid}/{n}", pid, 1) for n, pid in enumerate(pool)]
        union = sorted({n for draw in draws for n in draw})
        self.gallery = [self.visible_pool[n] for n in union]
        index = tuple(np.array([union.index(n) for n in draw]) for draw in draws)
        self.settings = [EvalSetting("all", 1, index)]
        persons = {pid: [Caption(f"list {pid} {k}") for k in range(9)] for pid in set(pool)}
        self.captions = {
            Modality.RGB: CaptionBank({i.path: Caption(f"text {i.path}") for i in self.visible_pool}, "rgb", persons),
            Modality.IR: CaptionBank({i.path: Caption(f"text {i.path}") for i in self.query}, "ir"),
        }

    def relative(self, path):
        return path


def texts(drawn):
    return [[drawn.table[index] for index in row] for row in drawn.rgb]


@pytest.fixture(scope="module")
def sysu(tmp_path_factory):
    root = tmp_path_factory.mktemp("sysu")
    tiny_trees.write_sysu(root, per_cell=4, size=None)
    return TriSYSUMM01(root=str(root), draws=3)


def test_released_draw_equals_the_golden():
    golden = json.loads((GOLDENS / "query_text_draws.json").read_text())["index"]
    # Two queries of each of the identities 1..50; of the released lists only the lengths matter.
    lengths = json.loads((GOLDENS / "query_text_lengths.json").read_text())
    persons = {pid: [Caption(f"{k}") for k in range(length)] for pid, length in enumerate(lengths, start=1)}
    view = View(np.repeat(list(persons), 2).tolist(), list(persons), [[0], [1]])
    view.captions[Modality.RGB] = CaptionBank({}, "map", persons)
    drawn = draw_query_texts("oracle", view, "all", 1, style="released")
    assert texts(drawn) == [[str(index) for index in golden]] * 2
    assert "released" in drawn.note


def test_released_draw_is_numpys_choice_from_the_list():
    view = View([3, 1, 3, 2], [1, 2, 3], [[0]])
    np.random.seed(7)
    expected = [np.random.choice([c.text for c in view.captions[Modality.RGB].of_person(pid)]) for pid in (3, 1, 3, 2)]
    assert texts(draw_query_texts("oracle", view, "all", 7, style="released")) == [expected]


def test_none_has_no_texts(sysu):
    drawn = draw_query_texts("none", sysu, sysu.settings[0], 0)
    assert drawn.table == () and (drawn.rgb == -1).all() and (drawn.ir == -1).all()
    assert drawn.rgb.shape == (3, len(sysu.query)) and drawn.rgb.dtype == drawn.ir.dtype == np.int64


@pytest.mark.parametrize("source", ["self", "witness", "oracle", "wrong"])
def test_every_source_keeps_the_infrared_images_own_caption(sysu, source):
    drawn = draw_query_texts(source, sysu, "indoor", 4)
    bank = sysu.captions[Modality.IR]
    assert [drawn.table[n] for n in drawn.ir] == [bank[sysu.relative(item.path)].text for item in sysu.query]
    assert drawn.rgb.shape == (3, len(sysu.query)) and len(set(drawn.table)) == len(drawn.table)
    assert drawn.source == source and drawn.seed == 4
    if source == "self":
        assert (drawn.rgb == drawn.ir).all() and "f_ir" in drawn.note


def test_oracle_draws_any_visible_image_and_seeds_differ(sysu):
    bank = sysu.captions[Modality.RGB]
    allowed = {}
    for item in sysu.visible_pool:
        allowed.setdefault(item.pid, set()).add(bank[sysu.relative(item.path)].text)
    first, again, other = (draw_query_texts("oracle", sysu, "all", seed) for seed in (0, 0, 1))
    assert all(text in allowed[item.pid] for text, item in zip(texts(first)[0], sysu.query, strict=True))
    assert texts(first) == texts(again) != texts(other)
    assert texts(first)[0] == texts(first)[2]


def test_oracle_is_uniform_over_images():
    view = View([1] * 4000, [1, 1, 1, 1], [[0]])
    counts = np.unique(texts(draw_query_texts("oracle", view, "all", 0))[0], return_counts=True)[1]
    assert len(counts) == 4 and (abs(counts / 1000 - 1) < 0.1).all()


def test_witness_is_outside_every_draw():
    view = View([1, 2, 2], [1, 1, 1, 2, 2], [[0, 3], [1, 3]])
    drawn = draw_query_texts("witness", view, "all", 0)
    assert texts(drawn) == [["text rgb/1/2", "text rgb/2/4", "text rgb/2/4"]] * 2
    assert drawn.note == ""


def test_witness_counts_the_draws_of_other_settings():
    view = View([1], [1, 1, 1], [[0]])
    view.gallery = [view.visible_pool[0], view.visible_pool[1]]
    assert texts(draw_query_texts("witness", view, "all", 0)) == [["text rgb/1/2"]]


def test_witness_falls_back_to_outside_this_draw():
    view = View([1, 2], [1, 1, 2, 2, 2], [[0, 2], [1, 3]])
    drawn = draw_query_texts("witness", view, "all", 0)
    assert texts(drawn) == [["text rgb/1/1", "text rgb/2/4"], ["text rgb/1/0", "text rgb/2/4"]]
    assert "1 of 2 identities" in drawn.note


def test_witness_without_any_image_left_explains():
    view = View([1, 2], [1, 2, 2], [[0, 1]])
    with pytest.raises(ValueError, match=r"for 1 of 2 identities \(1\).*held_out=k"):
        draw_query_texts("witness", view, "all", 0)


def test_regdb_needs_held_out_images(tmp_path):
    tiny_trees.write_regdb(tmp_path, size=None)
    with pytest.raises(ValueError, match=r"for 3 of 3 identities.*held_out=k"):
        draw_query_texts("witness", TriRegDB(root=str(tmp_path)), "trial1", 0)
    held = TriRegDB(root=str(tmp_path), held_out=1)
    drawn = draw_query_texts("witness", held, "trial1", 0)
    gallery = {held.captions[Modality.RGB][held.relative(item.path)].text for item in held.gallery}
    assert not gallery & set(texts(drawn)[0])
    for source in ("witness", "none", "self", "oracle", "wrong"):
        note = draw_query_texts(source, held, "trial1", 0).note
        assert note.count("1 visible images per identity held out") == 1


def test_witness_on_llcm(tmp_path):
    tiny_trees.write_llcm(tmp_path, per_cell=2, size=None)
    dataset = TriLLCM(root=str(tmp_path), draws=4)
    drawn = draw_query_texts("witness", dataset, dataset.settings[0], 3)
    bank = dataset.captions[Modality.RGB]
    for row, draw in zip(texts(drawn), dataset.settings[0].draws, strict=True):
        seen = {bank[dataset.relative(dataset.gallery[index].path)].text for index in draw}
        assert not seen & set(row)


def test_wrong_is_never_the_own_person_and_reaches_every_other():
    view = View([1, 2, 3] * 200, [1, 1, 2, 2, 3, 3], [[0, 2, 4]])
    drawn = draw_query_texts("wrong", view, "all", 0)
    pairs = {(item.pid, int(text.split("/")[1])) for item, text in zip(view.query, texts(drawn)[0], strict=True)}
    assert pairs == {(a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b}
    assert {text.rsplit("/", 1)[1] for text in drawn.table if text.startswith("text rgb")} == {"1", "3", "5"}
    assert "witness" in drawn.note


def test_wrong_falls_back_to_oracle_texts():
    view = View([1, 2], [1, 2], [[0, 1]])
    drawn = draw_query_texts("wrong", view, "all", 0)
    assert texts(drawn) == [["text rgb/2/1", "text rgb/1/0"]] and "oracle" in drawn.note
    with pytest.raises(ValueError, match="at least two"):
        draw_query_texts("wrong", View([1], [1, 1], [[0]]), "all", 0)


@pytest.mark.parametrize("source", ["witness", "oracle", "wrong"])
def test_queries_of_persons_without_visible_images_keep_their_own_text(source):
    view = View([1, 9, 2], [1, 1, 2, 2], [[0, 2]])
    drawn = draw_query_texts(source, view, "all", 0)
    assert texts(drawn)[0][1] == "text ir/9/1" and "1 identities without any visible image" in drawn.note


def test_human_phrases(tmp_path):
    view = View([1, 2], [1, 2], [[0, 1]])
    file = tmp_path / "phrases.tsv"
    file.write_text("# a comment\n1\ta man in red\n\n0002\ta woman\tin blue\n")
    drawn = draw_query_texts("human", view, "all", 0, human=str(file))
    assert texts(drawn) == [["a man in red", "a woman\tin blue"]]
    file.write_text("1\tx\n")
    with pytest.raises(ValueError, match=r"no phrase for 1 of 2 identities \(2\)"):
        draw_query_texts("human", view, "all", 0, human=str(file))
    file.write_text("1 no tab\n")
    with pytest.raises(ValueError, match="line 1: expected 'identity<TAB>phrase'"):
        draw_query_texts("human", view, "all", 0, human=str(file))
    with pytest.raises(ValueError, match="TEST.HUMAN_TEXTS"):
        draw_query_texts("human", view, "all", 0)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        draw_query_texts("human", view, "all", 0, human=str(tmp_path / "absent"))


def test_errors_name_the_choices(sysu):
    with pytest.raises(ValueError, match=", ".join(SOURCES)):
        draw_query_texts("guess", sysu, "all", 0)
    with pytest.raises(ValueError, match="choices are all, indoor"):
        draw_query_texts("self", sysu, "outdoor", 0)
    with pytest.raises(ValueError, match="choices are paper, released"):
        draw_query_texts("oracle", sysu, "all", 0, style="mine")
    view = View([1], [1], [[0]])
    view.captions[Modality.IR] = CaptionBank({}, "ir.json")
    with pytest.raises(ValueError, match=r"1 of 1 query images have no caption in ir.json"):
        draw_query_texts("self", view, "all", 0)
    view = View([1], [1], [[0]])
    view.captions = {}
    with pytest.raises(ValueError, match="text=True"):
        draw_query_texts("oracle", view, "all", 0)
    view = View([1], [1], [[0]])
    view.query_modality = Modality.RGB
    with pytest.raises(ValueError, match="image only"):
        draw_query_texts("self", view, "all", 0)


def test_lists_by_person_serve_where_test_images_have_no_caption():
    view = View([1, 2], [1, 2], [[0, 1]])
    persons = view.captions[Modality.RGB].persons
    view.captions[Modality.RGB] = CaptionBank({}, "map.json", persons)
    drawn = draw_query_texts("oracle", view, "all", 0)
    assert [text.split()[1] for text in texts(drawn)[0]] == ["1", "2"] and "list" in drawn.note


def test_global_generators_are_left_alone(sysu):
    random.seed(1)
    np.random.seed(1)
    states = random.getstate(), np.random.get_state()[1].copy()
    for source in ("self", "witness", "oracle", "wrong"):
        draw_query_texts(source, sysu, "all", 0)
    draw_query_texts("oracle", sysu, "all", 0, style="released")
    assert random.getstate() == states[0] and (np.random.get_state()[1] == states[1]).all()
