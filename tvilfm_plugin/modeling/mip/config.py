"""MIP's config keys. The defaults are preset "paper"; `configs/Base-MIP-released.yml` has what the released command sets."""

from fastreid.config import CfgNode

CN = CfgNode


def add_mip_config(cfg: CfgNode) -> None:
    """Add MIP's keys to a fast-reid config, in place. Safe to call twice (the second call changes nothing)."""
    if "MIP" in cfg.MODEL:
        return
    cfg.MODEL.MIP = CN()
    # The transformer: width D of a token, its blocks (the last one only as the branches' copies), heads, MLP width / D.
    cfg.MODEL.MIP.WIDTH = 768
    cfg.MODEL.MIP.DEPTH = 12
    cfg.MODEL.MIP.HEADS = 12
    cfg.MODEL.MIP.MLP_RATIO = 4.0
    # Blocks before the branches, all of them prompted; -1 = DEPTH - 1. The released command skips one more (10).
    cfg.MODEL.MIP.BLOCKS = -1
    # Side of a patch, and pixels between two.
    cfg.MODEL.MIP.PATCH = 16
    cfg.MODEL.MIP.STRIDE = 12
    # Stochastic depth, linear from 0 in the first block to this in the last.
    cfg.MODEL.MIP.DROP_PATH = 0.1
    # Cameras of the training set (0 or 1: no camera embedding), number of the first, and factor on their embedding.
    cfg.MODEL.MIP.CAMERAS = 6
    cfg.MODEL.MIP.FIRST_CAMERA = 1
    cfg.MODEL.MIP.CAMERA_SCALE = 3.0
    # MPL: modality prompts per layer; 0 = off.
    cfg.MODEL.MIP.MODALITY_PROMPTS = 16
    # IPG: instance prompts per layer; 0 = off. "generator" (a block) or "fusion" (a mixed bank).
    cfg.MODEL.MIP.INSTANCE_PROMPTS = 16
    cfg.MODEL.MIP.INSTANCE_TYPE = "generator"
    # The generator's query: "learned", or "zeros" as in the released code, which makes one prompt P times.
    cfg.MODEL.MIP.QUERY = "learned"
    # The generator starts from block 0 as it is at "random", or as "pretrained" (then lower SOLVER.GENERATOR_LR_FACTOR).
    cfg.MODEL.MIP.GENERATOR_INIT = "random"
    # Entries of the fusion type's bank; its scores are divided by the temperature (0 leaves them).
    cfg.MODEL.MIP.BANK = 64
    cfg.MODEL.MIP.TEMPERATURE = 0.0
    # Libraries and banks start uniform in +-PROMPT_SCALE * sqrt(6 / (3 PATCH^2 + WIDTH)); dropout on projected prompts.
    cfg.MODEL.MIP.PROMPT_SCALE = 20.0
    cfg.MODEL.MIP.PROMPT_DROPOUT = 0.1
    # JPM: local parts, shift of the patches, pieces that are interleaved.
    cfg.MODEL.MIP.PARTS = 4
    cfg.MODEL.MIP.SHIFT = 5
    cfg.MODEL.MIP.GROUPS = 2
    # Weight of the triplet loss (0 = off: a transformer without pre-training may collapse under it).
    cfg.MODEL.MIP.TRIPLET_WEIGHT = 1.0
    # IAEL: weight of the identity loss on instance prompts (0 = off), and what reads a layer's prompts: their "mean", or a
    # "block" of its own as in the released code.
    cfg.MODEL.MIP.IAEL_WEIGHT = 0.5
    cfg.MODEL.MIP.IAEL_READER = "mean"
    # MSEL: weight (0 = off), and the first epoch that has it; epochs count from 1.
    cfg.MODEL.MIP.MSEL_WEIGHT = 0.5
    cfg.MODEL.MIP.MSEL_EPOCH = 10
    # Retrieval compares the vectors "before" or "after" the BN necks.
    cfg.MODEL.MIP.FEATURE = "before"

    # What lengthens an identity's image lists before they are cut in groups: "none", "even" or "released" (RegDB).
    cfg.DATALOADER.MODAL_PADDING = "none"
    # Bounds of the blur, in pixels of the resized image; smaller images want less of it (and of INPUT.PADDING.SIZE).
    cfg.INPUT.BLUR_SIGMA = [0.1, 3.0]
    # Filter of the resizing: "lanczos", "bicubic" or "bilinear".
    cfg.INPUT.RESAMPLE_TRAIN = "lanczos"
    cfg.INPUT.RESAMPLE_TEST = "lanczos"

    # Factors on SOLVER.BASE_LR: prompt libraries and banks, the generator (biases: SOLVER.BIAS_LR_FACTOR).
    cfg.SOLVER.PROMPT_LR_FACTOR = 5.0
    cfg.SOLVER.GENERATOR_LR_FACTOR = 15.0
    # Epochs between two restarts of MIP's cosine; 0 = warm-up and steps as TVI-LFM.
    cfg.SOLVER.COSINE_PERIOD = 30
