from pathlib import Path

import golden_inputs_mip as inputs
import pytest
import torch
from mip_models import RELEASED, mip_config, small_config

from tvilfm_plugin.checkpoints.released_mip import official_names
from tvilfm_plugin.modeling.mip.mip import MIP
from tvilfm_plugin.modeling.mip.optim import build_mip_scheduler, lr_class, mip_lr, mip_lr_factor, mip_param_groups

GOLDEN = inputs.golden("schedule.json")
RECIPES = {"sysu_base_lr_0.01": 0.01, "regdb_base_lr_0.008": 0.008}


@pytest.mark.parametrize("recipe", RECIPES)
def test_learning_rates_of_every_class_and_epoch(recipe: str) -> None:
    base = RECIPES[recipe]
    for kind, expected in GOLDEN[recipe].items():
        peak = base * GOLDEN["multiplier_per_class"][kind]
        assert [mip_lr(t, peak, base) for t in range(81)] == pytest.approx(expected, abs=1e-9)
        # The trainer counts from 0, the schedule from 1.
        assert [peak * mip_lr_factor(e, peak=peak, base_lr=base) for e in range(80)] == pytest.approx(expected[1:], abs=1e-9)


@pytest.mark.parametrize("reader", ["mean", "block"])
@pytest.mark.parametrize("query", ["zeros", "learned"])
def test_class_of_every_parameter(query: str, reader: str) -> None:
    with torch.device("meta"):
        model = MIP(mip_config(BLOCKS=10, QUERY=query, IAEL_READER=reader))
    for name, parameter in model.named_parameters():
        for theirs in official_names(name):
            assert parameter.requires_grad == (theirs not in GOLDEN["frozen"]), name
            if parameter.requires_grad:
                assert lr_class(name) == GOLDEN["class_of_parameter"][theirs], name


def test_classes_of_the_fusion_type() -> None:
    model = MIP(small_config(INSTANCE_TYPE="fusion"))
    found = {name.removeprefix("visual."): lr_class(name) for name, _ in model.named_parameters() if "instance" in name}
    assert found == {
        "instance_prompts.bank": "prompt",
        "instance_prompts.mixers": "base",
        "instance_prompts.projection.weight": "base",
        "instance_prompts.projection.bias": "bias",
    }


def test_groups_and_scheduler_through_the_host() -> None:
    """The optimizer that the trainer builds, stepped as its hook does, has the reference rates."""
    from tvilfm_plugin.host.optimizer import contiguous_optimizer

    cfg = small_config(**RELEASED | {"BLOCKS": 2})
    cfg.merge_from_file(str(Path(__file__).parents[3] / "configs" / "Base-MIP.yml"))
    cfg.MODEL.BACKBONE.PRETRAIN = False
    model = MIP(cfg)
    groups = mip_param_groups(cfg, model)
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in model.parameters() if p.requires_grad}
    assert {group["weight_decay"] for group in groups} == {1e-4}
    optimizer, _ = contiguous_optimizer(cfg, groups)
    assert isinstance(optimizer, torch.optim.SGD)
    assert {g["momentum"] for g in optimizer.param_groups} == {0.9} and not any(g["nesterov"] for g in optimizer.param_groups)
    kinds = {0.01: "base", 0.02: "bias", 0.05: "prompt", 0.15: "generator"}
    peaks = [kinds[round(group["lr"], 6)] for group in optimizer.param_groups]
    assert sorted(peaks) == sorted(kinds.values())
    scheduler = build_mip_scheduler(cfg, optimizer)["lr_sched"]
    for epoch in range(80):
        for kind, group in zip(peaks, optimizer.param_groups, strict=True):
            assert group["lr"] == pytest.approx(GOLDEN["sysu_base_lr_0.01"][kind][epoch + 1], abs=1e-9)
        optimizer.step()
        scheduler.step()


def test_schedule_refuses_the_hosts_warm_up() -> None:
    cfg = small_config()
    cfg.SOLVER.WARMUP_ITERS = 10
    with pytest.raises(ValueError, match="WARMUP_ITERS 0"):
        build_mip_scheduler(cfg, torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
