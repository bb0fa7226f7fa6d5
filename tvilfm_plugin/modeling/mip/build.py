"""From the config to MIP's parts."""

import copy
from pathlib import Path

from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from torch import nn
from yacs.config import CfgNode

from tvilfm_plugin.modeling.mip.encoder import MIPEncoder
from tvilfm_plugin.modeling.mip.generator import PromptFusion, PromptGenerator
from tvilfm_plugin.modeling.mip.heads import MIPHeads, PromptReader
from tvilfm_plugin.modeling.mip.parts import LocalBranch, TokenReader, jigsaw_parts
from tvilfm_plugin.modeling.mip.pretrained import load_vit, read_vit
from tvilfm_plugin.modeling.mip.prompts import ModalityPrompts, prompt_bound
from tvilfm_plugin.modeling.mip.vit import Block, TokenEmbedding, init_linear
from tvilfm_plugin.modeling.published_weights import fetch
from tvilfm_plugin.registries import register

GENERATOR_INITS = ("random", "pretrained")
INSTANCE_TYPES = ("generator", "fusion")
READERS = ("mean", "block")


def _check(value: object, choices: tuple[str, ...], key: str) -> None:
    if value not in choices:
        raise ValueError(f"MODEL.MIP.{key} is {value!r}; choose {' or '.join(choices)}.")


def executed_blocks(cfg: CfgNode) -> int:
    """Blocks before the branches."""
    mip = cfg.MODEL.MIP
    blocks = mip.DEPTH - 1 if mip.BLOCKS < 0 else mip.BLOCKS
    if not 1 <= blocks < mip.DEPTH:
        raise ValueError(f"MODEL.MIP.BLOCKS is {mip.BLOCKS}; of {mip.DEPTH} blocks, 1 to {mip.DEPTH - 1} precede the branches.")
    return blocks


@BACKBONE_REGISTRY.register()
def build_mip_backbone(cfg: CfgNode) -> MIPEncoder:
    """MIP's encoder, with ImageNet weights if MODEL.BACKBONE.PRETRAIN. Only what the config uses is built."""
    mip = cfg.MODEL.MIP
    _check(mip.INSTANCE_TYPE, INSTANCE_TYPES, "INSTANCE_TYPE")
    _check(mip.GENERATOR_INIT, GENERATOR_INITS, "GENERATOR_INIT")
    height, width = cfg.INPUT.SIZE_TRAIN
    if tuple(cfg.INPUT.SIZE_TEST) != (height, width):
        raise ValueError(f"MIP has one position table: INPUT.SIZE_TEST must equal INPUT.SIZE_TRAIN {(height, width)}.")
    count = executed_blocks(cfg)
    embedding = TokenEmbedding(
        image_size=(height, width),
        patch=mip.PATCH,
        stride=mip.STRIDE,
        dim=mip.WIDTH,
        cameras=mip.CAMERAS,
        camera_scale=mip.CAMERA_SCALE,
    )
    rates = [mip.DROP_PATH * n / max(mip.DEPTH - 1, 1) for n in range(mip.DEPTH)]
    blocks = nn.ModuleList(Block(mip.WIDTH, mip.HEADS, mip.MLP_RATIO, rate) for rate in rates[:count])
    reader = TokenReader(Block(mip.WIDTH, mip.HEADS, mip.MLP_RATIO, rates[-1]), mip.WIDTH)
    for part in (blocks, reader):
        init_linear(part)
    bound = prompt_bound(mip.PROMPT_SCALE, mip.PATCH, mip.WIDTH)
    modality_prompts = None
    if mip.MODALITY_PROMPTS:
        modality_prompts = ModalityPrompts(
            layers=count, count=mip.MODALITY_PROMPTS, dim=mip.WIDTH, bound=bound, dropout=mip.PROMPT_DROPOUT
        )
    patches = embedding.grid[0] * embedding.grid[1]
    encoder = MIPEncoder(
        embedding=embedding,
        blocks=blocks,
        modality_prompts=modality_prompts,
        instance_prompts=_instance_prompts(mip, blocks, bound),
        global_branch=reader,
        local_branch=LocalBranch(copy.deepcopy(reader), jigsaw_parts(patches, mip.SHIFT, mip.GROUPS, mip.PARTS)),
        first_camera=mip.FIRST_CAMERA,
        image_size=(height, width),
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
    )
    _load(cfg, encoder)
    return encoder


def _instance_prompts(mip: CfgNode, blocks: nn.ModuleList, bound: float) -> PromptGenerator | PromptFusion | None:
    if not mip.INSTANCE_PROMPTS:
        return None
    if mip.INSTANCE_TYPE == "generator":
        # Copied before any weights are loaded, so from random weights, as in the released code.
        return PromptGenerator(block=blocks[0], count=mip.INSTANCE_PROMPTS, dim=mip.WIDTH, query=mip.QUERY)  # type: ignore[arg-type]
    return PromptFusion(
        layers=len(blocks),
        count=mip.INSTANCE_PROMPTS,
        dim=mip.WIDTH,
        entries=mip.BANK,
        bound=bound,
        temperature=mip.TEMPERATURE,
        dropout=mip.PROMPT_DROPOUT,
    )


def _load(cfg: CfgNode, encoder: MIPEncoder) -> None:
    backbone, mip = cfg.MODEL.BACKBONE, cfg.MODEL.MIP
    if backbone.PRETRAIN:
        path: Path = Path(backbone.PRETRAIN_PATH)
        if not backbone.PRETRAIN_PATH:
            # One size of a plain ViT is published for MIP: the paper's.
            paper = (mip.WIDTH, mip.DEPTH, mip.PATCH) == (768, 12, 16)
            path = fetch("build_mip_backbone", "base" if paper else f"of width {mip.WIDTH} and depth {mip.DEPTH}")
        load_vit(encoder, read_vit(path), mip.DEPTH)
    if mip.GENERATOR_INIT == "pretrained" and isinstance(encoder.instance_prompts, PromptGenerator):
        encoder.instance_prompts.block.load_state_dict(encoder.blocks[0].state_dict())


@register(REID_HEADS_REGISTRY, "MIPHeads")
def build_mip_heads(cfg: CfgNode, encoder: MIPEncoder) -> MIPHeads:
    """Necks and classifiers for an encoder; IAEL's only where it has weight and there are instance prompts."""
    mip = cfg.MODEL.MIP
    _check(mip.IAEL_READER, READERS, "IAEL_READER")
    iael = mip.IAEL_WEIGHT > 0 and encoder.instance_prompts is not None
    return MIPHeads(
        dim=encoder.width,
        num_classes=cfg.MODEL.HEADS.NUM_CLASSES,
        branches=encoder.branches,
        prompted_layers=len(encoder.blocks) if iael else 0,
        # A copy of the branches' reader, so it starts from the last block and the final norm, too.
        prompt_reader=PromptReader(encoder.global_branch, encoder.width) if iael and mip.IAEL_READER == "block" else None,
        norm=cfg.MODEL.HEADS.NORM,
        feature=mip.FEATURE,
    )
