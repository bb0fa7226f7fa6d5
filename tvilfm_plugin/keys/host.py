"""fast-reid's own keys as a Tri- run reads them: what they may be, and which of them nothing reads."""

from tvilfm_plugin.keys.key import Key

SAMPLER = "DATALOADER.SAMPLER_TRAIN"
HOST_SAMPLER = "TrainingSampler"
"""fast-reid's default; it draws single images."""
HOST_SCHEDULES = ("MultiStepLR", "CosineAnnealingLR")

OPTIMIZERS = ("Adam", "AdamW", "SGD", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "RMSprop")

# fmt: off
HOST_KEYS: tuple[Key, ...] = (
    Key("MODEL.META_ARCHITECTURE", "", "", choices="META_ARCH"),
    Key("MODEL.BACKBONE.NAME", "", "", choices="BACKBONE"),
    Key("MODEL.BACKBONE.FEAT_DIM", 0, "", low=0),
    Key("MODEL.HEADS.NAME", "", "", choices="REID_HEADS"),
    Key("MODEL.HEADS.NUM_CLASSES", 0, "", low=0),
    Key("MODEL.PIXEL_MEAN", [1.0, 1.0, 1.0], "", count=(3, 3)),
    Key("MODEL.PIXEL_STD", [1.0, 1.0, 1.0], "", above=0, count=(3, 3)),
    Key("MODEL.LOSSES.NAME", ("identity", "weighted_triplet"), "", choices="LOSS", count=(1, None), unique=True),
    Key("INPUT.SIZE_TRAIN", [288, 144], "", low=2, count=(2, 2)),
    Key("INPUT.SIZE_TEST", [288, 144], "", low=2, count=(2, 2)),
    Key("INPUT.FLIP.ENABLED", False, ""),
    Key("INPUT.FLIP.PROB", 0.5, "", low=0, high=1),
    Key("INPUT.PADDING.ENABLED", False, ""),
    Key("INPUT.PADDING.SIZE", 10, "", low=0),
    Key("DATASETS.NAMES", ("TriSYSUMM01",), "", choices="DATASET", count=(1, None)),
    Key("DATASETS.TESTS", ("TriSYSUMM01",), "", choices="DATASET", unique=True),
    Key("DATALOADER.NUM_INSTANCE", 4, "", low=1),
    Key("DATALOADER.NUM_WORKERS", 4, "", low=0),
    Key("SOLVER.AMP.ENABLED", False, ""),
    Key("SOLVER.OPT", "Adam", "", choices=OPTIMIZERS),
    Key("SOLVER.IMS_PER_BATCH", 32, "", low=1),
    Key("SOLVER.MAX_EPOCH", 120, "", low=0),
    Key("SOLVER.BASE_LR", 0.00035, "", low=0),
    Key("SOLVER.HEADS_LR_FACTOR", 2.0, "", low=0),
    Key("SOLVER.BIAS_LR_FACTOR", 1.0, "", low=0),
    Key("SOLVER.MOMENTUM", 0.9, "", low=0, high=1),
    Key("SOLVER.NESTEROV", False, ""),
    Key("SOLVER.WEIGHT_DECAY", 0.0005, "", low=0),
    Key("SOLVER.GAMMA", 0.1, "", low=0),
    Key("SOLVER.STEPS", [40, 60, 100], "", low=0),
    Key("SOLVER.ETA_MIN_LR", 1e-7, "", low=0),
    Key("SOLVER.SCHED", "WarmupMultiStep", "", choices="SCHEDULE"),
    Key("SOLVER.WARMUP_FACTOR", 0.01, "", low=0, high=1),
    Key("SOLVER.WARMUP_ITERS", 0, "", low=0),
    Key("SOLVER.DELAY_EPOCHS", 0, "", low=0),
    Key("SOLVER.CHECKPOINT_PERIOD", 1, "", low=0),
    Key("SOLVER.CLIP_GRADIENTS.ENABLED", False, ""),
    Key("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm", "", choices=("norm", "value")),
    Key("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 5.0, "", above=0),
    Key("TEST.EVAL_PERIOD", 20, "", low=0),
    Key("TEST.IMS_PER_BATCH", 128, "", low=1),
    Key("TEST.FLIP.ENABLED", False, ""),
    Key("TEST.AQE.ENABLED", False, ""),
    Key("TEST.AQE.QE_TIME", 1, "", low=1),
    Key("TEST.AQE.QE_K", 5, "", low=1),
    Key("TEST.AQE.ALPHA", 3.0, "", low=0),
    Key("TEST.RERANK.ENABLED", False, ""),
    Key("TEST.RERANK.K1", 20, "", low=1),
    Key("TEST.RERANK.K2", 6, "", low=1),
    Key("TEST.RERANK.LAMBDA", 0.3, "", low=0, high=1),
)
# fmt: on

# Key, or beginning of keys, that no Tri- run reads -> what does its work.
UNREAD = {
    "KD.": "knowledge distillation is for fast-reid's own models",
    "MODEL.QUEUE_SIZE": "there is no feature queue",
    "INPUT.CROP.": "views are made by INPUT.AUGMENTATION",
    "INPUT.PADDING.MODE": "padding is black",
    "INPUT.CJ.": "views are made by INPUT.AUGMENTATION",
    "INPUT.AFFINE.": "views are made by INPUT.AUGMENTATION",
    "INPUT.AUTOAUG.": "views are made by INPUT.AUGMENTATION",
    "INPUT.AUGMIX.": "views are made by INPUT.AUGMENTATION",
    "INPUT.REA.": "erasing is INPUT.CAJ.RGB_ERASING_PROB and IR_ERASING_PROB",
    "INPUT.RPT.": "views are made by INPUT.AUGMENTATION",
    "DATASETS.COMBINEALL": "test persons never train",
    "DATALOADER.SET_WEIGHT": "one data set trains",
    "SOLVER.WEIGHT_DECAY_NORM": "rates and decays are set by SOLVER.PARAM_GROUPS",
    "SOLVER.WEIGHT_DECAY_BIAS": "rates and decays are set by SOLVER.PARAM_GROUPS",
    "TEST.METRIC": "similarities are cosines (Eq. 10)",
    "TEST.ROC.": "there is no ROC curve of a Tri- data set; thresholds come from the stored evaluation",
}
# Key, or beginning of keys -> (key that decides, its values under which they are read).
READ_WITH = {
    "SOLVER.BIAS_LR_FACTOR": ("SOLVER.PARAM_GROUPS", ("MIP",)),
    "SOLVER.HEADS_LR_FACTOR": ("SOLVER.PARAM_GROUPS", ("TVILFM",)),
    "SOLVER.STEPS": ("SOLVER.SCHED", ("WarmupMultiStep", "MultiStepLR")),
    "SOLVER.WARMUP_METHOD": ("SOLVER.SCHED", HOST_SCHEDULES),
    "SOLVER.MOMENTUM": ("SOLVER.OPT", ("SGD",)),
    "SOLVER.NESTEROV": ("SOLVER.OPT", ("SGD",)),
}
# Sections of which the registered part that is chosen reads its own keys: section -> key that names the part.
READ_BY_PART = {"MODEL.BACKBONE": "backbone", "MODEL.HEADS": "head", "MODEL.LOSSES": "model"}
# Keys of these sections that our side reads whatever is chosen.
READ_ALWAYS = (
    "MODEL.BACKBONE.NAME", "MODEL.BACKBONE.FEAT_DIM", "MODEL.BACKBONE.PRETRAIN", "MODEL.BACKBONE.PRETRAIN_PATH",
    "MODEL.HEADS.NAME", "MODEL.HEADS.NUM_CLASSES", "MODEL.HEADS.POOL_LAYER", "MODEL.LOSSES.NAME",
)  # fmt: skip
