"""Who a process is, as its launcher's environment says."""

import pytest

from tvilfm_plugin.host.processes import Place, first_host, place_from_environment

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "GROUP_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_NTASKS": "4",
    "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "123456", "SLURM_STEP_ID": "2",
}  # fmt: skip


def test_torchrun():
    assert place_from_environment(TORCHRUN) == Place(5, 8, 1, "1", "env://")
    assert place_from_environment({**TORCHRUN, "GROUP_RANK": ""}) == Place(5, 8, 1, "4", "env://")
    assert place_from_environment({**TORCHRUN, **SLURM}).world_size == 8, "torchrun inside a SLURM step"


def test_slurm():
    place = place_from_environment(SLURM)
    assert place[:4] == (3, 4, 1, "1")
    assert place.meeting.startswith("tcp://gpu07:") and 20000 <= int(place.meeting.rsplit(":")[-1]) < 40000
    own = place_from_environment({**SLURM, "MASTER_ADDR": "head", "MASTER_PORT": "1234"})
    assert own.meeting == "tcp://head:1234"
    other = place_from_environment({**SLURM, "SLURM_STEP_ID": "3"})
    assert other.meeting != place.meeting, "two steps of a job meet at two ports"


def test_alone_or_by_hand():
    assert place_from_environment({}) is None
    assert place_from_environment({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}) is None
    batch_script = {name: value for name, value in SLURM.items() if "STEP" not in name}
    assert place_from_environment(batch_script) is None


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="not MASTER_PORT"):
        place_from_environment({name: value for name, value in TORCHRUN.items() if name != "MASTER_PORT"})
    with pytest.raises(ValueError, match="SLURM_PROCID is 'x'"):
        place_from_environment({**SLURM, "SLURM_PROCID": "x"})


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("node1", "node1"), ("gpu[07-09,12],cpu1", "gpu07"), ("a,b", "a"), ("rack[3]-ib", "rack3-ib"), ("127.0.0.1", "127.0.0.1")],
)
def test_first_host_of_a_list(nodes, host):
    assert first_host(nodes) == host
