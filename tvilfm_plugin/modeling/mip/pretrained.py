"""ImageNet weights of a plain ViT (timm's names) for MIP's encoder."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tvilfm_plugin.files.weights import below, prefixes_of, read_tensors
from tvilfm_plugin.modeling.backbone_layouts import LAYOUTS, resize_position
from tvilfm_plugin.modeling.mip.encoder import MIPEncoder

logger = logging.getLogger("fastreid." + __name__)

_EMBEDDING = {
    "embedding.cls": "cls_token",
    "embedding.position": "pos_embed",
    "embedding.patch.weight": "patch_embed.proj.weight",
    "embedding.patch.bias": "patch_embed.proj.bias",
}


class LoadReport(NamedTuple):
    """Our name -> the file's that it came from, ours that keep their initial values, and the file's that nothing took."""

    source: dict[str, str]
    initial: list[str]
    unused: list[str]


def vit_sources(names: Iterable[str], depth: int) -> dict[str, str]:
    """Encoder parameter -> the entry of a ViT of `depth` blocks that it starts from; the others start at random.

    Both branches start from the last block and the final norm; the prompts and their generator from nothing.
    """
    sources = {}
    for name in names:
        if name in _EMBEDDING:
            sources[name] = _EMBEDDING[name]
        elif name.startswith("blocks."):
            sources[name] = name
        elif name.startswith(("global_branch.", "local_branch.")):
            part, _, rest = name.removeprefix("global_branch.").removeprefix("local_branch.reader.").partition(".")
            sources[name] = f"blocks.{depth - 1}.{rest}" if part == "block" else f"norm.{rest}"
    return sources


def read_vit(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a local ViT file in timm's names; torchvision's are translated, wrappers and prefixes taken off."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"MODEL.BACKBONE.PRETRAIN_PATH {str(path)!r} is no file. Download a ViT-B/16 in timm's format "
            "(jx_vit_base_p16_224-80ecf9dd.pth; for the synthetic benchmark, `tvilfm pretrain vit` makes one), or set "
            "MODEL.BACKBONE.PRETRAIN False to start at random."
        )
    state = read_tensors(path)
    parts = [LAYOUTS["build_vit_backbone"](below(state, prefix)) for prefix in prefixes_of(state)]
    return max(parts, key=lambda part: len(part.keys() & set(_EMBEDDING.values())))


def load_vit(encoder: MIPEncoder, state: Mapping[str, Tensor], depth: int) -> LoadReport:
    """Copy a ViT's weights into the encoder, in place.

    Args:
        state: the ViT's tensors; entries with "head" or "dist" in their name are left aside.
        depth: MODEL.MIP.DEPTH; the ViT must have exactly so many blocks.
    """
    blocks = {int(name.split(".")[1]) for name in state if name.startswith("blocks.")}
    if blocks != set(range(depth)):
        raise ValueError(f"The ViT file has {len(blocks)} blocks, but MODEL.MIP.DEPTH is {depth}.")
    own = dict(encoder.named_parameters())
    sources = vit_sources(own, depth)
    missing = sorted({source for source in sources.values() if source not in state})
    if missing:
        raise ValueError(f"The ViT file lacks {len(missing)} entries, e.g. {', '.join(missing[:5])}.")
    with torch.no_grad():
        for name, source in sources.items():
            value = state[source]
            if name == "embedding.position":
                value = resize_position(value, encoder.embedding.grid)
            if value.shape != own[name].shape:
                raise ValueError(
                    f"{source} of the ViT file is {tuple(state[source].shape)}, {name} is {tuple(own[name].shape)}: "
                    "MODEL.MIP.WIDTH, PATCH and MLP_RATIO must be those of the file."
                )
            own[name].copy_(value)
    used = set(sources.values())
    report = LoadReport(sources, [n for n in own if n not in sources], sorted(n for n in state if n not in used))
    logger.info(
        f"ViT weights: {len(report.source)} tensors loaded; initial values: {len(report.initial)} tensors (prompts, cameras "
        f"and their like); not used: {', '.join(report.unused) or 'none'}"
    )
    return report
