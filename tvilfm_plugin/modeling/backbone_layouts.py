"""Published weights in fast-reid's names: how torchvision, timm and the authors of each backbone call the same tensors."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvilfm_plugin.files.listing import some
from tvilfm_plugin.files.weights import WeightsError, below, prefixes_of

State = dict[str, Tensor]
# The classifiers of published models, which no backbone has.
CLASSIFIER = re.compile(r"^(fc|classifier|head|heads|linear|last_linear|head_dist|pre_logits)\.")
# Layers that a backbone adds to a published one: AGW's non-local blocks start at zero, as their authors start them.
ADDED = re.compile(r"^NL_\d\.")


def _sub(*rules: tuple[str, str]) -> Callable[[str], str]:
    compiled = [(re.compile(pattern), ours) for pattern, ours in rules]

    def rename(name: str) -> str:
        for pattern, ours in compiled:
            name = pattern.sub(ours, name)
        return name

    return rename


def _blocks(names: Collection[str], pattern: str) -> dict[str, int]:
    """What a pattern with one group of "stage.block" finds, in the order of the numbers -> how many come before."""
    found = {match.group(1) for name in names if (match := re.match(pattern, name))}
    in_order = sorted(found, key=lambda block: [int(part) for part in re.findall(r"\d+", block)])
    return {block: n for n, block in enumerate(in_order)}


def _mobilenet_v2(state: State) -> State:
    """torchvision, timm, and d-li14 with the last layer in features.18."""
    if "conv_stem.weight" in state:  # timm
        number = _blocks(state, r"blocks\.(\d+\.\d+)\.")
        inside = {"conv_pw": 0, "bn1": 1, "conv_dw": 3, "bn2": 4, "conv_pwl": 6, "bn3": 7}
        ends = _sub((r"^conv_stem", "features.0.0"), (r"^bn1", "features.0.1"), (r"^conv_head", "conv.0"), (r"^bn2", "conv.1"))
        first = {"conv_dw": 0, "bn1": 1, "conv_pw": 3, "bn2": 4}  # the one block that expands nothing

        def of_timm(name: str) -> str:
            if match := re.match(r"blocks\.(\d+\.\d+)\.(\w+)\.(.+)", name):
                block, part, rest = match.groups()
                where = inside if f"blocks.{block}.conv_pwl.weight" in state else first
                return f"features.{number[block] + 1}.conv.{where.get(part, part)}.{rest}"
            return ends(name)

        return {of_timm(name): value for name, value in state.items()}
    last = max((int(m.group(1)) for name in state if (m := re.match(r"features\.(\d+)\.", name))), default=0)

    def of_torchvision(name: str) -> str:
        name = re.sub(rf"^features\.{last}\.([01])\.", r"conv.\1.", name) if f"features.{last}.0.weight" in state else name
        if match := re.match(r"(features\.\d+\.conv)\.(\d+)\.(\d+)\.(.+)", name):  # a convolution with its norm
            block, layer, part, rest = match.groups()
            return f"{block}.{3 * int(layer) + int(part)}.{rest}"
        if match := re.match(r"(features\.\d+\.conv)\.(\d+)\.(.+)", name):
            block, layer, rest = match.groups()
            pairs = len({m.group(1) for other in state if (m := re.match(rf"{re.escape(block)}\.(\d+)\.0\.", other))})
            return f"{block}.{int(layer) + 2 * pairs}.{rest}"
        return name

    return {of_torchvision(name): value for name, value in state.items()}


def _mobilenet_v3(state: State) -> State:
    """torchvision and timm. Their last layer is linear with a bias; the host's is a convolution and a norm, set to the same."""
    head = "classifier.0" if "classifier.0.weight" in state else "conv_head"
    state = dict(state)
    if "conv_stem.weight" in state:
        number = _blocks(state, r"blocks\.(\d+\.\d+)\.")

        def of_timm(name: str) -> str:
            if match := re.match(r"blocks\.(\d+\.\d+)\.(\w+)\.(.+)", name):
                block, part, rest = match.groups()
                here = f"features.{number[block] + 1}"
                if f"blocks.{block}.conv.weight" in state:
                    return f"{here}.{({'conv': 0, 'bn1': 1})[part]}.{rest}"
                expands = f"blocks.{block}.conv_pwl.weight" in state
                squeeze = 2 if expands else 1
                project = squeeze + 1 if f"blocks.{block}.se.conv_reduce.weight" in state else squeeze
                if part == "se":
                    return f"{here}.block.{squeeze}." + rest.replace("conv_reduce", "fc1").replace("conv_expand", "fc2")
                last = {"conv_pwl": f"{project}.0", "bn3": f"{project}.1"}
                where = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", **last}
                if not expands:
                    where = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": f"{project}.0", "bn2": f"{project}.1"}
                return f"{here}.block.{where.get(part, part)}.{rest}"
            return _sub((r"^conv_stem", "features.0.0"), (r"^bn1", "features.0.1"))(name)

        state = {of_timm(name): value for name, value in state.items()}
    if f"{head}.weight" in state and f"{head}.bias" in state:
        weight, bias = state.pop(f"{head}.weight"), state.pop(f"{head}.bias")
        state["conv.0.weight"] = weight.reshape(*weight.shape[:2], 1, 1)
        state |= {"conv.1.weight": torch.ones_like(bias), "conv.1.bias": bias}
        state |= {"conv.1.running_mean": torch.zeros_like(bias), "conv.1.running_var": torch.ones_like(bias)}
    return state


def _efficientnet(state: State) -> State:
    """torchvision and timm; pycls has the host's names."""
    if "conv_stem.weight" in state:
        rules = (
            (r"^conv_stem", "stem.conv"), (r"^bn1", "stem.bn"), (r"^conv_head", "head.conv"), (r"^bn2", "head.conv_bn"),
            (r"\.se\.conv_reduce", ".se.f_ex.0"), (r"\.se\.conv_expand", ".se.f_ex.2"),
        )  # fmt: skip
        full = {"conv_pw": "exp", "bn1": "exp_bn", "conv_dw": "dwise", "bn2": "dwise_bn"}
        full |= {"conv_pwl": "lin_proj", "bn3": "lin_proj_bn"}
        plain = {"conv_dw": "dwise", "bn1": "dwise_bn", "conv_pw": "lin_proj", "bn2": "lin_proj_bn"}

        def of_timm(name: str) -> str:
            if match := re.match(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(.+)", name):
                stage, block, part, rest = match.groups()
                where = full if f"blocks.{stage}.{block}.conv_pwl.weight" in state else plain
                name = f"s{int(stage) + 1}.b{int(block) + 1}.{where.get(part, part)}.{rest}"
            return _sub(*rules)(name)

        return {of_timm(name): value for name, value in state.items()}
    if "features.0.0.weight" not in state:
        return state
    last = max(int(m.group(1)) for name in state if (m := re.match(r"features\.(\d+)\.", name)))

    def of_torchvision(name: str) -> str:
        if match := re.match(r"features\.(\d+)\.(\d+)\.block\.(\d+)\.(\w+)\.(.+)", name):
            stage, block, layer, part, rest = match.groups()
            expands = f"features.{stage}.{block}.block.3.0.weight" in state
            role = ["exp", "dwise", "se", "lin_proj"][int(layer) + (0 if expands else 1)]
            here = f"s{stage}.b{int(block) + 1}"
            if role == "se":
                return f"{here}.se.f_ex.{ {'fc1': 0, 'fc2': 2}[part] }.{rest}"
            return f"{here}.{role}{'_bn' if part == '1' else ''}.{rest}"
        return _sub(
            (r"^features\.0\.0", "stem.conv"), (r"^features\.0\.1", "stem.bn"),
            (rf"^features\.{last}\.0\.", "head.conv."), (rf"^features\.{last}\.1\.", "head.conv_bn."),
        )(name)  # fmt: skip

    return {of_torchvision(name): value for name, value in state.items()}


_REGNET = _sub(
    # torchvision
    (r"^stem\.0\.", "stem.conv."), (r"^stem\.1\.", "stem.bn."),
    (r"^trunk_output\.block(\d)\.block\d-(\d+)\.", lambda m: f"s{m.group(1)}.b{int(m.group(2)) + 1}."),  # type: ignore[arg-type]
    (r"\.proj\.0\.", ".proj."), (r"\.proj\.1\.", ".bn."),
    (r"\.f\.([abc])\.0\.", r".f.\1."), (r"\.f\.([abc])\.1\.", r".f.\1_bn."),
    (r"\.f\.se\.fc1\.", ".f.se.f_ex.0."), (r"\.f\.se\.fc2\.", ".f.se.f_ex.2."),
    # timm
    (r"\.conv1\.conv\.", ".f.a."), (r"\.conv1\.bn\.", ".f.a_bn."),
    (r"\.conv2\.conv\.", ".f.b."), (r"\.conv2\.bn\.", ".f.b_bn."),
    (r"\.conv3\.conv\.", ".f.c."), (r"\.conv3\.bn\.", ".f.c_bn."), (r"(s\d\.b\d+)\.se\.fc1\.", r"\1.f.se.f_ex.0."),
    (r"(s\d\.b\d+)\.se\.fc2\.", r"\1.f.se.f_ex.2."), (r"\.downsample\.conv\.", ".proj."), (r"\.downsample\.bn\.", ".bn."),
)  # fmt: skip
_REPVGG = _sub(
    (r"^stem\.", "stage0."), (r"^stages\.(\d)\.", lambda m: f"stage{int(m.group(1)) + 1}."),  # type: ignore[arg-type]
    (r"\.conv_kxk\.", ".rbr_dense."), (r"\.conv_1x1\.", ".rbr_1x1."), (r"\.identity\.", ".rbr_identity."),
)  # fmt: skip
_VIT = _sub(
    (r"^class_token$", "cls_token"), (r"^encoder\.pos_embedding$", "pos_embed"), (r"^conv_proj\.", "patch_embed.proj."),
    (r"^(encoder\.)?layers\.encoder_layer_(\d+)\.", r"blocks.\2."), (r"^(encoder\.)?ln\.", "norm."),
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."), (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"(blocks\.\d+)\.mlp\.0\.", r"\1.mlp.fc1."), (r"(blocks\.\d+)\.mlp\.3\.", r"\1.mlp.fc2."),
)  # fmt: skip


def _renamed(rename: Callable[[str], str]) -> Callable[[State], State]:
    return lambda state: {rename(name): value for name, value in state.items()}


LAYOUTS: dict[str, Callable[[State], State]] = {
    "build_mobilenetv2_backbone": _mobilenet_v2,
    "build_mobilenetv3_backbone": _mobilenet_v3,
    "build_effnet_backbone": _efficientnet,
    "build_regnet_backbone": _renamed(_REGNET),
    "build_repvgg_backbone": _renamed(_REPVGG),
    "build_vit_backbone": _renamed(_VIT),
}
"""Builder -> a file's names in the host's. Those that are missing here have the host's names wherever they are published."""


def resize_position(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """A position table (1, 1 + n * n, D) of a square grid, class token first -> (1, 1 + rows * columns, D), bilinear."""
    side = round((table.shape[1] - 1) ** 0.5)
    if side * side != table.shape[1] - 1:
        raise ValueError(f"A position table of {table.shape[1]} rows is no class token and a square grid.")
    square = table[:, 1:].transpose(1, 2).unflatten(2, (side, side)).float()
    resized = F.interpolate(square, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([table[:, :1].float(), resized.flatten(2).transpose(1, 2)], dim=1)


def load_backbone(base: nn.Module, state: Mapping[str, Tensor], builder: str, path: str) -> int:
    """Fill a backbone with published weights, in place.

    Args:
        base: as fast-reid builds it.
        state: the tensors of a file.

    Returns:
        how many tensors came from the file, counters of batches apart.

    Raises:
        WeightsError: anything but a classifier is left over, or a tensor is left unfilled; with both lists.
    """
    own = base.state_dict()
    rename = LAYOUTS.get(builder, dict)
    parts = [rename(below(state, prefix)) for prefix in prefixes_of(state)]
    inside = max(parts, key=lambda part: len(part.keys() & own.keys()))
    if "pos_embed" in inside and "pos_embed" in own and inside["pos_embed"].shape[1] != own["pos_embed"].shape[1]:
        grid: Any = base.patch_embed
        inside["pos_embed"] = resize_position(inside["pos_embed"], (grid.num_y, grid.num_x))
    unused = [name for name in inside if name not in own and not CLASSIFIER.match(name)]
    misshapen = [n for n in inside if n in own and inside[n].shape != own[n].shape]
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    missing = [n for n in own if n not in inside and n not in counters and not ADDED.match(n)]
    if missing or misshapen or unused:
        shapes = [f"{n} {tuple(inside[n].shape)} instead of {tuple(own[n].shape)}" for n in misshapen]
        raise WeightsError(
            f"{path!r} does not fill {builder}'s {type(base).__name__}: unfilled are {some(missing)}; of another shape "
            f"{some(shapes, 3)}; in the file and not used {some(unused)}. Give weights of MODEL.DUAL_STREAM.BASE at "
            "MODEL.BACKBONE.DEPTH (and with the same WITH_IBN, WITH_SE), or set MODEL.BACKBONE.PRETRAIN False."
        )
    base.load_state_dict({name: value for name, value in inside.items() if name in own}, strict=False)
    return sum(name in inside for name in own.keys() - counters)
