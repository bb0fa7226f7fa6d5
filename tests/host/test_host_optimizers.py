"""The host's optimizers over flat buffers: that they train."""

import pytest
import torch
from repaired_host import TwoLayers, before, small_config

pytest.importorskip("fastreid")

from fastreid.solver import build as host_solver
from fastreid.solver import build_optimizer

from tvilfm_plugin.config import add_tvilfm_config
from tvilfm_plugin.host.optimizer import contiguous_optimizer


def train(model, optimizer, number=3):
    x = torch.linspace(0, 1, 8).view(2, 4)
    for _ in range(number):
        loss = model({"images": x})["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_the_host_trains_nothing_and_mended_it_does():
    cfg = small_config(OPT="Adam", BASE_LR=0.1, HEADS_LR_FACTOR=2.0)
    first = list(TwoLayers().parameters())
    model = TwoLayers()
    with before(torch.optim.Optimizer, "zero_grad"):
        after = train(model, build_optimizer(cfg, model)[0])
    assert all(torch.equal(a, b) for a, b in zip(first, after, strict=True)), "the host is repaired"
    model = TwoLayers()
    optimizer, parameters = build_optimizer(cfg, model)
    after = train(model, optimizer)
    parameters.assert_buffer_is_valid()
    assert len(optimizer.param_groups) == 2 and optimizer.state
    twin = TwoLayers()
    expected = train(twin, torch.optim.Adam(host_solver.get_default_optimizer_params(
        twin, base_lr=0.1, weight_decay=0.0005, heads_lr_factor=2.0)))
    for a, b, old in zip(after, expected, first, strict=True):
        assert torch.allclose(a, b, atol=1e-6) and not torch.equal(a, old)


def test_every_way_to_clear_gradients_keeps_flat_buffers_and_others_go_as_torch_says():
    model, free = TwoLayers(), TwoLayers()
    optimizer, parameters = build_optimizer(small_config(OPT="SGD", BASE_LR=0.1), model)
    other = torch.optim.SGD(free.parameters(), 0.1)
    for clear in (optimizer.zero_grad, lambda: optimizer.zero_grad(True), model.zero_grad, lambda: model.zero_grad(True)):
        old = model.heads.weight.clone()
        clear()
        model({"images": torch.ones(2, 4)})["loss"].backward()
        optimizer.step()
        parameters.assert_buffer_is_valid()
        assert not torch.equal(model.heads.weight, old)
    for clear in (other.zero_grad, free.zero_grad):
        free({"images": torch.ones(2, 4)})["loss"].backward()
        clear()
        assert free.heads.weight.grad is None


@pytest.mark.parametrize(("name", "fused"), [("Adam", True), ("SGD", True), ("RMSprop", None)])
def test_ordinary_optimizers_are_fused_where_the_config_says_so(name, fused):
    cfg = small_config(OPT=name)
    add_tvilfm_config(cfg)
    cfg.SOLVER.FUSED = True
    model = TwoLayers()
    assert build_optimizer(cfg, model)[0].defaults.get("fused") == fused
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    assert not build_optimizer(cfg, TwoLayers())[0].defaults.get("fused")


def test_own_groups_with_clipping_per_flat_group():
    cfg = small_config(OPT="SGD", MOMENTUM=0.0)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED, cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = True, 0.5
    model = TwoLayers()
    groups = [
        {"params": [parameter], "lr": 1.0, "weight_decay": 0.0, "freeze_status": "normal", "name": name}
        for name, parameter in model.named_parameters()
    ]
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    optimizer, _ = contiguous_optimizer(cfg, groups)
    after = torch.cat([value.flatten() for value in train(model, optimizer, 1)])
    assert (after - before).norm() == pytest.approx(0.5, rel=1e-3)
    with pytest.raises(ValueError, match="nothing to train"):
        contiguous_optimizer(cfg, [])
