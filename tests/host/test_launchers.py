"""One job, started in each way: the same weights. And one whose worker is killed, and which torchrun starts again."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import same, weights

pytest.importorskip("fastreid")

TESTS = Path(__file__).parents[1]

# The stock script, with synchronised BN; where KILL says so, a worker is killed in the second epoch of its first life.
DRIVER = """
import os, signal, sys

sys.path.append({tests!r})
import stock_script
from fastreid.engine import DefaultTrainer, HookBase, default_argument_parser, launch
from fastreid.utils import comm

class Killed(HookBase):
    def before_step(self):
        first_life = os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0"
        if "KILL" in os.environ and first_life and comm.get_rank() == 1 and self.trainer.iter == 7:
            os.kill(os.getpid(), signal.SIGKILL)

class Trainer(DefaultTrainer):
    def build_hooks(self):
        return [*super().build_hooks(), Killed()]

def work(args):
    assert comm.get_world_size() == 2
    os.write(1, f"LOCAL {{comm.get_local_rank()}} of {{comm.get_local_size()}}\\n".encode())  # whole lines
    stock_script.DefaultTrainer = Trainer
    return stock_script.main(args)

if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    launch(work, args.num_gpus, dist_url="auto", args=(args,))
"""


@pytest.fixture(scope="module")
def job(tiny, tmp_path_factory):
    """Starts the job; returns its output folder and what the processes printed."""
    folder = tmp_path_factory.mktemp("launchers")
    driver = folder / "driver.py"
    driver.write_text(DRIVER.format(tests=str(TESTS)))

    def start(name, *launcher, places=({},), options=(), **environment):
        out = folder / name
        env = {**os.environ, "FASTREID_DATASETS": str(tiny.folder / "data"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        env.update({"PYTHONPATH": str(TESTS.parent), **environment})
        command = [sys.executable, *launcher, "-m", "tvilfm_plugin", str(driver), "--config-file", str(tiny.stage1), *options]
        command += ["OUTPUT_DIR", str(out), "SEED", "5", "TEST.DRAWS", "1", "MODEL.HEADS.NORM", "syncBN"]
        processes = [
            subprocess.Popen(
                command, env={**env, **place}, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            for place in places
        ]
        printed = [process.communicate(timeout=400)[0] for process in processes]
        assert not any(process.returncode for process in processes), "\n".join(text[-4000:] for text in printed)
        return out, "\n".join(printed)

    return start


@pytest.fixture(scope="module")
def spawned(job):
    out, printed = job("spawned", options=("--num-gpus", "2"))
    assert "LOCAL 0 of 2" in printed and "LOCAL 1 of 2" in printed
    return out


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def final(out):
    checkpoint = torch.load(out / "model_final.pth", weights_only=True)
    return weights(out / "model_final.pth"), checkpoint["optimizer"]["state"]


def equal(a, b):
    (first, adam), (second, other) = final(a), final(b)
    assert same(first, second)
    assert adam.keys() == other.keys() and all(same(adam[key], other[key]) for key in adam)


def test_two_nodes_of_slurm_train_the_same(job, spawned):
    common = {
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0", "SLURM_STEP_NODELIST": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    places = [{**common, "SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)} for rank in range(2)]
    out, printed = job("slurm", places=places)
    assert printed.count("LOCAL 0 of 1") == 2, "one process on each of two machines"
    equal(out, spawned)


def test_a_killed_worker_of_torchrun_comes_back_and_nothing_differs(job, spawned):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    out, printed = job("torchrun", *torchrun, options=("--resume",), KILL="1")
    assert printed.count("LOCAL 0 of 2") == 2, "two lives"
    assert "Starting training from epoch 1" in (out / "log.txt").read_text()
    equal(out, spawned)


def test_a_launcher_and_options_that_contradict_it():
    from fastreid.config import get_cfg
    from fastreid.engine import DefaultTrainer

    from tvilfm_plugin.host.launch import launch

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}.items():
            patch.setenv(name, value)
        with pytest.raises(ValueError, match="one of 2 that a launcher .* asks for 4"):
            launch(print, 4)
        with pytest.raises(RuntimeError, match="have not met"):
            DefaultTrainer(get_cfg())
