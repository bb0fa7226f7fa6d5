"""One stem per modality, one shared trunk: made of any backbone by giving some of its modules a copy per modality."""

import copy
import itertools
import threading
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from tvilfm_plugin.modality import ByModality, Modality
from tvilfm_plugin.modeling.folded import FoldedTrunk, Trunk

STREAMS = (Modality.RGB, Modality.IR)
STYLES = ("released", "resnet", "torchvision")


class Route:
    """Which rows of the running batch belong to which modality; shared by a `DualStream` and its routers.

    Set for the duration of one call, per thread, so that two threads may share a model.
    """

    def __init__(self) -> None:
        self._counts: dict[int, dict[Modality, int]] = {}

    def enter(self, counts: dict[Modality, int]) -> None:
        """Rows are ordered as `counts`."""
        self._counts[threading.get_ident()] = counts

    def leave(self) -> None:
        """The call is over, well or badly."""
        self._counts.pop(threading.get_ident(), None)

    def counts(self) -> dict[Modality, int]:
        """Rows per modality of the running call."""
        try:
            return self._counts[threading.get_ident()]
        except KeyError:
            raise RuntimeError(
                "A stem that has one copy per modality was called from outside DualStream.forward, so it cannot know "
                "which rows are visible and which are infrared. Call the DualStream."
            ) from None


class Router(nn.ModuleDict):
    """Copies of a module, one per modality; each sees the rows of its own.

    It stands where the module stood, so the backbone's own forward code runs as it is. Keys read `conv1.rgb.weight`.
    """

    def __init__(self, module: nn.Module, route: Route) -> None:
        super().__init__({m.value: copy.deepcopy(module) for m in STREAMS})
        self.route = route

    def forward(self, rows: Tensor) -> Tensor:
        """(N, ...) rows in the order of the route -> (N, ...)."""
        counts = self.route.counts()
        shares = rows.split(list(counts.values())) if len(counts) > 1 else (rows,)
        outputs = [self[m.value](share) for m, share in zip(counts, shares, strict=True)]
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


class OneStream(nn.Module):
    """A module that only the rows of one modality pass; the others' output is zero. A `DualStream` gives it its route."""

    route: Route

    def __init__(self, modality: Modality, module: nn.Module) -> None:
        super().__init__()
        self.modality = modality
        self.module = module

    def forward(self, rows: Tensor) -> Tensor:
        """(N, ...) rows in the order of the route -> (N, ...)."""
        counts = self.route.counts()
        shares = dict(zip(counts, rows.split(list(counts.values())), strict=True))
        own = self.module(shares.get(self.modality, rows[:1]))
        return torch.cat([own if m is self.modality else own.new_zeros(n, *own.shape[1:]) for m, n in counts.items()])


class DualStream(nn.Module):
    """A backbone with one stem per modality and one shared trunk, run once over the rows of all modalities.

    Because the trunk sees all rows in one pass, its batch statistics mix the modalities in training.
    """

    def __init__(self, base: nn.Module, *, stem: Sequence[str], style: str = "released", fold: bool = True) -> None:
        """Args:
        base: any module (N, 3, H, W) -> (N, C, h, w) or (N, C). It is taken over and changed.
        stem: names of the modules of `base` (dots allowed) that get one copy per modality. Those without weights and
            buffers treat all rows alike and stay shared, which saves splitting and joining the batch.
        style: "released" drops the ReLUs of the stem and pads its max-pools, as the authors' code does; "torchvision" only
            pads the max-pools; "resnet" leaves the base as it is.
        fold: on a CPU, evaluate with BN folded into the convolutions (MODEL.DUAL_STREAM.FOLD_BN); exact but for rounding.
        """
        super().__init__()
        if style not in STYLES:
            raise ValueError(f"MODEL.DUAL_STREAM.STYLE is {style!r}; choose {' or '.join(STYLES)}.")
        self.base = base
        self.route = Route()
        for module in base.modules():
            if isinstance(module, OneStream):
                module.route = self.route
        for name in stem:
            _check_name(base, name)
            module = base.get_submodule(name)
            if style != "resnet":
                module = _padded_style(module, relu=style == "torchvision")
            has_state = any(True for _ in itertools.chain(module.parameters(), module.buffers()))
            base.set_submodule(name, Router(module, self.route) if has_state else module)
        self._folded = FoldedTrunk(base, leaves=(Router, OneStream)) if fold else None

    def train(self, mode: bool = True) -> Self:
        """Between training and evaluation the weights may have changed."""
        if self._folded is not None and mode != self.training:
            self._folded.forget()
        return super().train(mode)

    def forward(self, images: ByModality) -> dict[Modality, Tensor]:
        """Normalised (N_m, 3, H, W) per modality, of one H and W -> (N_m, C, h, w), or (N_m, C) if the base makes that."""
        # shape[0] and not len: an exporter keeps the former as a variable and takes the latter for a constant.
        counts = {m: rows.shape[0] for m, rows in images.items() if rows.shape[0]}
        if not counts or not set(counts) <= set(STREAMS):
            raise ValueError(
                f"DualStream has stems for {' and '.join(m.value for m in STREAMS)}, but got rows of "
                f"{', '.join(m.value for m in counts) or 'nothing'}."
            )
        present = [images[m] for m in counts]
        self.route.enter(counts)
        try:
            joined = torch.cat(present) if len(present) > 1 else present[0]
            frozen = joined.device.type == "cpu" and not torch.is_grad_enabled()
            if frozen or torch.is_autocast_enabled(joined.device.type):
                # Convolutions run faster with the channels innermost. Training in float32 gains little by it.
                joined = joined.contiguous(memory_format=torch.channels_last)
            maps = self._trunk(joined)(joined)
        finally:
            self.route.leave()
        if not isinstance(maps, Tensor) or maps.shape[0] != sum(counts.values()):
            raise TypeError(
                f"The base {type(self.base).__name__} must give one tensor with a row per image, not "
                f"{tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__}."
            )
        return dict(zip(counts, maps.split(list(counts.values())), strict=True))

    def _trunk(self, rows: Tensor) -> Trunk:
        """The base, or its folded twin where that gives the same and is faster."""
        if self._folded is None or not self._folded.folds or rows.device.type != "cpu" or torch.compiler.is_compiling():
            return self.base
        if self.training or torch.is_grad_enabled():
            self._folded.forget()  # a training step may follow
            return self.base
        return self._folded.of(self.base)


def _check_name(base: nn.Module, name: str) -> None:
    """A wrong name lists the candidates on the level where it went wrong."""
    parent, walked = base, ""
    for part in name.split("."):
        candidates = [child for child, _ in parent.named_children()]
        if part not in candidates:
            where = f"{type(base).__name__}{'.' + walked if walked else ''}"
            raise ValueError(
                f"MODEL.DUAL_STREAM.STEM names {name!r}, but {where} has no module {part!r}; it has "
                f"{', '.join(candidates) or 'none'}."
            )
        parent, walked = parent.get_submodule(part), f"{walked}.{part}".lstrip(".")


def _padded_style(module: nn.Module, relu: bool) -> nn.Module:
    """The module with padded max-pools and, unless `relu`, without ReLUs; what it does not contain is not added."""
    if isinstance(module, nn.ReLU) and not relu:
        return nn.Identity()
    if isinstance(module, nn.MaxPool2d):
        return nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    for name, child in module.named_children():
        replaced = _padded_style(child, relu)
        if replaced is not child:
            module.set_submodule(name, replaced)
    return module
