"""The folded twin against the module itself, and when it must be made anew."""

import copy

import pytest
import torch
from torch import Tensor, nn

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.dual_stream import DualStream
from tvilfm_plugin.modeling.folded import FoldedTrunk, _add_to


def randomise(module: nn.Module) -> nn.Module:
    """BN layers that do something."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.running_var, layer.bias.data, layer.running_mean):
                tensor.uniform_(0.5, 1.5, generator=generator)
    return module.eval()


class Block(nn.Module):
    """conv1 - bn1 - conv2 - bn2 and a residual; `twist` says who else wants a convolution as it was."""

    def __init__(self, twist: str = "") -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.relu, self.se = nn.ReLU(inplace=True), nn.Identity()
        self.twist = twist

    def forward(self, rows: Tensor) -> Tensor:
        first = self.conv1(rows)
        seen = self.conv2(self.relu(self.bn1(first)))
        out = self.se(self.bn2(seen))
        if self.twist == "reader":
            out = out + seen
        if self.twist == "caller":
            out = out + self.conv2(rows)
        if self.twist == "values" and float(out.sum()) > 1e9:
            return rows
        return out + rows


def rows() -> Tensor:
    return torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("twist", "folded"), [("", {"conv1", "conv2"}), ("reader", {"conv1"}), ("caller", {"conv1"}), ("values", set())]
)
def test_equal_to_the_module_and_only_what_nobody_else_needs(twist, folded):
    block = randomise(Block(twist))
    twin = FoldedTrunk(block)
    assert set(twin._pairs) == folded and twin.folds == bool(folded)
    if folded:
        with torch.no_grad():
            assert torch.allclose(twin.of(block)(rows()), block(rows()), atol=1e-6)


class Spread(nn.Module):
    """One row and column, added to all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, rows: Tensor) -> Tensor:
        return self.bn(self.conv(rows[:, :, :1, :1])) + rows


@pytest.mark.parametrize("module", [Block(), Spread()])
@torch.no_grad()
def test_residuals_are_added_in_place_where_they_fit(module):
    twin, given = FoldedTrunk(randomise(module)), rows()
    assert any(node.target is _add_to for node in twin._graph.nodes)
    assert torch.allclose(twin.of(module)(given), module(rows()), atol=1e-6)
    assert torch.equal(given, rows())


def test_tracing_leaves_modes_and_weights_alone():
    block = randomise(Block()).train()
    block.bn2.eval()
    before = copy.deepcopy(block.state_dict())
    FoldedTrunk(block)
    assert block.training and block.bn1.training and not block.bn2.training
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


@torch.no_grad()
def test_made_once_and_anew_when_weights_change():
    block = randomise(Block())
    twin = FoldedTrunk(block)
    first = twin.of(block)
    assert twin.of(block) is first
    block.bn1.running_mean.add_(1)
    assert torch.allclose(twin.of(block)(rows()), block(rows()), atol=1e-6)
    block.load_state_dict(randomise(Block()).state_dict())
    assert torch.allclose(twin.of(block)(rows()), block(rows()), atol=1e-6)
    block.conv1.weight.data *= 2  # what an optimiser on a flat buffer does: torch counts no change
    twin.forget()
    assert torch.allclose(twin.of(block)(rows()), block(rows()), atol=1e-6)


def test_a_module_that_trains_in_part_or_was_rebuilt_is_left_as_it_is():
    block = randomise(Block())
    twin = FoldedTrunk(block)
    block.bn2.train()
    assert twin.of(block) is block
    block.eval()
    assert twin.of(block) is not block
    block.bn1 = nn.Identity()
    assert twin.of(block) is block


class Base(nn.Sequential):
    """A stem and a block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 4, 3), Block()


def test_a_dual_stream_folds_when_it_is_evaluated_and_only_then():
    stream = DualStream(randomise(Base()), stem=("stem",), style="resnet").eval()
    images = {m: torch.randn(2, 3, 8, 8) for m in (Modality.RGB, Modality.IR)}
    bn = stream.base.block.bn1
    calls, forward = [], bn.forward
    bn.forward = lambda rows: calls.append(1) or forward(rows)
    plain = {m: x.detach() for m, x in stream(images).items()}
    assert len(calls) == 1, "gradients are wanted: the base itself"
    with torch.no_grad():
        folded = stream(images)
        assert len(calls) == 1
        assert all(torch.allclose(folded[m], plain[m], atol=1e-6) for m in images)
        hook = stream.base.block.register_forward_hook(lambda *args: None)
        stream(images)
        assert len(calls) == 2, "somebody wants to see a part: the base itself"
        hook.remove()
        stream.train()(images)
        assert len(calls) == 3, "batch statistics: the base itself"
        stream.base.block.conv2.weight.data.neg_()  # trained on a flat buffer
        stream.eval()
        after = stream(images)[Modality.IR]
        off = DualStream(randomise(Base()), stem=("stem",), style="resnet", fold=False).eval()
        off.load_state_dict(stream.state_dict())
        assert torch.allclose(after, off(images)[Modality.IR], atol=1e-6) and len(calls) == 3
    assert not any("_folded" in name for name in stream.state_dict())
    stream(images)  # trained in eval mode, again on a flat buffer
    stream.base.block.conv1.weight.data.neg_()
    off.load_state_dict(stream.state_dict())
    with torch.no_grad():
        assert torch.allclose(stream(images)[Modality.IR], off(images)[Modality.IR], atol=1e-6)


def test_a_module_that_was_made_under_inference_mode():
    with torch.inference_mode():
        block = randomise(Block())
        assert torch.allclose(FoldedTrunk(block).of(block)(rows()), block(rows()), atol=1e-6)


def test_copies_have_twins_of_their_own():
    stream = DualStream(randomise(Base()), stem=("stem",), style="resnet").eval()
    image = {Modality.IR: torch.randn(1, 3, 8, 8)}
    with torch.no_grad():
        before = stream(image)[Modality.IR]
        other = copy.deepcopy(stream)
        other.base.block.conv1.weight.zero_()
        assert not torch.allclose(other(image)[Modality.IR], before)
        assert torch.equal(stream(image)[Modality.IR], before)
