import json
from pathlib import Path

import golden_inputs
import pytest
import tiny_trees

from tvilfm_plugin.data.datasets import TriLLCM
from tvilfm_plugin.evaluation.protocols import LLCM
from tvilfm_plugin.modality import Modality

GOLDEN = json.loads((Path(__file__).parents[1] / "goldens" / "gallery_sampling.json").read_text())["llcm"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("cam1_vis")
    base = root / "LLCM"
    tiny_trees.write_paths(base, golden_inputs.llcm_tree())
    (base / "idx").mkdir()
    (base / "idx" / "test_id.txt").write_text(",".join(map(str, golden_inputs.LLCM_IDS)))
    for kind in ("vis", "nir"):
        tiny_trees.write_paths(base, [f"{kind}/0002/0002_c07_s1_{kind}.jpg"])
        (base / "idx" / f"train_{kind}.txt").write_text(f"{kind}/0002/0002_c07_s1_{kind}.jpg 0\n")
    return root


@pytest.mark.parametrize("direction, query_mode, gallery_mode", [("infrared-to-visible", 2, 1), ("visible-to-infrared", 1, 2)])
def test_query_and_gallery_equal_the_golden(root, direction, query_mode, gallery_mode):
    dataset = TriLLCM(root=str(root), direction=direction, text=False)

    def columns(items):
        paths = [Path(item.path).relative_to(dataset.dataset_dir).as_posix() for item in items]
        return {"paths": paths, "ids": [item.pid for item in items], "cams": [item.camid for item in items]}

    assert columns(dataset.query) == GOLDEN[f"query/mode{query_mode}"]
    (setting,) = dataset.settings
    assert setting.name == "all" and setting.shots == 1 and len(setting.draws) == 10
    for trial in (0, 1):
        drawn = [dataset.gallery[index] for index in setting.draws[trial]]
        assert columns(drawn) == GOLDEN[f"gallery/mode{gallery_mode}/trial{trial}"]
    assert dataset.train[0].camid == 7
    assert dataset.query_modality is (Modality.IR if query_mode == 2 else Modality.RGB)


def test_test_images_find_their_captions_under_the_training_layout(tmp_path):
    tiny_trees.write_llcm(tmp_path, size=None)
    dataset = TriLLCM(root=str(tmp_path))
    key = dataset.relative(dataset.query[0].path)
    assert "/test_nir/cam" in dataset.query[0].path and key.startswith("nir/0005/")
    assert all(dataset.relative(item.path) in dataset.captions[Modality.IR] for item in dataset.query)
    assert all(dataset.relative(item.path) in dataset.captions[Modality.RGB] for item in dataset.visible_pool)
    assert dataset.protocol is LLCM and dataset.train_ids == [1, 3, 8]


def test_labels_come_from_the_lists(tmp_path):
    tiny_trees.write_llcm(tmp_path, train_ids=(8, 1, 3), size=None)
    dataset = TriLLCM(root=str(tmp_path))
    assert dataset.train_ids == [8, 1, 3]
    assert {item.pid for item in dataset.train_rgb if "/0008/" in item.path} == {0}


def test_labels_that_name_different_persons_are_warned_of(tmp_path):
    base = tiny_trees.write_llcm(tmp_path, size=None)
    file = base / "idx" / "train_nir.txt"
    swapped = {"0": "1", "1": "0", "2": "2"}
    lines = [line.rsplit(" ", 1) for line in file.read_text().splitlines()]
    file.write_text("\n".join(f"{path} {swapped[label]}" for path, label in lines))
    assert any("2 training labels" in warning for warning in TriLLCM(root=str(tmp_path)).warnings)


def test_a_listed_image_that_is_missing(tmp_path):
    base = tiny_trees.write_llcm(tmp_path, size=None)
    next((base / "nir" / "0003").iterdir()).unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of \d+ listed images are missing.*nir/0003.*data check --dataset llcm"):
        TriLLCM(root=str(tmp_path))
