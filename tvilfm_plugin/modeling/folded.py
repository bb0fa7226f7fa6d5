"""BN folded into the convolutions before it, for a backbone that is only evaluated."""

import itertools
import operator
from collections import Counter
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Trunk = Callable[[Tensor], Tensor]


class FoldedTrunk:
    """A twin of a module in which every convolution has taken over the BN behind it, with the channels innermost.

    The code is traced once, here; the weights are folded when the twin is asked for, and anew after they have changed.
    The twin shares what is not folded. It is no submodule: its weights are no parameters and in no checkpoint.

    Attributes:
        folds: whether there is anything to fold. Code that cannot be traced (it asks for values) is left as it is.
    """

    def __init__(self, base: nn.Module, leaves: tuple[type[nn.Module], ...] = ()) -> None:
        """Args:
        base: a module of one tensor.
        leaves: modules inside that are called as they are.
        """
        self._kinds = _kinds(base)
        self._graph, self._pairs = _trace(base, (nn.Conv2d, nn.BatchNorm2d, *leaves))
        self._made: tuple[tuple[tuple[int, int], ...], Trunk] | None = None

    @property
    def folds(self) -> bool:
        return bool(self._pairs)

    def forget(self) -> None:
        """The weights have changed in a way that torch does not count, e.g. an optimiser's on a flat buffer."""
        self._made = None

    def of(self, base: nn.Module) -> Trunk:
        """The twin of `base` or its copy; `base` itself if it trains, has hooks, or is not what was traced any more."""
        if any(part.training or part._forward_hooks or part._forward_pre_hooks for part in base.modules()):
            return base
        tensors = itertools.chain(base.parameters(), base.buffers())
        versions = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
        if self._made is None or self._made[0] != versions:
            self._made = (versions, self._fold(base) if _kinds(base) == self._kinds else base)
        return self._made[1]

    def _fold(self, base: nn.Module) -> Trunk:
        assert self._graph is not None
        modules: dict[str, nn.Module] = dict(base.named_modules())
        parts = {name: modules[name] for name in {str(n.target) for n in self._graph.nodes if n.op == "call_module"}}
        for conv, bn in self._pairs.items():
            fused = fuse_conv_bn_eval(cast(nn.Conv2d, modules[conv]), cast(nn.BatchNorm2d, modules[bn]))
            parts[conv] = fused.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        attributes = {str(n.target).rpartition(".") for n in self._graph.nodes if n.op == "get_attr"}
        tensors = {"".join(name): getattr(base.get_submodule(name[0]), name[2]) for name in attributes}
        return fx.GraphModule(parts | tensors, self._graph, type(base).__name__)


def _kinds(base: nn.Module) -> list[tuple[str, type]]:
    return [(name, type(module)) for name, module in base.named_modules()]


class _Tracer(fx.Tracer):
    """Calls some kinds of modules as they are, with what is derived from them."""

    def __init__(self, leaves: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self._leaves = leaves

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self._leaves) or super().is_leaf_module(m, module_qualified_name)


def _trace(base: nn.Module, leaves: tuple[type[nn.Module], ...]) -> tuple[fx.Graph | None, dict[str, str]]:
    """The graph of a module in eval mode without the BN layers that can be folded, and {convolution: BN} of those."""
    training = {module: module.training for module in base.modules()}
    base.eval()
    try:
        graph = _Tracer(leaves).trace(base)
    except Exception:  # there are as many reasons as backbones, and the module itself serves as well
        return None, {}
    finally:
        for module, mode in training.items():
            module.training = mode
    modules = dict(base.named_modules())
    for node in list(graph.nodes):
        if node.op == "call_module" and type(modules[str(node.target)]) is nn.Identity:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    pairs: dict[str, str] = {}
    for node in list(graph.nodes):
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or node.op != "call_module" or before.op != "call_module":
            continue
        conv, bn = modules[str(before.target)], modules[str(node.target)]
        # Whoever else reads or calls the convolution needs it as it was.
        alone = len(before.users) == 1 and calls[before.target] == 1
        if alone and isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d) and bn.track_running_stats:
            pairs[str(before.target)] = str(node.target)
            node.replace_all_uses_with(before)
            graph.erase_node(node)
    for node in graph.nodes:
        first = node.args[0] if node.args else None
        # What a folded convolution returns is nobody else's.
        if node.target is operator.add and isinstance(first, fx.Node) and first.target in pairs and len(first.users) == 1:
            node.target = _add_to
    return graph, pairs


def _add_to(of_convolution: Tensor, other: Tensor) -> Tensor:
    """Their sum, in place where it fits: a trace makes `out += identity` a sum in fresh memory."""
    fits = of_convolution.shape == other.shape and of_convolution.dtype == other.dtype
    return of_convolution.add_(other) if fits else of_convolution + other
