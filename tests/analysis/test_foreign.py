"""Similarities of another program: scored as our own are, or refused with the fact."""

import json

import numpy as np
import pytest
from stored_runs import TinyEvaluation
from tiny_trees import write_sysu

from tvilfm_plugin.analysis.foreign import read_similarities
from tvilfm_plugin.cli.main import main
from tvilfm_plugin.data.datasets.sysu_mm01 import TriSYSUMM01
from tvilfm_plugin.evaluation.protocols import SYSU, Labels
from tvilfm_plugin.evaluation.ranking import rank_metrics

RNG = np.random.default_rng(3)
QUERY = Labels(np.repeat(np.arange(5), 3), np.tile([3, 6, 3], 5))
GALLERY = Labels(np.repeat(np.arange(4), 6), np.tile([1, 2, 4, 1, 2, 4], 4))
SIMILARITY = RNG.random((15, 24))


def write_npz(path, **changes):
    arrays = {
        "similarity": SIMILARITY, "query_pids": QUERY.pids, "query_camids": QUERY.camids, "gallery_pids": GALLERY.pids,
        "gallery_camids": GALLERY.camids, **changes,
    }  # fmt: skip
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def write_csv(path):
    lines = [",," + ",".join(map(str, labels)) for labels in GALLERY]
    lines += [f"{p},{c}," + ",".join(map(repr, row.tolist())) for p, c, row in zip(*QUERY, SIMILARITY, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def score(file, out, *words):
    assert main(["results", "score", str(file), "--out", str(out), *words]) == 0
    return json.loads(out.with_suffix(".json").read_text()), out.read_text()


def test_npz_csv_and_distances_are_scored_as_our_own_rows_are(tmp_path, capsys):
    expected = rank_metrics(-SIMILARITY, QUERY, GALLERY, SYSU)
    files = (write_npz(tmp_path / "a.npz"), write_csv(tmp_path / "b.csv"),
             write_npz(tmp_path / "c.npz", similarity=None, distance=-SIMILARITY))  # fmt: skip
    for file in files:
        values, report = score(file, tmp_path / "out.md", "--rules", "SYSU-MM01", "--text-source", "none")
        one = values["every-image"]
        assert one["draws"][0]["mAP"] == pytest.approx(100 * expected.mAP, abs=1e-12)
        assert one["draws"][0]["cmc"] == pytest.approx((100 * expected.cmc).tolist(), abs=1e-12)
        mean, low, high = one["intervals"]["mAP"]
        assert low < mean < high and mean == pytest.approx(one["draws"][0]["mAP"])
        assert one["card"]["text_source"] == "none" and one["card"]["rules"] == "SYSU-MM01" and file.name in one["card"]["note"]
        assert "| chance" in report and "Protocol card: dataset" in report
    assert report.strip() in capsys.readouterr().out


def test_features_and_seeded_draws(tmp_path):
    query, gallery = RNG.normal(size=(15, 8)), RNG.normal(size=(24, 8))
    file = write_npz(tmp_path / "f.npz", similarity=None, query_features=query, gallery_features=gallery)
    words = ("--rules", "LLCM", "--text-source", "oracle", "--shots", "1", "--draws", "4")
    values, _ = score(file, tmp_path / "out.md", *words)
    assert len(values["all"]["draws"]) == 4 and values["all"]["card"]["draws"] == 4
    cosine = (query / np.linalg.norm(query, axis=1)[:, None]) @ (gallery / np.linalg.norm(gallery, axis=1)[:, None]).T
    np.testing.assert_allclose(read_similarities(file).dist, -cosine, atol=1e-12)


def test_a_data_set_gives_labels_draws_and_rules(tmp_path):
    write_sysu(tmp_path, train_ids=(1, 4), val_ids=(2, 7), test_ids=(6, 12, 25), per_cell=3)
    data = TriSYSUMM01(root=str(tmp_path), text=False, verbose=False)
    # Every visible test image in an order of its own, below another folder: the draws pick theirs.
    pool = [data.relative(item.path) for item in data.visible_pool][::-1]
    queries = [data.relative(item.path) for item in data.query]
    similarity = RNG.random((len(queries), len(pool)))
    file = tmp_path / "theirs.npz"
    paths = {"query_paths": [f"/elsewhere/{p}" for p in queries], "gallery_paths": [f"D:\\data\\{p}" for p in pool]}
    np.savez(file, similarity=similarity, **paths)
    values, report = score(file, tmp_path / "out.md", "--dataset", "sysu", "--root", str(tmp_path), "--text-source", "none")
    assert set(values) == {"all", "indoor"} and "## Tri-SYSU-MM01, indoor" in report
    setting = data.settings[0]
    expected = []
    for draw in setting.draws:
        items = [data.gallery[n] for n in draw]
        labels = Labels(*(np.array(one) for one in zip(*((i.pid, i.camid) for i in items), strict=True)))
        mine = Labels(np.array([i.pid for i in data.query]), np.array([i.camid for i in data.query]))
        columns = [pool.index(data.relative(item.path)) for item in items]
        expected.append(100 * rank_metrics(-similarity[:, columns], mine, labels, SYSU).mAP)
    assert [one["mAP"] for one in values["all"]["draws"]] == pytest.approx(expected, abs=1e-12)
    assert len(values["all"]["card"]["data_sha256"]) == 64


def test_our_own_features_give_our_own_numbers(tmp_path):
    ours = TinyEvaluation(None)
    scale = (ours.parts.query, ours.parts.gallery)
    labels = {"query_pids": ours.query_pids, "query_camids": np.array([item.camid for item in ours.data.query])}
    labels |= {"gallery_pids": ours.gallery_pids, "gallery_camids": np.array([item.camid for item in ours.data.gallery])}
    neck = np.random.default_rng(0).random(16)
    features = {f"{name}_features": one.numpy() * neck for name, one in zip(("query", "gallery"), scale, strict=True)}
    np.savez(tmp_path / "ours.npz", **features, **labels)
    values, _ = score(tmp_path / "ours.npz", tmp_path / "o.md", "--rules", "SYSU-MM01", "--text-source", "none")
    assert values["every-image"]["draws"][0]["mAP"] > 20


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"similarity": None}, "An .npz holds similarity or distance"),
        ({"similarity": np.full((15, 24), np.nan)}, "360 of 360 similarities are not finite"),
        ({"similarity": SIMILARITY[:, :20]}, "counts 20 and 24 gallery images"),
        ({"query_pids": QUERY.pids.astype(float)}, "query_pids is float64"),
        ({"query_pids": None}, "names neither persons and cameras of its queries nor their paths"),
        ({"similarity": np.array(["a"])}, "expected numbers in 2 dimensions"),
        ({"query_pids": np.array([None] * 15)}, "no archive of plain arrays"),
        ({"query_pids": QUERY.pids + 100}, "None of the 15 queries has a match"),
    ],
)
def test_what_cannot_be_scored_is_refused(tmp_path, capsys, changes, said):
    file = write_npz(tmp_path / "wrong.npz", **changes)
    assert main(["results", "score", str(file), "--rules", "RegDB", "--text-source", "none"]) == 2
    assert said in capsys.readouterr().err


def test_other_files_are_refused(tmp_path, capsys):
    whole = write_npz(tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with open(tmp_path / "one.npz", "wb") as one:
        np.save(one, SIMILARITY)
    for name in ("cut.npz", "one.npz"):
        assert main(["results", "score", str(tmp_path / name), "--rules", "RegDB", "--text-source", "none"]) == 2
        assert f"{name} is no archive of plain arrays" in capsys.readouterr().err
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "b.csv").write_text(",,1\n,,2\n1,3,x\n")
    (tmp_path / "c.txt").write_text("")
    for name, said in (("a.csv", "does not begin as expected"), ("b.csv", "could not convert"), ("c.txt", "neither .npz")):
        assert main(["results", "score", str(tmp_path / name), "--rules", "RegDB", "--text-source", "none"]) == 2
        assert said in capsys.readouterr().err
    assert main(["results", "score", str(tmp_path / "a.csv"), "--text-source", "none"]) == 2
    assert "either a data set by --dataset, or the rules" in capsys.readouterr().err
