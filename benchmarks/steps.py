"""One training step of each stage: forward, backward and optimiser; images come normalised to the reference's side.

Each side has a process of its own: ours keeps the memory that it frees (SOLVER.KEEP_MEMORY), the reference has the
allocator as it is.
"""

import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import models, reference
from benchmarks.harness import Elsewhere, Figure, Machine, compare, relative
from tvilfm_plugin.engine import param_groups
from tvilfm_plugin.host.memory import keep_freed_memory
from tvilfm_plugin.host.optimizer import contiguous_optimizer
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.tvilfm import STORED

# SYSU-MM01: views of one kind per image that filling a bank computes, and images that the steps of an epoch see.
BANK_IMAGES, EPOCH_IMAGES, EPOCHS = 2 * 22_258 + 11_909, 696 * 96, 20
TARGETS = {1: {"float32": 1.3, "bfloat16": 3.0}, 2: {"float32": 2.0, "bfloat16": 4.5}}
STORED_TARGETS = {"float32": 3.5, "bfloat16": 9.0}


@dataclass
class Step:
    """A model, and a batch as our side and as the reference takes it; the same for the same arguments."""

    stage: int
    smoke: bool
    pairs: int

    def __post_init__(self) -> None:
        self.cfg, self.model = models.build(self.stage, self.smoke)
        views = {name: models.images(self.cfg, self.pairs, seed) for seed, name in enumerate(("rgb", "rgb_aug", "ir"))}
        self.targets = torch.arange(self.pairs) // 4
        self.batch: dict[str, Any] = views | {"targets": self.targets}
        visible = self.model.visual.normalise(torch.cat([views["rgb"], views["rgb_aug"]]))
        self.inputs: tuple[Tensor, ...] = (visible, self.model.visual.normalise(views["ir"]))
        if self.stage == 2:
            full = models.tokens(self.pairs, 1), models.tokens(self.pairs, 2)
            length = int(torch.cat(full).argmax(dim=1).max()) + 1
            self.batch["rgb_tokens"], self.batch["ir_tokens"] = (some[:, :length] for some in full)
            self.inputs += full

    def loss(self, batch: dict[str, Any] | None = None) -> Tensor:
        return sum(self.model(self.batch if batch is None else batch).values())  # type: ignore[return-value]

    def optimizer(self) -> torch.optim.Optimizer:
        return contiguous_optimizer(self.cfg, param_groups(self.cfg, self.model))[0]

    def update(self, optimizer: torch.optim.Optimizer, amp: bool, batch: dict[str, Any]) -> None:
        """Our step, on the device of the batch; `amp` is bfloat16."""
        with torch.autocast(batch["targets"].device.type, torch.bfloat16, enabled=amp):
            total = self.loss(batch)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    def reference_loss(self, model: Any) -> Tensor:
        function: Callable[..., Tensor] = reference.stage1_loss if self.stage == 1 else reference.stage2_loss
        return function(model, *self.inputs, self.targets)

    @torch.no_grad()
    def stored(self) -> dict[str, Any]:
        """The batch with the features of its very views in the place of pixels."""
        rows = self.model._visual_rows(self.batch)
        features = dict(zip(STORED, (*rows[Modality.RGB].chunk(2), rows[Modality.IR]), strict=True))
        return {key: value for key, value in self.batch.items() if key not in ("rgb", "rgb_aug", "ir")} | features

    def gmac(self) -> float:
        """What our side has to multiply: three times for forward and backward of what is trained."""
        images = 3 * self.pairs * models.visual_gmac(self.model, tuple(self.cfg.INPUT.SIZE_TRAIN))
        if self.stage == 1:
            return 3 * images
        return images + 3 * models.text_gmac(self.model, int((torch.cat(self.inputs[2:]).argmax(dim=1) + 1).sum()))


def ours(stage: int, smoke: bool, pairs: int) -> dict[str, Callable[[], Any]]:
    """Our step in both precisions, in stage 2 also on stored features, and storing them."""
    keep_freed_memory()
    some = Step(stage, smoke, pairs)
    step = partial(some.update, some.optimizer())
    work: dict[str, Callable[[], Any]] = {name: partial(step, name == "bfloat16", some.batch) for name in TARGETS[stage]}
    if stage == 2:
        stored = some.stored()
        work |= {f"{name}, stored features": partial(step, name == "bfloat16", stored) for name in STORED_TARGETS}
        work["storing"] = some.stored
    return work


def theirs(stage: int, smoke: bool, pairs: int) -> dict[str, Callable[[], Any]]:
    some = Step(stage, smoke, pairs)
    optimizer = reference.optimizer(some.model, some.cfg.SOLVER.BASE_LR)

    def step() -> None:
        total = some.reference_loss(some.model)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    return {"float32": step}


def run(smoke: bool, machine: Machine, stages: tuple[int, ...] = (1, 2), pairs: int = 0, runs: int = 3) -> list[Figure]:
    return [figure for stage in stages for figure in _stage(stage, smoke, machine, pairs or (8 if smoke else 32), runs)]


def _stage(stage: int, smoke: bool, machine: Machine, pairs: int, runs: int) -> list[Figure]:
    gmac, differences = _checked(Step(stage, smoke, pairs))
    name = f"stage-{stage} step, {pairs} pairs"
    rates = {"float32": machine.float32}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        rates["bfloat16"] = machine.bfloat16
    with Elsewhere(ours, stage, smoke, pairs) as our, Elsewhere(theirs, stage, smoke, pairs) as their:

        def figure(work: str, difference: float, note: str = "", **options: Any) -> Figure:
            sides = partial(our.timed, work), partial(their.timed, "float32")
            some = compare(f"{name}, {work}", *sides, difference, runs, clock=lambda side: side(), **options)
            kernel = [statistics.median(side.kernel[-runs:]) for side in (our, their)]
            without = (some.reference_cpu - kernel[1]) / (some.ours_cpu - kernel[0])
            kernel_note = f"in the kernel {kernel[0]:.2g} s, reference {kernel[1]:.2g} s; without them {without:.2f}x"
            return replace(some, note="; ".join(filter(None, (kernel_note, note))))

        notes = {"float32": "", "bfloat16": "reference in float32; equality is that of float32"}
        figures = [
            figure(p, differences[0], notes[p], target=TARGETS[stage][p], gmac=gmac, rate=rate) for p, rate in rates.items()
        ]
        if stage == 2:
            of_images = our.timed("storing")[0]
            for precision in rates:
                some = figure(f"{precision}, stored features", differences[1], target=STORED_TARGETS[precision])
                filling = [k * of_images * BANK_IMAGES / EPOCH_IMAGES / EPOCHS for k in (1, 4)]
                total = ", ".join(f"{some.reference_cpu / (some.ours_cpu + more):.2f}x" for more in filling)
                note = f"{some.note}; with filling in float32 for 1 and 4 views, over {EPOCHS} epochs: {total}"
                figures.append(replace(some, note=note))
    return figures


def _checked(some: Step) -> tuple[float, tuple[float, ...]]:
    """Our multiplications, and the differences: of the loss and the whole gradient; of the loss on stored features."""
    other = copy.deepcopy(some.model)
    loss, reference_loss = some.loss(), some.reference_loss(other)
    loss.backward()
    reference_loss.backward()
    named = dict(other.named_parameters())
    pairs = [(p.grad, named[name].grad) for name, p in some.model.named_parameters() if p.grad is not None]
    apart = sum(float((a - b).double().square().sum()) for a, b in pairs) ** 0.5
    whole = sum(float(b.double().square().sum()) for _, b in pairs) ** 0.5
    differences = [max(relative(loss, reference_loss), apart / whole)]
    if some.stage == 2:
        with torch.no_grad():
            differences.append(relative(some.loss(some.stored()), loss))
    return some.gmac(), tuple(differences)
