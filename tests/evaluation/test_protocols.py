import dataclasses
import pickle

import numpy as np
import pytest

from tvilfm_plugin.evaluation.protocols import LLCM, MARKET, REGDB, SYSU, Labels

GALLERY = Labels(np.array([7, 7, 8, 8]), np.array([1, 2, 2, 3]))


def junk(protocol, pids, camids):
    result = protocol.is_junk(np.array(pids)[:, None], np.array(camids)[:, None], GALLERY)
    return np.broadcast_to(result, (len(pids), 4)).astype(int).tolist()


def test_sysu_camera_3_ignores_all_of_camera_2_whoever_it_shows():
    assert junk(SYSU, [7, 9, 7], [3, 3, 6]) == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("protocol", [LLCM, MARKET])
def test_same_person_and_same_camera(protocol):
    assert junk(protocol, [7, 8, 8], [2, 2, 1]) == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_regdb_ignores_nothing():
    assert junk(REGDB, [7, 8], [2, 3]) == [[0] * 4] * 2


def test_what_the_cmc_counts():
    assert [p.cmc for p in (SYSU, LLCM, REGDB, MARKET)] == ["identities", "identities", "images", "images"]


@pytest.mark.parametrize("protocol", [SYSU, LLCM, REGDB, MARKET], ids=lambda p: p.name)
def test_protocols_pickle_and_are_values(protocol):
    assert pickle.loads(pickle.dumps(protocol)) == protocol
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocol.name = "mine"
