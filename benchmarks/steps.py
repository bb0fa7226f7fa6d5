"""One training step of each stage: forward, backward and optimiser; images come normalised to the reference's side."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks import models, reference
from benchmarks.harness import Figure, Machine, compare, relative
from tvilfm_plugin.engine import param_groups
from tvilfm_plugin.host import contiguous_optimizer


def run(smoke: bool, machine: Machine, stages: tuple[int, ...] = (1, 2), pairs: int = 0) -> list[Figure]:
    return [figure for stage in stages for figure in _stage(stage, smoke, machine, pairs or (8 if smoke else 32))]


def _stage(stage: int, smoke: bool, machine: Machine, pairs: int) -> list[Figure]:
    cfg, model = models.build(stage, smoke)
    other = models.twin(model)
    batch: dict[str, Any] = {name: models.images(cfg, pairs, seed) for seed, name in enumerate(("rgb", "rgb_aug", "ir"))}
    batch["targets"] = torch.arange(pairs) // 4
    visible = models.normalise(other, torch.cat([batch["rgb"], batch["rgb_aug"]]))
    infrared = models.normalise(other, batch["ir"])
    inputs: tuple[Tensor, ...] = (visible, infrared)
    length = 0
    if stage == 2:
        full = models.tokens(pairs, 1), models.tokens(pairs, 2)
        length = int(torch.cat(full).argmax(dim=1).max()) + 1
        batch["rgb_tokens"], batch["ir_tokens"] = (some[:, :length] for some in full)
        inputs += full
    loss: Callable[..., Tensor] = reference.stage1_loss if stage == 1 else reference.stage2_loss

    difference = _difference(model, other, batch, lambda: loss(other, *inputs, batch["targets"]))
    optimizer, _ = contiguous_optimizer(cfg, param_groups(cfg, model))
    others = reference.optimizer(other, cfg.SOLVER.BASE_LR)

    def ours(amp: bool = False) -> None:
        with torch.autocast("cpu", enabled=amp):
            total = sum(model(batch).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    def theirs() -> None:
        total = loss(other, *inputs, batch["targets"])
        others.zero_grad()
        total.backward()
        others.step()

    size = tuple(cfg.INPUT.SIZE_TRAIN)
    gmac = 3 * pairs * models.visual_gmac(model, size) * (3 if stage == 1 else 1)
    if stage == 2:
        gmac += 3 * models.text_gmac(model, int((torch.cat(inputs[2:]).argmax(dim=1) + 1).sum()))
    name, runs = f"stage-{stage} step, {pairs} pairs", 3
    figures = [
        compare(f"{name}, float32", ours, theirs, difference, runs, target=(1.3, 2.0)[stage - 1], gmac=gmac,
                rate=machine.float32),
    ]  # fmt: skip
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        figures.append(
            compare(f"{name}, bfloat16", lambda: ours(True), theirs, difference, runs, target=(3.0, 4.5)[stage - 1],
                    gmac=gmac, rate=machine.bfloat16, note="reference in float32; equality is that of float32")
        )  # fmt: skip
    return figures


def _difference(model: Any, other: Any, batch: dict[str, Any], loss: Callable[[], Tensor]) -> float:
    """Of the losses and of the whole gradient."""
    ours, theirs = sum(model(batch).values()), loss()
    ours.backward()
    theirs.backward()
    named = dict(other.named_parameters())
    pairs = [(p.grad, named[name].grad) for name, p in model.named_parameters() if p.grad is not None]
    apart = sum(float((a - b).double().square().sum()) for a, b in pairs) ** 0.5
    whole = sum(float(b.double().square().sum()) for _, b in pairs) ** 0.5
    model.zero_grad()
    other.zero_grad()
    return max(relative(ours, theirs), apart / whole)
