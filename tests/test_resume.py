"""kill -9 in the middle of either stage, then --resume: the final weights are those of an uninterrupted run."""

import multiprocessing
import os
import shutil
import signal

import pytest
from tiny_runs import same, weights

pytest.importorskip("fastreid")

from tvilfm_plugin.engine import TriTrainer

FINALS = ("stage1/model_final.pth", "model_final.pth")


def killed_at(stage: int, iteration: int) -> type[TriTrainer]:
    """A trainer whose process dies, without any chance to clean up, when it has done an iteration of a stage."""

    class Killed(TriTrainer):
        def run_step(self) -> None:
            super().run_step()
            if self.iter == iteration and (self.cfg.MODEL.META_ARCHITECTURE == "VIBaseline") == (stage == 1):
                os.kill(os.getpid(), signal.SIGKILL)

    return Killed


def run_until_killed(tiny, stage, iteration, *arguments, **keywords):
    """Fork, as importing everything again takes longer than training; the child dies by SIGKILL."""
    child = multiprocessing.get_context("fork").Process(
        target=tiny, args=arguments, kwargs={"trainer": killed_at(stage, iteration), **keywords}
    )
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL


def pointer(folder):
    return (folder / "last_checkpoint").read_text()


def test_killed_in_both_stages(tiny, trained):
    out = tiny.folder / "killed"
    run_until_killed(tiny, 1, 7, "killed")
    assert pointer(out / "stage1") == "model_0000.pth" and not (out / "last_checkpoint").exists()
    run_until_killed(tiny, 2, 2, "killed", "--resume")
    assert not (out / "last_checkpoint").exists()
    run_until_killed(tiny, 2, 7, "killed", "--resume")
    assert pointer(out) == "model_0000.pth"
    tiny("killed", "--resume", "DATALOADER.NUM_WORKERS", 2)
    log = (out / "log.txt").read_text()
    assert log.count("Starting training from epoch 1") == 2 and log.count("Stage 1 is finished") == 1
    for name in FINALS:
        assert same(weights(out / name), weights(trained / name)), name


def test_an_older_run_in_the_same_folder_is_never_resumed(tiny, trained):
    """A fresh start over a finished run, killed before its first checkpoint; with mixed precision, where there is any."""
    options = ["SEED", 4, "SOLVER.AMP.ENABLED", True, "TEST.DRAWS", 1, "DATASETS.MODES", "('all',)"]
    tiny("reference", *options)
    out = tiny.folder / "over"
    shutil.copytree(trained, out)
    run_until_killed(tiny, 1, 2, "over", *options)
    assert not (out / "stage1" / "model_final.pth").exists() and not (out / "stage1" / "last_checkpoint").exists()
    run_until_killed(tiny, 2, 7, "over", *options, "--resume")
    tiny("over", *options, "--resume")
    assert pointer(out) == "model_final.pth"
    for name in FINALS:
        assert same(weights(out / name), weights(tiny.folder / "reference" / name)), name
        assert not same(weights(out / name), weights(trained / name)), name


def test_a_stage_1_without_a_seed_continues_with_its_own_draws(tiny):
    """Without SEED the draws are random, but a resumed run goes on with those that it began with."""
    out = tiny.folder / "unseeded"
    run_until_killed(tiny, 1, 5, "unseeded", "SEED", -1)
    import torch

    seed = torch.load(out / "stage1" / "model_0000.pth", weights_only=True)["data"]["seed"]
    tiny("unseeded", "--resume", "SEED", -1, "OUTPUT_DIR", out / "stage1", "TEST.DRAWS", 1, config=tiny.stage1)
    assert torch.load(out / "stage1" / "model_final.pth", weights_only=True)["data"] == {"batches": 10, "seed": seed}
