"""Every key that the plugin adds to fast-reid's config, its default, and what it does."""

from yacs.config import CfgNode as CN


def add_tvilfm_config(cfg: CN) -> None:
    """Add our keys to a fast-reid config, in place. Safe to call twice (the second call changes nothing).

    Args:
        cfg: a fast-reid config, e.g. `fastreid.config.get_cfg()`, before any file is merged.
    """
    if "TVILFM" in cfg:
        return
    # Seed of weights, sampling, augmentation and text draws; -1 draws a random one as fast-reid does.
    cfg.SEED = -1
    # Which published recipe the run follows: written on every protocol card ("paper", "released").
    cfg.TVILFM = CN()
    cfg.TVILFM.PRESET = "paper"
    # Config file of stage 1, relative to the file that names it. With empty MODEL.WEIGHTS it is trained first. "" = no stage 1.
    cfg.TVILFM.STAGE1 = ""
    # Train the visual part in stage 2 as well, from its ImageNet weights ("from scratch" of Table 5); no stage 1.
    cfg.TVILFM.FROM_SCRATCH = False
    # Frozen BN layers use (and keep) their running statistics. False: batch statistics, drifting buffers (preset released).
    cfg.TVILFM.FREEZE_BN = True
    # MJL (Eq. 8): rows [visible 1; visible 2; infrared; fusion; text]. False: [visible 1; visible 2; fusion].
    cfg.TVILFM.JOINT = True
    # SFF is "FilteredAdd" (Eq. 7); "Add" is ablation B. Any name in FUSION_REGISTRY.
    cfg.TVILFM.FUSION = "FilteredAdd"
    # Modalities whose similarities are summed in the ensemble query (Eq. 10).
    cfg.TVILFM.MEMBERS = ("ir", "text", "fusion")

    # --- dual stream: any registered backbone, one stem per modality -------------------------------------------------
    cfg.MODEL.DUAL_STREAM = CN()
    cfg.MODEL.DUAL_STREAM.BASE = "build_resnet_backbone"
    # Names of the base's modules that get one copy per modality (a missing name lists the candidates).
    cfg.MODEL.DUAL_STREAM.STEM = ("conv1", "bn1", "relu", "maxpool")
    # "released": no ReLU after the stem's BN and a padded max-pool, as the authors' code; "resnet": the base as it is.
    cfg.MODEL.DUAL_STREAM.STYLE = "released"
    # Width of `build_small_resnet_backbone` (channels of its first stage) and blocks per stage.
    cfg.MODEL.BACKBONE.SMALL_WIDTH = 32
    cfg.MODEL.BACKBONE.SMALL_BLOCKS = (2, 2, 2, 2)

    # --- text encoder ------------------------------------------------------------------------------------------------
    cfg.MODEL.TEXT = CN()
    # An open_clip architecture name, or a local JSON file in open_clip's model-config format.
    cfg.MODEL.TEXT.ARCH = "RN50-quickgelu"
    # Local OpenAI or open_clip weights, or an open_clip tag ("openai"); "" starts at random, with a warning.
    cfg.MODEL.TEXT.WEIGHTS = ""

    # --- losses ------------------------------------------------------------------------------------------------------
    # MODEL.LOSSES.NAME lists names of LOSS_REGISTRY ("identity", "weighted_triplet"); one weight per name, empty = 1 each.
    cfg.MODEL.LOSSES.WEIGHTS = ()
    # Compute the losses over the rows of all processes (with syncBN a step then equals the full batch on one device).
    cfg.MODEL.LOSSES.GATHER = False

    # --- data --------------------------------------------------------------------------------------------------------
    # "infrared-to-visible" (text queries) or "visible-to-infrared" (images only).
    cfg.DATASETS.DIRECTION = "infrared-to-visible"
    # Folder of the data set below $FASTREID_DATASETS; "" = the data set's own name.
    cfg.DATASETS.ROOT = ""
    # RegDB's train/test split, 1..10.
    cfg.DATASETS.TRIAL = 1
    # SYSU-MM01's search modes.
    cfg.DATASETS.MODES = ("all", "indoor")
    # Images per (identity, camera) in a SYSU-MM01 gallery: 1 (single-shot), 10 (multi-shot) or both.
    cfg.DATASETS.SHOTS = (1,)
    # Folder of the decoded-image cache; "" = `.cache` inside the data set's folder.
    cfg.DATASETS.CACHE = ""
    # Probability that a caption is replaced by its rephrase in training (Eq. 3); 0 switches the rephrases off.
    cfg.INPUT.REPHRASE_PROB = 0.5

    # --- solver ------------------------------------------------------------------------------------------------------
    # Warm-up in epochs (fast-reid's own is in iterations and delays the milestones); -1 = fast-reid's scheduler.
    cfg.SOLVER.WARMUP_EPOCHS = -1
    # Learning rate and weight decay of the text encoder; negative = as SOLVER.BASE_LR / WEIGHT_DECAY.
    cfg.SOLVER.TEXT_LR = -1.0
    cfg.SOLVER.TEXT_WEIGHT_DECAY = -1.0
    # Factor on the learning rate of the biases inside the text transformer's blocks.
    cfg.SOLVER.TEXT_BIAS_LR_FACTOR = 1.0

    # --- evaluation --------------------------------------------------------------------------------------------------
    # Gallery draws (SYSU-MM01, LLCM).
    cfg.TEST.DRAWS = 10
    # Where the visible-image text of a query comes from; every table needs one that is not an oracle.
    cfg.TEST.TEXT_SOURCES = ("witness", "oracle")
    # One text draw per seed.
    cfg.TEST.TEXT_SEEDS = (0,)
    # File "identity<TAB>phrase" of source `human`.
    cfg.TEST.HUMAN_TEXTS = ""
    # Store features, rankings and cards under OUTPUT_DIR/evaluation.
    cfg.TEST.STORE = True
    # Logged progress every this many iterations.
    cfg.SOLVER.LOG_PERIOD = 50
