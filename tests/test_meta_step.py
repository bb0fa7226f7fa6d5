"""One training step of every config on the meta device: whatever lies on another device, or waits for a value, fails here.

A GPU's mistakes without a GPU: a tensor made on the CPU in the middle of a forward pass, a number read back from the device,
a parameter that no gradient reaches.
"""

import contextlib
import json

import pytest
import torch
from test_configs import SMALL, read
from tiny_runs import ROOT

pytest.importorskip("fastreid")

from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.utils.events import EventStorage

from tvilfm_plugin.engine import TriTrainer
from tvilfm_plugin.modeling.methods import losses
from tvilfm_plugin.modeling.methods.yyds_model import YYDS

CONFIGS = sorted(ROOT.glob("projects/*/configs/*.yml"))
# These are about a backbone: it is the real one.
BACKBONES = set(json.loads((ROOT / "benchmarks" / "backbones.json").read_text())) - {"sysu"}
OUR_SMALL_BACKBONE = ("MODEL.DUAL_STREAM.BASE", "MODEL.BACKBONE.FEAT_DIM")


@pytest.fixture
def meta(monkeypatch):
    """The meta device has no autocast, and no values."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: contextlib.nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *args: False)
    # DEEN's number of identities is a value.
    monkeypatch.setattr(losses, "class_means", lambda rows, pids: rows[::2])
    # What colours YYDS's captions name is read from their ids.
    monkeypatch.setattr(YYDS, "_overlap", lambda self, tokens, pids: (pids[:, None] == pids).float())


def small(path, tower):
    """The config in small, as in test_configs.py; its own backbone where it is about one."""
    pairs = dict(zip(SMALL[::2], SMALL[1::2], strict=True))
    if path.stem in BACKBONES:
        pairs = {key: value for key, value in pairs.items() if key not in OUR_SMALL_BACKBONE}
    # Four rows of the last maps: MMN cuts as many stripes.
    pairs |= {"INPUT.SIZE_TRAIN": [64, 32], "INPUT.SIZE_TEST": [64, 32], "MODEL.MIP.BLOCKS": 2}
    pairs |= {"MODEL.TEXT.ARCH": str(tower), "MODEL.HEADS.NUM_CLASSES": 4, "MODEL.DUAL_STREAM.WEIGHTS": ""}
    return read(path, *(word for pair in pairs.items() for word in pair))


def step(cfg, batch, device="meta"):
    """A model after forward and backward."""
    model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg).to(device).train()
    with EventStorage(0):
        found = model({key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()})
    assert {loss.device.type for loss in found.values()} == {device}
    sum(found.values()).backward()
    return model


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_every_config_steps_on_one_device_and_reaches_every_parameter(path, tiny, meta):
    with tiny.environment():
        cfg = small(path, tiny.config.with_name("tower.json"))
        model = step(cfg, next(iter(TriTrainer.build_train_loader(cfg))))
    lost = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.is_meta)]
    assert not lost
    assert {buffer.device.type for buffer in model.buffers()} == {"meta"}
