"""What the tests of the repaired host share: a small config, the host as it was, a model of two layers."""

import contextlib

import pytest
import torch
from fastreid.config import get_cfg
from torch import nn

from tvilfm_plugin.host import replacing

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="the symptom is that there is no GPU")


def small_config(**solver):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = [64, 32]
    cfg.DATALOADER.NUM_WORKERS = 0
    for key, value in solver.items():
        cfg.SOLVER[key] = value
    return cfg


@contextlib.contextmanager
def before(owner, *names):
    """What the host has under these names of one of its classes, as it was before it was mended."""
    with replacing.lend(owner, **{name: replacing.original(owner, name) for name in names}):
        yield


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(4, 4)
        self.heads = nn.Linear(4, 2)
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters()):
                parameter.copy_(torch.linspace(-1, 1 + number, parameter.numel()).view_as(parameter))

    def forward(self, batch):
        logits = self.heads(torch.tanh(self.backbone(batch["images"])))
        self.autocast = logits.dtype
        return {"loss": (logits.float() ** 2).sum()}
