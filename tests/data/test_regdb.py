from pathlib import Path

import pytest
import tiny_trees

from tvilfm_plugin.data.datasets import TriRegDB
from tvilfm_plugin.evaluation.protocols import REGDB
from tvilfm_plugin.modality import Modality


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("regdb_root")
    tiny_trees.write_regdb(root, size=None)
    return root


def test_labels_serve_training_and_folders_name_test_identities(root):
    dataset = TriRegDB(root=str(root))
    assert dataset.train_ids == [193, 5, 40]  # the order of the file's labels
    assert {item.camid for item in dataset.train_ir} == {0} and {item.camid for item in dataset.train_rgb} == {1}
    assert {item.pid for item in dataset.query} == {7, 171, 12}
    assert dataset.captions[Modality.RGB].of_person(171)
    assert dataset.protocol is REGDB


@pytest.mark.parametrize("trial", [1, 2])
def test_query_and_gallery_are_the_trials_lists(root, trial):
    lists = {}
    for kind in ("visible", "thermal"):
        lines = (root / "RegDB" / "idx" / f"test_{kind}_{trial}.txt").read_text().split("\n")
        lists[kind] = [line.split()[0] for line in lines if line]
    for direction, query, gallery in (
        ("infrared-to-visible", "thermal", "visible"),
        ("visible-to-infrared", "visible", "thermal"),
    ):
        dataset = TriRegDB(root=str(root), direction=direction, trial=trial, draws=10)
        for items, expected in ((dataset.query, lists[query]), (dataset.gallery, lists[gallery])):
            assert [Path(item.path).relative_to(dataset.dataset_dir).as_posix() for item in items] == expected
        (setting,) = dataset.settings
        assert setting.name == f"trial{trial}" and len(setting.draws) == 1
        assert setting.draws[0].tolist() == list(range(len(dataset.gallery)))
        assert [dataset.relative(item.path) for item in dataset.visible_pool] == lists["visible"]


def test_held_out_images_leave_the_gallery(root):
    full, held = TriRegDB(root=str(root)), TriRegDB(root=str(root), held_out=2)
    assert len(full.gallery) == 12 and len(held.gallery) == 6
    assert held.visible_pool == full.visible_pool and held.query == full.query
    assert [item for item in full.gallery if item in held.gallery] == held.gallery
    assert all(sum(item.pid == pid for item in held.gallery) == 2 for pid in (7, 12, 171))
    assert TriRegDB(root=str(root), held_out=2).gallery == held.gallery
    assert "2 visible images per identity held out" in held.note and full.note == ""
    with pytest.raises(ValueError, match="leave every test identity a gallery image"):
        TriRegDB(root=str(root), held_out=4)
    with pytest.raises(ValueError, match="has none"):
        TriRegDB(root=str(root), held_out=1, direction="visible-to-infrared")


def test_missing_trial_lists_what_is_there(root):
    with pytest.raises(FileNotFoundError, match=r"train_visible_11.txt.*test_thermal_1.txt"):
        TriRegDB(root=str(root), trial=11)


def test_a_line_that_is_no_path_and_label(tmp_path):
    base = tiny_trees.write_regdb(tmp_path, size=None)
    (base / "idx" / "test_visible_1.txt").write_text("Visible/7/a.bmp\n")
    with pytest.raises(ValueError, match=r"test_visible_1.txt, line 1: expected 'path label'"):
        TriRegDB(root=str(tmp_path))
    (base / "idx" / "test_visible_1.txt").write_text("Elsewhere/7/a.bmp 0\n")
    with pytest.raises(ValueError, match=r"no image of Tri-RegDB.*Visible/1/name.bmp"):
        TriRegDB(root=str(tmp_path))


def test_released_folder_beside_the_data_set(tmp_path):
    base = tiny_trees.write_regdb(tmp_path, size=None, folder="regdb")
    (base / "Text").rename(tmp_path / "regdb_text")
    assert len(TriRegDB(root=str(tmp_path)).captions) == 2
