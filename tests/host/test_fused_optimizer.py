"""The fused update of flat buffers against torch's plain one."""

import pytest
import torch
from torch import nn

pytest.importorskip("fastreid")

from tvilfm_plugin.config import get_cfg
from tvilfm_plugin.host.optimizer import contiguous_optimizer


def steps(name, fused, clip=False):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.OPT", name, "SOLVER.FUSED", fused, "SOLVER.CLIP_GRADIENTS.ENABLED", clip])
    groups = [{"freeze_status": "normal", "params": [p], "lr": 1e-2, "weight_decay": 5e-4} for p in model.parameters()]
    optimizer, _ = contiguous_optimizer(cfg, groups)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(4, 6)).square().sum().backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()], optimizer


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_fused_equals_plain(name):
    (plain, slow), (fused, fast) = steps(name, False), steps(name, True)
    assert fast.defaults["fused"] is True and not slow.defaults["fused"]
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(plain, fused, strict=True))


def test_clipping_and_other_optimizers_stay_plain():
    assert not steps("Adam", True, clip=True)[1].defaults["fused"]
    assert "fused" not in steps("RMSprop", True)[1].defaults
