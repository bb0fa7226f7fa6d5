"""SYSU-MM01's own gallery draws from exp/rand_perm_cam.mat."""

from pathlib import Path

import numpy as np
import pytest
import tiny_trees
from scipy.io import savemat

from tvilfm_plugin.data.datasets import TriLLCM, TriSYSUMM01

PER_CELL = 12
TEST_IDS = (6, 12, 25)


def write_permutations(base, draws=10, identities=30, per_cell=PER_CELL, key="rand_perm_cam"):
    """The file as the evaluation code has it; returns cell[camera - 1][identity - 1] -> (draws, n)."""
    rng = np.random.RandomState(0)
    cameras = np.empty((6, 1), dtype=object)
    for camera in range(6):
        persons = np.empty((identities, 1), dtype=object)
        for pid in range(identities):
            rows = [rng.permutation(per_cell) + 1 for _ in range(draws)]
            persons[pid, 0] = np.array(rows) if pid + 1 in TEST_IDS else np.empty((0, 0))
        cameras[camera, 0] = persons
    savemat(base / "exp" / "rand_perm_cam.mat", {key: cameras})
    return cameras


@pytest.fixture
def base(tmp_path):
    return tiny_trees.write_sysu(tmp_path, per_cell=PER_CELL, size=None, captions=False)


def build(base, **options):
    return TriSYSUMM01(root=str(base.parent), text=False, verbose=False, gallery="rand_perm_cam", **options)


@pytest.mark.parametrize("shots", [1, 10])
def test_draw_t_takes_the_beginning_of_row_t(base, shots):
    cells = write_permutations(base)
    data = build(base, shots=(shots,))
    assert data.gallery_source == "exp/rand_perm_cam.mat, rows 1..10"
    for setting, cameras in zip(data.settings, ((1, 2, 4, 5), (1, 2)), strict=True):
        assert len(setting.draws) == 10
        for t, draw in enumerate(setting.draws):
            found = {Path(data.gallery[i].path).relative_to(data.dataset_dir).as_posix() for i in draw}
            expected = {
                f"cam{camera}/{pid:04d}/{number:04d}.jpg"
                for pid in TEST_IDS
                for camera in cameras
                for number in cells[camera - 1, 0][pid - 1, 0][t][:shots]
            }
            assert found == expected and len(draw) == len(expected)


def test_the_two_sources_are_never_mixed(base):
    write_permutations(base)
    seeded = TriSYSUMM01(root=str(base.parent), text=False, verbose=False, draws=4)
    assert seeded.gallery_source == "seeded draws 0..3"
    other = build(base, draws=4)
    chosen = [[{d.gallery[i].path for i in draw} for draw in d.settings[0].draws] for d in (seeded, other)]
    assert chosen[0] != chosen[1]
    assert [len(d) for d in chosen[0]] == [len(d) for d in chosen[1]]


def test_a_person_with_fewer_files_gives_all(base):
    cells = write_permutations(base)
    cells[0, 0][5, 0] = cells[0, 0][5, 0][:, :4]
    savemat(base / "exp" / "rand_perm_cam.mat", {"rand_perm_cam": cells})
    data = build(base, shots=(10,), modes=("indoor",))
    items = [data.gallery[i] for i in data.settings[0].draws[3]]
    assert sum(item.pid == 6 and item.camid == 1 for item in items) == 4
    assert sum(item.pid == 6 and item.camid == 2 for item in items) == 10


def test_what_does_not_fit_is_named(base):
    with pytest.raises(FileNotFoundError, match="rand_perm_cam.mat"):
        build(base)
    write_permutations(base, draws=3)
    with pytest.raises(ValueError, match=r"has 3 draws, so draw 4 .* lower TEST.DRAWS"):
        build(base)
    write_permutations(base, identities=10)
    with pytest.raises(ValueError, match="no images of identity 12 in camera 1"):
        build(base)
    write_permutations(base, per_cell=40)
    with pytest.raises(ValueError, match=r"names file 00\d\d of identity \d+ in camera \d, which has files 1..12"):
        build(base)
    write_permutations(base, key="test_id")
    with pytest.raises(ValueError, match="holds test_id, not rand_perm_cam"):
        build(base)
    savemat(base / "exp" / "rand_perm_cam.mat", {"rand_perm_cam": np.ones((6, 1))})
    with pytest.raises(ValueError, match="expected a cell per camera"):
        build(base)
    (base / "exp" / "rand_perm_cam.mat").write_text("no")
    with pytest.raises(ValueError, match="no MATLAB file"):
        build(base)


def test_unknown_sources_and_other_data_sets(base, tmp_path):
    with pytest.raises(ValueError, match="choices of DATASETS.GALLERY are seeded, rand_perm_cam"):
        TriSYSUMM01(root=str(base.parent), text=False, gallery="mat")
    tiny_trees.write_llcm(tmp_path, size=None, captions=False)
    with pytest.raises(ValueError, match="Tri-LLCM has no gallery 'rand_perm_cam'; choices of DATASETS.GALLERY are seeded"):
        TriLLCM(root=str(tmp_path), text=False, gallery="rand_perm_cam")


# --- validation identities --------------------------------------------------------------------------------------------


def test_validation_identities_leave_training_and_can_be_searched(tmp_path):
    tiny_trees.write_sysu(tmp_path, size=None)
    fit = TriSYSUMM01(root=str(tmp_path), validation=True)
    assert fit.train_ids == [1, 4, 9] and {item.pid for item in fit.query} == {6, 12, 25}
    val = TriSYSUMM01(root=str(tmp_path), validation=True, split="val")
    assert val.name == "Tri-SYSU-MM01 (validation identities)" and TriSYSUMM01.name == "Tri-SYSU-MM01"
    assert {item.pid for item in val.query} == {item.pid for item in val.gallery} == {2, 7}
    assert {item.camid for item in val.query} == {3, 6} and len(val.settings[0].draws[0]) == 2 * 4
    assert val.train_ids == [1, 4, 9] and {item.pid for item in val.visible_pool} == {2, 7}
    with pytest.raises(ValueError, match="no validation identities.*SOLVER.EPOCH_RULE last"):
        TriLLCM(root=str(tmp_path), validation=True)
    with pytest.raises(ValueError, match=r"splits: train, fit, val, test"):
        TriSYSUMM01(root=str(tmp_path), split="exam")
