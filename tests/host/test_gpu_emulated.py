"""What a GPU does, without one: a scaler of losses, float16, pinned batches, little shared memory."""

import itertools
import shutil

import pytest
import torch
from torch import nn

pytest.importorskip("fastreid")

from fastreid.engine import train_loop
from fastreid.utils import events

from tvilfm_plugin.config import get_cfg, read_config
from tvilfm_plugin.data.loaders import build_train_loader
from tvilfm_plugin.engine import TriTrainer
from tvilfm_plugin.host import devices, setup
from tvilfm_plugin.host.movement import FirstStep
from tvilfm_plugin.host.optimizer import contiguous_optimizer

SCALE = 2.0**10  # a power of two, so that scaling and unscaling are exact


class Regression(nn.Module):
    """Losses of its batch; in the backward pass of a broken batch a number overflows, as float16 does."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)

    def forward(self, batch):
        out = self.second(torch.tanh(self.first(batch["images"])))
        if "broken" in batch:
            out.register_hook(lambda gradient: gradient * float("inf"))
        return {"loss": out.float().square().sum()}


def trained(scaler, *options, batches=6, broken=()):
    """A model, its trainer and its flat buffers after some steps of the host's mixed trainer."""
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.OPT", "Adam", *options])
    model, generator = Regression(), torch.Generator().manual_seed(1)
    groups = [{"freeze_status": "normal", "params": [p], "lr": 1e-2, "weight_decay": 5e-4} for p in model.parameters()]
    optimizer, buffers = contiguous_optimizer(cfg, groups)
    data = [{"images": torch.randn(4, 6, generator=generator)} for _ in range(batches)]
    for number in broken:
        data[number]["broken"] = True
    trainer = train_loop.AMPTrainer(model, data, optimizer, buffers, scaler)
    trainer.autocast = False
    watch, history = FirstStep(model, optimizer, scaler), []
    with events.EventStorage():
        for _ in range(batches):
            trainer.run_step()
            buffers.assert_buffer_is_valid()
            watch.settled()
            history.append([p.detach().clone() for p in model.parameters()])
    return history, trainer, optimizer


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


CLIP = ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE")
OPTIONS = {
    "fused": ("SOLVER.FUSED", True),
    "plain": ("SOLVER.FUSED", False),
    "norm": (*CLIP, "norm", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.05),
    "value": (*CLIP, "value", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.05),
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_scaled_loss_trains_as_an_unscaled_one_also_when_clipped_or_fused(options):
    unscaled, _, _ = trained(torch.amp.GradScaler("cpu", enabled=False), *options)
    scaled, trainer, optimizer = trained(torch.amp.GradScaler("cpu", init_scale=SCALE, growth_interval=4), *options)
    if options[0] != "SOLVER.FUSED":
        assert not optimizer.defaults.get("fused")
        assert not equal(scaled[-1], trained(torch.amp.GradScaler("cpu", enabled=False), *options, options[-2], 1e6)[0][-1])
    for a, b in zip(itertools.chain(*scaled), itertools.chain(*unscaled), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-7)
    assert trainer.grad_scaler.get_scale() == 2 * SCALE, "six good steps, the fourth of which doubles the scale"


@pytest.mark.parametrize("options", [OPTIONS["fused"], OPTIONS["plain"], OPTIONS["norm"]], ids=["fused", "plain", "norm"])
def test_an_overflow_skips_its_step_halves_the_scale_and_leaves_no_trace(options):
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, growth_interval=100)
    history, trainer, optimizer = trained(scaler, *options, broken=(0, 3))
    start = list(Regression().parameters())
    assert equal(history[0], start) and not equal(history[1], start), "the watch of the first step waits for one"
    assert equal(history[3], history[2]) and not equal(history[4], history[3])
    assert scaler.get_scale() == SCALE / 4
    assert all(value.isfinite().all() for value in history[-1])
    state = next(iter(optimizer.state.values()))
    assert int(state["step"]) == 4 and state["exp_avg"].isfinite().all()


# --- float16 ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def setting(tiny):
    """The small stage 1 and its first batch."""
    with tiny.environment():
        cfg = read_config(tiny.stage1, ["MODEL.HEADS.NUM_CLASSES", 4])
        yield cfg, next(iter(build_train_loader(cfg, False, cfg.SEED))), tiny


def test_a_step_in_float16_is_that_of_float32_but_for_rounding(setting):
    cfg, batch, _ = setting
    torch.manual_seed(0)
    model = TriTrainer.build_model(cfg).train()
    found = []
    for half in (False, True):
        model.zero_grad()
        with events.EventStorage(0), torch.autocast("cpu", dtype=torch.float16, enabled=half):
            torch.manual_seed(1)
            losses = model(batch)
        assert {loss.dtype for loss in losses.values()} == {torch.float32}, "losses are computed in float32"
        (sum(losses.values()) * (64 if half else 1)).backward()
        scale = 64 if half else 1
        found.append((losses, {n: p.grad / scale for n, p in model.named_parameters() if p.grad is not None}))
    (exact, gradients), (rounded, others) = found
    assert exact.keys() == rounded.keys() and gradients.keys() == others.keys()
    for name, loss in exact.items():
        assert torch.isfinite(rounded[name]) and rounded[name].item() == pytest.approx(loss.item(), rel=0.02), name
    largest = max(float(g.norm()) for g in gradients.values())
    assert all(float((gradients[n] - others[n]).norm()) < 0.1 * largest for n in gradients)


def test_the_log_says_whether_float32_is_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert setup.precision_of_gpu() == "float32 on this GPU: convolutions in TF32, matrix products in float32"
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert "convolutions in float32" in setup.precision_of_gpu()


# --- batches ----------------------------------------------------------------------------------------------------------


def test_batches_keep_their_shape_through_pinned_memory(setting, monkeypatch):
    _, batch, _ = setting
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *device: self.clone())
    pinned = torch.utils.data._utils.pin_memory.pin_memory(batch)
    assert type(pinned) is dict and pinned.keys() == batch.keys()
    for key, value in batch.items():
        tensor = isinstance(value, torch.Tensor)
        assert torch.equal(pinned[key], value) and pinned[key] is not value if tensor else pinned[key] == value
    assert {v.device.type for v in devices.to_device(pinned, torch.device("meta")).values() if hasattr(v, "device")} == {"meta"}


def test_workers_that_shared_memory_has_no_room_for_are_not_started(setting, monkeypatch):
    said = []
    monkeypatch.setattr(devices.logger, "warning", said.append)
    cfg, batch, tiny = setting
    free = [0]
    monkeypatch.setattr(devices, "SHARED_MEMORY", str(tiny.folder))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, free[0]))
    height, width = cfg.INPUT.SIZE_TRAIN
    one = devices.BATCHES_AHEAD * 3 * cfg.SOLVER.IMS_PER_BATCH * 3 * height * width
    cfg = cfg.clone()
    cfg.DATALOADER.NUM_WORKERS = 3
    for free[0], workers in ((0, 0), (one, 1), (2 * one + 1, 2), (10 * one, 3)):
        said.clear()
        with tiny.environment():
            loader = build_train_loader(cfg, False, cfg.SEED)
        assert loader.num_workers == workers and ("--shm-size" in " ".join(said)) == (workers < 3)
    monkeypatch.undo()
    assert [devices.affordable_workers(count, 1, (8, 4)) for count in (0, 2)] == [0, 2]
    with tiny.environment():
        alone = list(itertools.islice(build_train_loader(cfg, False, cfg.SEED), 1))
    assert torch.equal(alone[0]["rgb"], batch["rgb"]), "workers do not change the batches"
