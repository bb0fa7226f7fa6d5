"""MIP's keys. The defaults are preset "paper"; `configs/Base-MIP-released.yml` has what the released command sets."""

# ruff: noqa: E501

from tvilfm_plugin.keys.key import Key

# fmt: off
MIP_KEYS: tuple[Key, ...] = (
    Key("MODEL.MIP.WIDTH", 768, "Width D of a token.", low=1),
    Key("MODEL.MIP.DEPTH", 12, "Blocks of the transformer (the last one only as the branches' copies).", low=2),
    Key("MODEL.MIP.HEADS", 12, "Attention heads.", low=1),
    Key("MODEL.MIP.MLP_RATIO", 4.0, "Width of a block's MLP / D.", above=0),
    Key("MODEL.MIP.BLOCKS", -1, "Blocks before the branches, all of them prompted; -1 = DEPTH - 1. The released command skips one more (10).", low=-1),
    Key("MODEL.MIP.PATCH", 16, "Side of a patch, in pixels.", low=1),
    Key("MODEL.MIP.STRIDE", 12, "Pixels between two patches.", low=1),
    Key("MODEL.MIP.DROP_PATH", 0.1, "Stochastic depth, linear from 0 in the first block to this in the last.", low=0, high=1),
    Key("MODEL.MIP.CAMERAS", 6, "Cameras of the training set; 0 or 1: no camera embedding.", low=0),
    Key("MODEL.MIP.FIRST_CAMERA", 1, "Number of the first camera.", low=0),
    Key("MODEL.MIP.CAMERA_SCALE", 3.0, "Factor on the camera embedding.", low=0),
    Key("MODEL.MIP.MODALITY_PROMPTS", 16, "MPL: modality prompts per layer; 0 = off.", low=0),
    Key("MODEL.MIP.INSTANCE_PROMPTS", 16, "IPG: instance prompts per layer; 0 = off.", low=0),
    Key("MODEL.MIP.INSTANCE_TYPE", "generator", "What makes them: a block, or a mixed bank.", choices=("generator", "fusion")),
    Key("MODEL.MIP.QUERY", "learned", "The generator's query; zeros, as in the released code, makes one prompt P times.", choices=("learned", "zeros")),
    Key("MODEL.MIP.GENERATOR_INIT", "random", "The generator starts from block 0 as it is at random, or as pretrained (then lower SOLVER.GENERATOR_LR_FACTOR).", choices=("random", "pretrained")),
    Key("MODEL.MIP.BANK", 64, "Entries of the fusion type's bank.", low=1),
    Key("MODEL.MIP.TEMPERATURE", 0.0, "The bank's scores are divided by it; 0 leaves them.", low=0),
    Key("MODEL.MIP.PROMPT_SCALE", 20.0, "Libraries and banks start uniform in +-PROMPT_SCALE * sqrt(6 / (3 PATCH^2 + WIDTH)).", low=0),
    Key("MODEL.MIP.PROMPT_DROPOUT", 0.1, "Dropout on projected prompts.", low=0, high=1),
    Key("MODEL.MIP.PARTS", 4, "JPM: local parts.", low=1),
    Key("MODEL.MIP.SHIFT", 5, "JPM: shift of the patches.", low=0),
    Key("MODEL.MIP.GROUPS", 2, "JPM: pieces that are interleaved.", low=1),
    Key("MODEL.MIP.TRIPLET_WEIGHT", 1.0, "Weight of the triplet loss; 0 = off: a transformer without pre-training may collapse under it.", low=0),
    Key("MODEL.MIP.IAEL_WEIGHT", 0.5, "IAEL: weight of the identity loss on instance prompts; 0 = off.", low=0),
    Key("MODEL.MIP.IAEL_READER", "mean", "What reads a layer's prompts: their mean, or a block of its own as in the released code.", choices=("mean", "block")),
    Key("MODEL.MIP.MSEL_WEIGHT", 0.5, "MSEL: weight of the modality-shared enhancement loss; 0 = off.", low=0),
    Key("MODEL.MIP.MSEL_EPOCH", 10, "The first epoch that has MSEL, counted from 1.", low=1),
    Key("MODEL.MIP.FEATURE", "before", "Retrieval compares the vectors before or after the BN necks.", choices=("before", "after")),
    Key("DATALOADER.MODAL_PADDING", "none", "What lengthens an identity's image lists before they are cut in groups (RegDB: even or released).", choices=("none", "even", "released")),
    Key("INPUT.BLUR_SIGMA", [0.1, 3.0], "Bounds of the blur, in pixels of the resized image; smaller images want less of it (and of INPUT.PADDING.SIZE).", low=0, count=(2, 2)),
    Key("INPUT.RESAMPLE_TRAIN", "lanczos", "Filter of the resizing in training.", choices=("lanczos", "bicubic", "bilinear")),
    Key("INPUT.RESAMPLE_TEST", "lanczos", "Filter of the resizing in evaluation.", choices=("lanczos", "bicubic", "bilinear")),
    Key("SOLVER.PROMPT_LR_FACTOR", 5.0, "Factor on SOLVER.BASE_LR: prompt libraries and banks.", low=0),
    Key("SOLVER.GENERATOR_LR_FACTOR", 15.0, "Factor on SOLVER.BASE_LR: the generator (biases: SOLVER.BIAS_LR_FACTOR).", low=0),
    Key("SOLVER.COSINE_PERIOD", 30, "Epochs between two restarts of MIP's cosine (SOLVER.SCHED MIPCosine).", low=1),
)
# fmt: on
