"""Several processes: through `python -m tvilfm_plugin`, on the CPU, with the plugin loaded in every child."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_market import write_market

from tvilfm_plugin.host.launch import launch
from tvilfm_plugin.host.scripts import run_script

TESTS = Path(__file__).parents[1]

# A script of the stock shape that trains, resumes and evaluates in one launch (a process takes seconds to start) and
# keeps the weights of each rank. The work is in a module beside the script; its trainer has an optimizer of its own.
WORK = """
import copy, os, sys

sys.path.append({tests!r})
import stock_script
import torch
from fastreid.engine import DefaultTrainer
from fastreid.solver import build_optimizer
from fastreid.utils import comm

class Recording(DefaultTrainer):
    @classmethod
    def build_optimizer(cls, cfg, model):
        cfg = cfg.clone()
        cfg.defrost()
        cfg.SOLVER.OPT = "AdamW"
        return build_optimizer(cfg, model)

    def train(self):
        results = super().train()
        rank = comm.get_rank()
        torch.save(self.model.module.state_dict(), os.path.join(self.cfg.OUTPUT_DIR, f"rank{{rank}}.pth"))
        return results

def with_options(args, *options, **flags):
    args = copy.copy(args)
    args.opts = [*args.opts, *options]
    vars(args).update(flags)
    return args

class Job:
    def __init__(self, world):
        self.world = world

    def flows(self, args, backend):
        assert comm.get_world_size() == self.world and torch.distributed.get_backend() == backend
        flows(args)

def flows(args):
    assert comm.get_world_size() == 2 and comm.get_local_size() == 2 and comm.get_local_rank() == comm.get_rank()
    out = args.opts[args.opts.index("OUTPUT_DIR") + 1]
    stock_script.DefaultTrainer = Recording
    stock_script.main(args)
    torch.distributed.barrier()
    if comm.is_main_process():
        os.rename(os.path.join(out, "rank0.pth"), os.path.join(out, "first.pth"))
    stock_script.main(with_options(args, "SOLVER.MAX_EPOCH", "2", "SOLVER.AMP.ENABLED", "True", resume=True))
    torch.distributed.barrier()
    weights = os.path.join(out, "model_final.pth")
    evaluation = with_options(args, "MODEL.WEIGHTS", weights, "TEST.RERANK.ENABLED", "True", eval_only=True)
    results = stock_script.main(evaluation)
    if comm.is_main_process():
        print("RESULTS", results["mAP"], DefaultTrainer.__name__)
"""
DRIVER = """
from fastreid.engine import default_argument_parser, launch
import functools
from work import Job

if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    launch(functools.partial(Job(2).flows, backend="gloo"), args.num_gpus, dist_url=args.dist_url, args=(args,))
"""


def test_two_processes_train_resume_and_evaluate(tmp_path):
    pytest.importorskip("fastreid")
    config = write_market(tmp_path / "data", identities=8)
    driver, out = tmp_path / "driver.py", tmp_path / "out"
    driver.write_text(DRIVER)
    driver.with_name("work.py").write_text(WORK.format(tests=str(TESTS)))
    command = [sys.executable, "-m", "tvilfm_plugin", str(driver), "--config-file", str(config)]
    command += ["--num-gpus", "2", "--dist-url", "auto", "OUTPUT_DIR", str(out), "SEED", "1"]
    command += ["SOLVER.MAX_EPOCH", "1", "SOLVER.IMS_PER_BATCH", "16", "DATALOADER.NUM_WORKERS", "1"]
    command += ["MODEL.BACKBONE.NORM", "syncBN", "MODEL.HEADS.NORM", "syncBN"]
    env = {**os.environ, "FASTREID_DATASETS": str(tmp_path / "data"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=TESTS.parent, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    assert done.stdout.count("RESULTS") == done.stdout.count("TriTrainer\n") == 1
    assert not [text for text in ("TypedStorage", "addmm_", "broadcast_buffers") if text in done.stderr]
    ranks = [torch.load(out / f"rank{rank}.pth") for rank in range(2)]
    trained = [name for name in ranks[0] if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in trained)
    first = torch.load(out / "first.pth")
    assert not torch.equal(first["heads.weight"], ranks[0]["heads.weight"])
    rows = [json.loads(line) for line in (out / "metrics.json").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 3] and all("mAP" in row for row in rows)
    assert "Starting training from epoch 1" in (out / "log.txt").read_text()
    assert (out / "log.txt.rank1").exists()


def test_one_process_is_a_call():
    seen = []
    launch(lambda *args: seen.append(args), 1, args=(1, 2))
    assert seen == [(1, 2)]


def test_auto_address_is_for_one_machine():
    with pytest.raises(ValueError, match="tcp://HOST:PORT"):
        launch(print, 1, num_machines=2, dist_url="auto")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="without GPUs any number of processes run on the CPU")
def test_more_processes_than_gpus():
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES="):
        launch(print, torch.cuda.device_count() + 1, dist_url="auto")


def test_script_function_must_be_at_the_top_level(tmp_path):
    pytest.importorskip("fastreid")
    script = tmp_path / "script.py"
    script.write_text(
        "from fastreid.engine import launch\ndef outer():\n    def inner(): pass\n    launch(inner, 2)\n"
        "if __name__ == '__main__': outer()\n"
    )
    with pytest.raises(ValueError, match="inner.*top level"):
        run_script(str(script), [])
