"""One training step of each stage: forward, backward and optimiser; images come normalised to the reference's side."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import models, reference
from benchmarks.harness import Figure, Machine, compare, relative, timed
from tvilfm_plugin.engine import param_groups
from tvilfm_plugin.host import contiguous_optimizer
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.tvilfm import STORED

# SYSU-MM01: views of one kind per image that filling a bank computes, and images that the steps of an epoch see.
BANK_IMAGES, EPOCH_IMAGES, EPOCHS = 2 * 22_258 + 11_909, 696 * 96, 20


def run(smoke: bool, machine: Machine, stages: tuple[int, ...] = (1, 2), pairs: int = 0, runs: int = 3) -> list[Figure]:
    return [figure for stage in stages for figure in _stage(stage, smoke, machine, pairs or (8 if smoke else 32), runs)]


def _stage(stage: int, smoke: bool, machine: Machine, pairs: int, runs: int) -> list[Figure]:
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

    def ours(amp: bool = False, seen: dict[str, Any] = batch) -> None:
        with torch.autocast("cpu", enabled=amp):
            total = sum(model(seen).values())
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
    name = f"stage-{stage} step, {pairs} pairs"
    figures = [
        compare(f"{name}, float32", ours, theirs, difference, runs, target=(1.3, 2.0)[stage - 1], gmac=gmac,
                rate=machine.float32),
    ]  # fmt: skip
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        figures.append(
            compare(f"{name}, bfloat16", lambda: ours(True), theirs, difference, runs, target=(3.0, 4.5)[stage - 1],
                    gmac=gmac, rate=machine.bfloat16, note="reference in float32; equality is that of float32")
        )  # fmt: skip
    if stage == 2:
        figures += _on_stored_features(model, batch, ours, theirs, runs, name)
    return figures


def _on_stored_features(
    model: Any, batch: dict[str, Any], ours: Callable[..., None], theirs: Callable[[], None], runs: int, name: str
) -> list[Figure]:
    """The step with the features of the very views of `batch`, and an estimate with the time to store them."""
    features: dict[str, Tensor] = {}

    @torch.no_grad()
    def visual() -> None:
        rows = model._visual_rows(batch)
        features.update(zip(STORED, (*rows[Modality.RGB].chunk(2), rows[Modality.IR]), strict=True))

    visual()
    of_images = timed(visual)[0]
    stored = {key: value for key, value in batch.items() if key not in ("rgb", "rgb_aug", "ir")} | features
    with torch.no_grad():
        difference = relative(sum(model(stored).values()), sum(model(batch).values()))
    figures = []
    for precision, target in (("float32", 3.5), ("bfloat16", 9.0)):
        if precision == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            continue
        step = partial(ours, amp=precision == "bfloat16", seen=stored)
        figure = compare(f"{name}, {precision}, stored features", step, theirs, difference, runs, target=target)
        filling = [k * of_images * BANK_IMAGES / EPOCH_IMAGES / EPOCHS for k in (1, 4)]
        total = ", ".join(f"{figure.reference_cpu / (figure.ours_cpu + some):.2f}x" for some in filling)
        figures.append(replace(figure, note=f"with filling in float32 for 1 and 4 views, over {EPOCHS} epochs: {total}"))
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
