"""Every key that the plugin adds to fast-reid's config, its default, and what it does."""

import os
from typing import Any

import torch
import yaml
from fastreid.config import CfgNode
from fastreid.config.config import BASE_KEY

from tvilfm_plugin.modeling.mip.config import add_mip_config

CN = CfgNode
_STAGE1 = "STAGE1."


class TriConfig(CfgNode):
    """A fast-reid config that remembers its overrides, so that both stages of a run get them.

    On the command line `KEY VALUE` reaches both stages, `STAGE1.KEY VALUE` only the first.
    """

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = False) -> None:
        super().merge_from_file(cfg_filename, allow_unsafe)
        namer = _file_naming_stage1(cfg_filename)
        if namer and self.TVILFM.STAGE1:
            self.TVILFM.STAGE1 = os.path.abspath(os.path.join(os.path.dirname(namer), self.TVILFM.STAGE1))

    @classmethod
    def _decode_cfg_value(cls, value: Any) -> Any:
        """Sections are read as the class that they have in the defaults: yacs compares the types."""
        return CfgNode._decode_cfg_value(value)

    def merge_from_list(self, cfg_list: list) -> None:
        if len(cfg_list) % 2:
            raise ValueError(f"Overrides come as KEY VALUE pairs; {len(cfg_list)} words were given: {list(cfg_list)}")
        pairs = list(zip(cfg_list[0::2], cfg_list[1::2], strict=True))
        first = [word for key, value in pairs if key.startswith(_STAGE1) for word in (key.removeprefix(_STAGE1), value)]
        rest = [word for key, value in pairs if not key.startswith(_STAGE1) for word in (key, value)]
        super().merge_from_list(rest)
        self.TVILFM.OVERRIDES = [*self.TVILFM.OVERRIDES, *rest]
        self.TVILFM.STAGE1_OVERRIDES = [*self.TVILFM.STAGE1_OVERRIDES, *first]


def _file_naming_stage1(path: str) -> str:
    """Which file sets TVILFM.STAGE1: this one, else the nearest of its bases, else "" ."""
    if not os.path.isfile(path):
        return ""
    with open(path, encoding="utf-8") as file:
        content = yaml.safe_load(file) or {}
    if "STAGE1" in (content.get("TVILFM") or {}):
        return path
    base = content.get(BASE_KEY, "")
    return _file_naming_stage1(os.path.join(os.path.dirname(path), os.path.expanduser(base))) if base else ""


def get_cfg() -> CfgNode:
    """fast-reid's default config with our keys."""
    from fastreid.config import get_cfg as host_cfg

    cfg = host_cfg()
    add_tvilfm_config(cfg)
    return cfg


# What a dual stream is made of; stage 2 goes on with the very modules of stage 1.
_VISUAL_PART = (
    "MODEL.BACKBONE.", "MODEL.DUAL_STREAM.", "MODEL.HEADS.POOL_LAYER", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD",
    "INPUT.SIZE_TRAIN", "INPUT.SIZE_TEST",
)  # fmt: skip
_DUAL_STREAM = "build_dual_stream_backbone"


def visual_part(cfg: CfgNode, stage1: CfgNode) -> list[Any]:
    """What a stage-2 config says otherwise about its dual stream than the file of its stage 1, as KEY VALUE words.

    So a config names its backbone once, for both stages. Only stage 1 may start from ImageNet weights. Other visual parts
    (MIP) are described in full by the config of their own stage 1.
    """
    if not cfg.MODEL.BACKBONE.NAME == stage1.MODEL.BACKBONE.NAME == _DUAL_STREAM:
        return []
    words: list[Any] = []
    for section in ("MODEL", "INPUT"):
        stack = [(f"{section}.{key}", value, stage1[section].get(key)) for key, value in cfg[section].items()]
        while stack:
            name, value, before = stack.pop()
            if isinstance(value, CfgNode):
                stack += [(f"{name}.{key}", inner, before[key]) for key, inner in value.items()]
            elif name.startswith(_VISUAL_PART) and ".PRETRAIN" not in name and value != before:
                words += [name, value]
    return words


def stage1_config(cfg: CfgNode) -> CfgNode:
    """The config of stage 1 that belongs to a stage-2 config.

    It is read from the file `TVILFM.STAGE1`, with the dual stream of `cfg`; the overrides of the run follow, then those
    written `STAGE1.KEY`. Results go to `OUTPUT_DIR/stage1`; device and seed are those of the run, also where they were set
    in code.
    """
    if not os.path.isfile(cfg.TVILFM.STAGE1):
        raise FileNotFoundError(
            f"TVILFM.STAGE1 names {cfg.TVILFM.STAGE1!r}, which does not exist. Name the stage-1 config relative to the file "
            "that names it, or give finished stage-1 weights in MODEL.WEIGHTS."
        )
    stage1 = get_cfg()
    stage1.merge_from_file(cfg.TVILFM.STAGE1)
    meta_architecture = stage1.MODEL.META_ARCHITECTURE
    CfgNode.merge_from_list(stage1, visual_part(cfg, stage1))
    stage1.merge_from_list(list(cfg.TVILFM.OVERRIDES))
    stage1.MODEL.META_ARCHITECTURE = meta_architecture
    stage1.MODEL.DEVICE, stage1.SEED = cfg.MODEL.DEVICE, cfg.SEED
    stage1.merge_from_list(list(cfg.TVILFM.STAGE1_OVERRIDES))
    stage1.TVILFM.STAGE1 = ""
    stage1.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, "stage1")
    stage1.freeze()
    return stage1


def add_tvilfm_config(cfg: CfgNode) -> None:
    """Add our keys to a fast-reid config, in place. Safe to call twice (the second call changes nothing).

    Args:
        cfg: a fast-reid config, e.g. `fastreid.config.get_cfg()`, before any file is merged.
    """
    if "TVILFM" in cfg:
        return
    object.__setattr__(cfg, "__class__", TriConfig)  # the script made it; yacs only lets values through
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    cfg.SOLVER.CHECKPOINT_PERIOD = 1
    # Seed of weights, sampling, augmentation and text draws; -1 draws a random one as fast-reid does.
    cfg.SEED = -1
    # Which published recipe the run follows: written on every protocol card ("paper", "released").
    cfg.TVILFM = CN()
    cfg.TVILFM.PRESET = "paper"
    # Config file of stage 1, relative to the file that names it. With empty MODEL.WEIGHTS it is trained first. "" = no stage 1.
    cfg.TVILFM.STAGE1 = ""
    # Filled in by the command line: the overrides of this run, and those of its stage 1 alone.
    cfg.TVILFM.OVERRIDES = []
    cfg.TVILFM.STAGE1_OVERRIDES = []
    # Train the visual part in stage 2 as well, from its ImageNet weights ("from scratch" of Table 5); no stage 1.
    cfg.TVILFM.FROM_SCRATCH = False
    # Frozen BN layers use (and keep) their running statistics. False: batch statistics, drifting buffers (preset released).
    cfg.TVILFM.FREEZE_BN = True
    # Neck and pooling of the row without text: "shared" (stage 2's) or "stage1" (a frozen copy of stage 1's, for query and
    # gallery; the ensemble's infrared member stays with stage 2's; preset released).
    cfg.TVILFM.IR_NECK = "shared"
    # MJL (Eq. 8): rows [visible 1; visible 2; infrared; fusion; text]. False: [visible 1; visible 2; fusion].
    cfg.TVILFM.JOINT = True
    # SFF is "FilteredAdd" (Eq. 7); "Add" is ablation B. Any name in FUSION_REGISTRY.
    cfg.TVILFM.FUSION = "FilteredAdd"
    # Train stage 2 on stored features: this many augmented views of every image, computed once from the frozen visual part
    # and kept in the data set's cache. An approximation, named on the protocol card. 0: new views in every epoch.
    cfg.TVILFM.BANK = CN()
    cfg.TVILFM.BANK.VIEWS = 0
    # "float32", or "float16" for half the disk.
    cfg.TVILFM.BANK.DTYPE = "float32"
    # A run stops, before it computes anything, where its bank would take more than this.
    cfg.TVILFM.BANK.MAX_GB = 20.0
    # Modalities whose similarities are summed in the ensemble query (Eq. 10).
    cfg.TVILFM.MEMBERS = ("ir", "text", "fusion")

    # --- dual stream: any registered backbone, one stem per modality -------------------------------------------------
    cfg.MODEL.DUAL_STREAM = CN()
    cfg.MODEL.DUAL_STREAM.BASE = "build_resnet_backbone"
    # Names of the base's modules that get one copy per modality (a missing name lists the candidates).
    cfg.MODEL.DUAL_STREAM.STEM = ("conv1", "bn1", "relu", "maxpool")
    # "released": no ReLU after the stem's BN and a padded max-pool, as the authors' code; "resnet": the base as it is.
    cfg.MODEL.DUAL_STREAM.STYLE = "released"
    # On a CPU, evaluate (and use when frozen) with BN folded into the convolutions; exact but for rounding.
    cfg.MODEL.DUAL_STREAM.FOLD_BN = True
    # Width of `build_small_resnet_backbone` (channels of its first stage) and blocks per stage.
    cfg.MODEL.BACKBONE.SMALL_WIDTH = 32
    cfg.MODEL.BACKBONE.SMALL_BLOCKS = (2, 2, 2, 2)

    # --- text encoder ------------------------------------------------------------------------------------------------
    cfg.MODEL.TEXT = CN()
    # An open_clip architecture name, or a local JSON file in open_clip's model-config format.
    cfg.MODEL.TEXT.ARCH = "RN50-quickgelu"
    # Local OpenAI or open_clip weights, or an open_clip tag ("openai"); "" starts at random, with a warning;
    # "checkpoint" starts at random without one, because MODEL.WEIGHTS brings them.
    cfg.MODEL.TEXT.WEIGHTS = ""
    # Compute no position behind a caption's end (on a CPU; the same to rounding). False: the padded batch.
    cfg.MODEL.TEXT.PACK = True

    # --- losses ------------------------------------------------------------------------------------------------------
    # MODEL.LOSSES.NAME lists names of LOSS_REGISTRY ("identity", "weighted_triplet"); one weight per name, empty = 1 each.
    cfg.MODEL.LOSSES.WEIGHTS = ()
    # Compute the losses over the rows of all processes (with syncBN a step then equals the full batch on one device).
    cfg.MODEL.LOSSES.GATHER = False

    # --- data --------------------------------------------------------------------------------------------------------
    # "infrared-to-visible" (text queries) or "visible-to-infrared" (images only).
    cfg.DATASETS.DIRECTION = "infrared-to-visible"
    # Folder of the data set below $FASTREID_DATASETS; "" = the data set's own name ("own" for own data).
    cfg.DATASETS.ROOT = ""
    # RegDB's train/test split, 1..10.
    cfg.DATASETS.TRIAL = 1
    # SYSU-MM01's search modes.
    cfg.DATASETS.MODES = ("all", "indoor")
    # Images per (identity, camera) in a gallery of SYSU-MM01 or of own data: 1 (single-shot), 10 (multi-shot) or both. For own
    # data also 0, alone: one gallery of every image.
    cfg.DATASETS.SHOTS = (1,)
    # The rules that own data (TriTable, TriFolder) is ranked by, a name in PROTOCOLS; "" = "LLCM".
    cfg.DATASETS.RULES = ""
    # How SYSU-MM01's galleries are drawn: "seeded" (as the paper) or "rand_perm_cam" (exp/rand_perm_cam.mat).
    cfg.DATASETS.GALLERY = "seeded"
    # Folder of the decoded-image cache; "" = `.cache` inside the data set's folder.
    cfg.DATASETS.CACHE = ""
    # Keep the captions' token ids there as well; False tokenises them in every process.
    cfg.DATASETS.TOKEN_CACHE = True
    # Probability that a caption is replaced by its rephrase in training (Eq. 3); 0 switches the rephrases off.
    cfg.INPUT.REPHRASE_PROB = 0.5
    # Channel-augmented joint learning; padding and mirroring are fast-reid's INPUT.PADDING.SIZE and INPUT.FLIP.PROB.
    cfg.INPUT.CAJ = CN()
    # Visible view 1: probability of grayscale.
    cfg.INPUT.CAJ.GRAY_PROB = 0.1
    # Both visible views, infrared view: probability of random erasing.
    cfg.INPUT.CAJ.RGB_ERASING_PROB = 0.6
    cfg.INPUT.CAJ.IR_ERASING_PROB = 0.5
    # Visible view 2: probability that one of R, G, B takes the place of all three.
    cfg.INPUT.CAJ.EXCHANGE_PROB = 0.5
    # Infrared view: probability of luminance grey where channel-adaptive gray did not copy a channel.
    cfg.INPUT.CAJ.IR_GRAY_PROB = 0.6

    # --- solver ------------------------------------------------------------------------------------------------------
    # Warm-up in epochs (fast-reid's own is in iterations and delays the milestones); -1 = fast-reid's scheduler.
    cfg.SOLVER.WARMUP_EPOCHS = -1
    # Which epoch's weights count: "last", "validation" (best Rank-1 on SYSU-MM01's validation identities, which then do not
    # train) or "test" (best Rank-1 on the test set: only in preset released). Epochs are compared every TEST.EVAL_PERIOD.
    cfg.SOLVER.EPOCH_RULE = "last"
    # Learning rate and weight decay of the text encoder; negative = as SOLVER.BASE_LR / WEIGHT_DECAY.
    cfg.SOLVER.TEXT_LR = -1.0
    cfg.SOLVER.TEXT_WEIGHT_DECAY = -1.0
    # Factor on the learning rate of the biases inside the text transformer's blocks.
    cfg.SOLVER.TEXT_BIAS_LR_FACTOR = 1.0
    # Weight decay of those biases, and learning rate of the text encoder's embeddings, final norm and projection;
    # negative = as the rest of the text encoder (both are quirks of the released RegDB command).
    cfg.SOLVER.TEXT_BIAS_WEIGHT_DECAY = -1.0
    cfg.SOLVER.TEXT_EMBEDDING_LR = -1.0
    # Update each flat parameter buffer in one pass (Adam, AdamW, SGD without clipping; the same to rounding).
    cfg.SOLVER.FUSED = True
    # On a CPU, memory that a training step frees stays with the process for the next one (Linux with glibc).
    cfg.SOLVER.KEEP_MEMORY = True
    # Iterations between two progress lines.
    cfg.SOLVER.LOG_PERIOD = 50

    # --- evaluation --------------------------------------------------------------------------------------------------
    # Compute the features under autocast (bfloat16 on a CPU, float16 on a GPU), named on the protocol card; distances are
    # float32 in any case. False: everything in float32.
    cfg.TEST.AMP = False
    # Gallery draws (SYSU-MM01, LLCM).
    cfg.TEST.DRAWS = 10
    # Where the visible-image text of a query comes from; every table needs one that is not an oracle.
    cfg.TEST.TEXT_SOURCES = ("oracle", "witness")
    # One text draw per seed.
    cfg.TEST.TEXT_SEEDS = (0,)
    # How source `oracle` draws: "paper" (any caption of the identity) or "released" (one seeded draw from the distinct ones).
    cfg.TEST.ORACLE_STYLE = "paper"
    # File "identity<TAB>phrase" of source `human`.
    cfg.TEST.HUMAN_TEXTS = ""
    # Store features, rankings and cards under OUTPUT_DIR/evaluation.
    cfg.TEST.STORE = True
    # Visible test images per identity that leave a gallery of every image (RegDB, own data) to serve as `witness` captions.
    cfg.TEST.HELD_OUT = 0
    # Who is searched: the "test" identities or, on SYSU-MM01, the validation identities ("val").
    cfg.TEST.SPLIT = "test"
    # "standard", or "mip": one gallery draw and the Market-1501 rules, as MIP's authors (named so in every result).
    cfg.TEST.PROTOCOL = "standard"
    # Rules by which the row without text is scored, a name in PROTOCOLS; "" = the data set's (the authors score LLCM's with
    # "SYSU-MM01").
    cfg.TEST.IMAGE_PROTOCOL = ""
    # Name in EVALUATOR_REGISTRY.
    cfg.TEST.EVALUATOR = "MEREvaluator"
    # MIP's own keys: MODEL.MIP, and a few beside the host's.
    add_mip_config(cfg)
