"""Parts of the host's trainer: steps, checkpoints, hooks, the seed."""

import os
import sys
import types

import numpy as np
import pytest
import torch
import torch.distributed as dist
from repaired_host import TwoLayers, before, no_gpu, small_config
from torch import nn

pytest.importorskip("fastreid")

from fastreid.engine import defaults, hooks, train_loop
from fastreid.evaluation import ReidEvaluator, reid_evaluation
from fastreid.solver import build_optimizer
from fastreid.utils import checkpoint, comm, events

from tvilfm_plugin.config import add_tvilfm_config
from tvilfm_plugin.host import replacing, setup, steps


def test_evaluator_compiles_nothing(monkeypatch):
    calls = []
    monkeypatch.setattr(reid_evaluation, "compile_helper", lambda: calls.append(1))
    monkeypatch.setitem(sys.modules, "fastreid.evaluation.rank_cylib.rank_cy", None)
    ReidEvaluator(small_config(), 1)
    assert not calls
    with before(ReidEvaluator, "_compile_dependencies"):
        ReidEvaluator(small_config(), 1)
    assert calls


def amp_trainer():
    model = TwoLayers()
    optimizer, parameters = build_optimizer(small_config(BASE_LR=0.1), model)
    return train_loop.AMPTrainer(model, [{"images": torch.ones(2, 4)}] * 2, optimizer, parameters)


@no_gpu
def test_mixed_precision_on_the_cpu():
    with before(train_loop.AMPTrainer, "run_step", "__init__"), pytest.raises(AssertionError, match="CUDA"):
        amp_trainer().run_step()
    ours = amp_trainer()
    with events.EventStorage():
        ours.run_step()
    assert ours.model.autocast == torch.bfloat16
    assert not torch.equal(ours.model.heads.weight, TwoLayers().heads.weight)


class Recorder:
    """In the place of a GradScaler: what the step asks of it, in order; losses come out four times as large."""

    def __init__(self):
        self.asked = []

    def scale(self, loss):
        self.asked.append("scale")
        return 4 * loss

    def step(self, optimizer):
        self.asked.append("step")
        optimizer.step()

    def update(self):
        self.asked.append("update")


def test_a_mixed_step_scales_the_loss_steps_through_the_scaler_and_updates_it():
    gradients = []
    for scaler in (Recorder(), None):
        trainer = amp_trainer()
        trainer.grad_scaler = scaler or trainer.grad_scaler
        with events.EventStorage():
            trainer.run_step()
        gradients.append(trainer.model.heads.weight.grad.clone())
    assert torch.allclose(gradients[0], 4 * gradients[1], rtol=1e-5)
    trainer.grad_scaler = recorder = Recorder()
    with events.EventStorage():
        trainer.run_step()
    assert recorder.asked == ["scale", "step", "update"]


def test_losses_are_read_at_once(monkeypatch):
    seen, written = [], replacing.original(train_loop.SimpleTrainer, "_write_metrics")

    def spy(self, losses, data_time):
        seen.append(losses)
        written(self, losses, data_time)

    monkeypatch.setattr(train_loop.SimpleTrainer, "_write_metrics", lambda *args: steps._read_at_once(spy, *args))
    losses = {"a": torch.tensor(1.5, requires_grad=True), "b": torch.tensor([2.25]), "c": torch.tensor(-0.5).double()}
    with events.EventStorage() as storage:
        train_loop.SimpleTrainer(TwoLayers(), [], None, None)._write_metrics(losses, 0.1)
        latest = storage.latest()
    assert {name: latest[name][0] for name in (*losses, "total_loss")} == {"a": 1.5, "b": 2.25, "c": -0.5, "total_loss": 3.25}
    trainer = train_loop.SimpleTrainer(TwoLayers(), [], None, None)
    trainer.iter = 7
    with events.EventStorage(), pytest.raises(FloatingPointError, match=r"at iteration 7 .a 1.5, b nan, c -0.5.*BASE_LR"):
        trainer._write_metrics(losses | {"b": torch.tensor(float("nan"))}, 0.1)
    first, *others = seen[0].values()
    assert not first.requires_grad and all(loss._base is first._base is not None for loss in others), "parts of one tensor"


@no_gpu
def test_ddp_on_the_cpu():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match="device_ids"):
            nn.parallel.DistributedDataParallel(TwoLayers(), device_ids=[0], broadcast_buffers=False)
        model = defaults.DistributedDataParallel(TwoLayers(), device_ids=[0], broadcast_buffers=False)
        assert model({"images": torch.ones(1, 4)})["loss"].requires_grad
    finally:
        dist.destroy_process_group()


def test_checkpoints_are_whole_or_absent(tmp_path):
    def interrupted(folder):
        folder.mkdir()
        saver = checkpoint.Checkpointer(TwoLayers(), str(folder))
        saver.save("model", epoch=0)
        with pytest.raises((AttributeError, TypeError, RuntimeError, OSError)):
            saver.save("model", epoch=lambda: "this does not pickle")
        return folder / "model.pth"

    with before(checkpoint.Checkpointer, "save"), pytest.raises((RuntimeError, EOFError, OSError)):
        torch.load(interrupted(tmp_path / "host"))
    path = interrupted(tmp_path / "ours")
    assert torch.load(path)["epoch"] == 0
    assert sorted(os.listdir(path.parent)) == ["last_checkpoint", "model.pth"]
    saver = checkpoint.Checkpointer(TwoLayers(), str(path.parent))
    saver.save("best", metric=np.float64(0.5))
    assert saver.resume_or_load("")["metric"] == 0.5
    with pytest.raises(ValueError, match="plain file name"):
        saver.save("a/b")
    checkpoint.Checkpointer(TwoLayers(), str(tmp_path / "absent"), save_to_disk=False).save("model")
    assert not (tmp_path / "absent").exists()


def stub_trainer(**values):
    values = {"epoch": 1, "max_epoch": 2, "iter": 4, "max_iter": 4, "iters_per_epoch": 2, **values}
    return types.SimpleNamespace(storage=events.EventStorage(), **values)


def test_evaluation_period_zero_and_evaluation_after_training():
    def evaluations(period, epochs=(0, 1), **state):
        calls = []
        hook = hooks.EvalHook(period, lambda: calls.append(hook.trainer.epoch))
        hook.trainer = stub_trainer()
        for hook.trainer.epoch in epochs:
            hook.after_epoch()
        vars(hook.trainer).update(state)
        hook.after_train()
        return calls

    with before(hooks.EvalHook, "after_train"), pytest.raises(ZeroDivisionError):
        evaluations(0)
    assert evaluations(0) == [1]
    assert evaluations(1) == [0, 1]
    assert evaluations(2) == [1]
    assert evaluations(3) == [1]
    # A crash in the last epoch: the host evaluates what is half trained.
    with before(hooks.EvalHook, "after_train"):
        assert evaluations(3, iter=3) == [1]
    assert evaluations(3, iter=3) == []
    # A finished run that is resumed has no epoch.
    assert evaluations(1, epochs=()) == [1]


def test_checkpoint_period_zero_no_test_set_and_the_best_metric():
    class Saver:
        def __init__(self):
            self.names = []

        def save(self, name, **_):
            self.names.append(name)

    def saved(period, tests=("Market1501",), metrics=(1.0, 0.5), best=None):
        hook = hooks.PeriodicCheckpointer(Saver(), period)
        hook.trainer = stub_trainer(cfg=types.SimpleNamespace(DATASETS=types.SimpleNamespace(TESTS=tests)))
        if best is not None:
            hook.load_state_dict(best)
        hook.before_train()
        with events.EventStorage() as storage:
            for hook.trainer.epoch, metric in enumerate(metrics):
                storage.put_scalar("metric", metric, smoothing_hint=False)
                hook.after_epoch()
        return hook.checkpointer.names, hook

    with before(hooks.PeriodicCheckpointer, "__init__"), pytest.raises(ZeroDivisionError):
        saved(0)
    with before(hooks.PeriodicCheckpointer, "before_train"), pytest.raises(IndexError):
        saved(1, tests=())
    assert saved(0)[0] == ["model_best", "model_final"]
    assert saved(1, tests=())[0] == ["model_best", "model_0000", "model_final"]
    names, hook = saved(1)
    assert saved(1, best=hook.state_dict(), metrics=(0.9,))[0] == ["model_0000"]


def test_writers_see_each_iteration_once_and_the_evaluation():
    def written(iterations):
        log = []

        class Writer(events.EventWriter):
            def write(self):
                log.append(events.get_event_storage().iter)

            def close(self):
                log.append("closed")

        hook = hooks.PeriodicWriter([Writer()], 1)
        hook.trainer = stub_trainer(iters_per_epoch=iterations, max_iter=iterations)
        with events.EventStorage() as storage:
            for hook.trainer.iter in range(iterations):
                storage.iter = hook.trainer.iter
                hook.after_step()
            hook.after_epoch()
            storage.iter = iterations
            hook.after_train()
        return log

    with before(hooks.PeriodicWriter, "after_step", "after_train"):
        assert written(2) == [0, 1, 1, "closed"]
    assert written(2) == [0, 1, 2, "closed"]
    with events.EventStorage() as storage:
        storage.epoch = 0
        printer = events.CommonMetricPrinter(1)
        printer.write()
        with pytest.raises(ZeroDivisionError):
            printer.write()


def test_the_whole_seed_is_set(tmp_path, monkeypatch):
    import random

    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    setup.seed_everything(7)
    first = draw()
    setup.seed_everything(7 + 2**32)
    assert draw() == first
    setup.seed_everything(8)
    assert draw() != first
    cfg = small_config()
    add_tvilfm_config(cfg)
    cfg.OUTPUT_DIR, cfg.SEED = str(tmp_path), 7
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    stand_in = types.ModuleType("stand_in")
    stand_in.default_setup = lambda cfg, args: torch.manual_seed(1)
    setup.set_up_when_ready(stand_in)
    stand_in.default_setup(cfg, None)
    assert draw() == first
    monkeypatch.setattr(comm, "get_rank", lambda: 1)
    stand_in.default_setup(cfg, None)
    assert draw() != first, "each rank has its own seed"
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    cfg.SEED = -1
    stand_in.default_setup(cfg, None)
    assert torch.equal(torch.rand(()), torch.rand((), generator=torch.Generator().manual_seed(1)))
