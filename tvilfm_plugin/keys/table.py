"""The table of our keys. A new key is one line here; a test refuses one that nothing reads."""

# ruff: noqa: E501

from tvilfm_plugin.keys.key import Key
from tvilfm_plugin.keys.mip import MIP_KEYS
from tvilfm_plugin.keys.yyds import YYDS_KEYS

# fmt: off
KEYS: tuple[Key, ...] = (
    Key("SEED", -1, "Seed of weights, sampling, augmentation and text draws; -1 draws a random one, as fast-reid does.", low=-1, high=2**32 - 1),
    # --- the run ---
    Key("TVILFM.PRESET", "paper", "The published recipe that the run follows, written on every protocol card.", choices=("paper", "released")),
    Key("TVILFM.STAGE1", "", "Config file of stage 1, relative to the file that names it; with empty MODEL.WEIGHTS it is trained first. Empty: no stage 1."),
    Key("TVILFM.FROM_SCRATCH", False, "Train the visual part in stage 2 as well, from its ImageNet weights (\"from scratch\" of Table 5); no stage 1."),
    Key("TVILFM.FREEZE_BN", True, "Frozen BN layers use and keep their running statistics. False: batch statistics, drifting buffers (preset released)."),
    Key("TVILFM.IR_NECK", "shared", "Neck and pooling of the row without text: stage 2's, or a frozen copy of stage 1's for query and gallery (preset released).", choices=("shared", "stage1")),
    Key("TVILFM.ROWS", "MJL", "Rows of the joint loss: MJL (Eq. 8) is [visible 1; visible 2; infrared; fusion; text], baseline [visible 1; visible 2; fusion].", choices="ROWS"),
    Key("TVILFM.FUSION", "SFF", "How infrared and text become one query: SFF (Eq. 7, also called FilteredAdd) or Add (ablation B).", choices="FUSION"),
    Key("TVILFM.MEMBERS", ("ir", "text", "fusion"), "Modalities whose similarities are summed in the ensemble query (Eq. 10).", choices=("ir", "text", "fusion"), count=(1, 3), unique=True, wanted="choose one or more of ir, text, fusion, each once"),
    Key("TVILFM.BANK.VIEWS", 0, "Train stage 2 on this many stored augmented views of every image, an approximation named on the card; 0: new views in every epoch.", low=0),
    Key("TVILFM.BANK.DTYPE", "float32", "Type of the stored features; float16 takes half the disk.", choices=("float32", "float16")),
    Key("TVILFM.BANK.MAX_GB", 20.0, "A run stops, before it computes anything, where its bank would take more gigabytes than this.", low=0),
    # --- dual stream: any registered backbone, one stem per modality ---
    Key("MODEL.DUAL_STREAM.BASE", "build_resnet_backbone", "The backbone that gets one stem per modality.", choices="BACKBONE"),
    Key("MODEL.DUAL_STREAM.STEM", ("conv1", "bn1", "relu", "maxpool"), "Names of the base's modules that get one copy per modality (a missing name lists the candidates).", count=(1, None), unique=True),
    Key("MODEL.DUAL_STREAM.STYLE", "released", "released: no ReLU after the stem's BN and a padded max-pool, as the authors' code; torchvision: the ReLU and a padded max-pool (AGW and its heirs); resnet: the base as it is.", choices=("released", "torchvision", "resnet")),
    Key("MODEL.DUAL_STREAM.TRUNK", "plain", "What is built around the base: nothing, DEEN's attention and expansion, these with YYDS's second trunk for colours; -reduced: the form for RegDB without the last stage.", choices=("plain", "DEEN", "DEEN-reduced", "YYDS", "YYDS-reduced")),
    Key("MODEL.DUAL_STREAM.WEIGHTS", "", "Checkpoint, model folder, or the name of one that comes with the plugin (example), whose stems and trunk the dual stream starts from; what else a method has starts at random. Empty: MODEL.BACKBONE.PRETRAIN.", file=True),
    Key("MODEL.DUAL_STREAM.HALF_MAPS", True, "DEEN's spatial attention counts the upper and the lower half of a map as channels of their own (a quirk of the released code, from which its numbers come); False: positions as in the paper."),
    Key("MODEL.DUAL_STREAM.FOLD_BN", True, "On a CPU, evaluate (and use when frozen) with BN folded into the convolutions; exact but for rounding."),
    Key("MODEL.BACKBONE.SMALL_WIDTH", 32, "Channels of the first stage of build_small_resnet_backbone.", low=1),
    Key("MODEL.BACKBONE.SMALL_BLOCKS", (2, 2, 2, 2), "Blocks in each of its stages.", low=1, count=(4, 4), wanted="it must be four positive whole numbers"),
    Key("MODEL.HEADS.NECK_BIAS", True, "Whether the bias of IdentityHead's neck trains; False: it stays 0, and the neck's weight starts from N(1, 0.01) (AGW, CAJ)."),
    # --- text encoder ---
    Key("MODEL.TEXT.ARCH", "RN50-quickgelu", "An open_clip architecture name, a local JSON file in open_clip's model-config format, the description itself as JSON, or (for YYDS) roberta."),
    Key("MODEL.TEXT.WEIGHTS", "", "Local OpenAI or open_clip weights, a model folder, an open_clip tag (openai), or example, the model that comes with the plugin; empty: random, with a warning; checkpoint: MODEL.WEIGHTS brings them. Of roberta: a local folder or a name on the hub.", file=True),
    Key("MODEL.TEXT.PACK", True, "Compute no position behind a caption's end (on a CPU; the same to rounding). False: the padded batch."),
    # --- losses ---
    Key("MODEL.LOSSES.WEIGHTS", (), "One weight per name of MODEL.LOSSES.NAME; empty: 1 each, or MODEL.MIP's own for MIP.", low=0),
    Key("MODEL.LOSSES.GATHER", False, "Compute the losses over the rows of all processes (with syncBN a step then equals the full batch on one device)."),
    # --- data ---
    Key("DATASETS.DIRECTION", "infrared-to-visible", "Who searches whom; text belongs to infrared queries.", choices=("infrared-to-visible", "visible-to-infrared")),
    Key("DATASETS.ROOT", "", "Folder of the data set below $FASTREID_DATASETS; empty: the data set's own name (\"own\" for own data)."),
    Key("DATASETS.TRIAL", 1, "RegDB's train/test split.", low=1, high=10),
    Key("DATASETS.MODES", ("all", "indoor"), "SYSU-MM01's search modes.", choices=("all", "indoor"), count=(1, 2), unique=True),
    Key("DATASETS.SHOTS", (1,), "Images per (identity, camera) in a gallery of SYSU-MM01 or of own data: 1, 10 or both; for own data also 0, alone: every image.", low=0, count=(1, None), unique=True),
    Key("DATASETS.RULES", "", "The rules that own data (TriTable, TriFolder) is ranked by; empty: LLCM's.", choices="PROTOCOLS", optional=True),
    Key("DATASETS.GALLERY", "seeded", "How SYSU-MM01's galleries are drawn: as the paper, or by exp/rand_perm_cam.mat.", choices=("seeded", "rand_perm_cam")),
    Key("DATASETS.CACHE", "", "Folder of the decoded-image cache; empty: .cache inside the data set's folder."),
    Key("DATASETS.TOKEN_CACHE", True, "Keep the captions' token ids there as well; False tokenises them in every process."),
    Key("INPUT.AUGMENTATION", "CAJ", "How training views are made: CAJ (two visible views, one infrared) or MIP (one of each).", choices="AUGMENTATION"),
    Key("INPUT.IR_SCALING", (), "Lowest and highest count of an infrared camera that writes more than 8 bits: they become black and white. Empty: such pictures are refused.", count=(0, 2), wanted="it must be () or the lowest and the highest count, e.g. (20000, 28000)"),
    Key("INPUT.REPHRASE_PROB", 0.5, "Probability that a caption is replaced by its rephrase in training (Eq. 3); 0 switches the rephrases off.", low=0, high=1),
    Key("INPUT.HUMAN_TEXTS", "", "File of phrases per identity (as TEST.HUMAN_TEXTS) that take the place of all captions in training.", file=True),
    Key("INPUT.CAJ.GRAY_PROB", 0.1, "Visible view 1: probability of grayscale.", low=0, high=1),
    Key("INPUT.CAJ.RGB_ERASING_PROB", 0.6, "Both visible views: probability of random erasing.", low=0, high=1),
    Key("INPUT.CAJ.IR_ERASING_PROB", 0.5, "Infrared view: probability of random erasing.", low=0, high=1),
    Key("INPUT.CAJ.EXCHANGE_PROB", 0.5, "Visible view 2: probability that one of R, G, B takes the place of all three.", low=0, high=1),
    Key("INPUT.CAJ.IR_GRAY_PROB", 0.6, "Infrared view: probability of luminance grey where channel-adaptive gray did not copy a channel.", low=0, high=1),
    Key("INPUT.CAJ.VIEWS", 2, "Visible views that a step trains on.", low=1, high=2),
    Key("INPUT.CAJ.IR_CHANNELS", True, "Channel-adaptive gray of the infrared view; False leaves its channels."),
    Key("INPUT.CAJ.IR_CROP_GRAY_PROB", 0.0, "Infrared view: probability of grayscale before normalisation.", low=0, high=1),
    Key("INPUT.CAJ.ERASING_AREA", (0.02, 0.4), "Bounds of the erased share of an image.", low=0, high=1, count=(2, 2)),
    Key("INPUT.CAJ.ERASING_FILL", (0.4914, 0.4822, 0.4465), "What an erased pixel becomes, in normalised values.", count=(3, 3)),
    # --- solver ---
    Key("SOLVER.PARAM_GROUPS", "TVILFM", "Learning rates by part of the model: TVILFM (visual, heads, text) or MIP (base, biases, prompts, generator).", choices="PARAM_GROUPS"),
    Key("SOLVER.WARMUP_EPOCHS", -1, "Warm-up of our schedules, in epochs (fast-reid's own is in iterations and delays the milestones); -1: fast-reid's scheduler.", low=-1),
    Key("SOLVER.EPOCH_RULE", "last", "Whose weights count: the last epoch's, the best on SYSU-MM01's validation identities, or the best on the test set (preset released).", choices=("last", "validation", "test")),
    Key("SOLVER.TEXT_LR", -1.0, "Learning rate of the text encoder; negative: SOLVER.BASE_LR."),
    Key("SOLVER.TEXT_WEIGHT_DECAY", -1.0, "Weight decay of the text encoder; negative: SOLVER.WEIGHT_DECAY."),
    Key("SOLVER.TEXT_BIAS_LR_FACTOR", 1.0, "Factor on the learning rate of the biases inside the text transformer's blocks.", low=0),
    Key("SOLVER.TEXT_BIAS_WEIGHT_DECAY", -1.0, "Weight decay of those biases; negative: as the rest of the text encoder (a quirk of the released RegDB command)."),
    Key("SOLVER.TEXT_EMBEDDING_LR", -1.0, "Learning rate of the text encoder's embeddings, final norm and projection; negative: as the rest of it (the same quirk)."),
    Key("SOLVER.FUSED", True, "Update each flat parameter buffer in one pass (Adam, AdamW, SGD without clipping; the same to rounding)."),
    Key("SOLVER.KEEP_MEMORY", True, "On a CPU, memory that a training step frees stays with the process for the next one (Linux with glibc)."),
    Key("SOLVER.LOG_PERIOD", 50, "Iterations between two progress lines; 0: none.", low=0),
    Key("TRACKING.KIND", "none", "An experiment tracker that gets what tensorboard gets, by its own package and settings; stage 1 and 2 are two runs.", choices=("none", "mlflow", "wandb")),
    # --- evaluation ---
    Key("TEST.AMP", False, "Compute the features under autocast (bfloat16 on a CPU, float16 on a GPU), named on the card; distances are float32 in any case."),
    Key("TEST.DRAWS", 10, "Gallery draws (SYSU-MM01, LLCM).", low=1),
    Key("TEST.TEXT_SOURCES", ("oracle", "witness"), "Where the visible-image text of a query comes from; every table needs one that is not an oracle.", choices=("none", "self", "witness", "oracle", "human", "wrong"), count=(1, None), unique=True),
    Key("TEST.TEXT_SEEDS", (0,), "One text draw per seed.", low=0, high=2**32 - 1, count=(1, None), unique=True),
    Key("TEST.TEXT_TRUST", "", "The ensemble weighs a query's words by how well they fit its infrared picture, as learned on training people: single, every query by itself; joint, knowing from all queries together how often words are wrong. Empty: words count in full, as in the paper.", choices=("single", "joint"), optional=True),
    Key("TEST.ORACLE_STYLE", "paper", "How source oracle draws: any caption of the identity, or one seeded draw from the distinct ones (released).", choices=("paper", "released")),
    Key("TEST.HUMAN_TEXTS", "", "File of source human: lines \"identity<TAB>phrase\", or YYDS's utils_new.py, of which nothing is run.", file=True),
    Key("TEST.STORE", True, "Store features, rankings and cards under OUTPUT_DIR/evaluation."),
    Key("TEST.UNTRAINED", False, "Evaluate the model as it starts (SOLVER.MAX_EPOCH 0, which is refused without it): the first state of a figure."),
    Key("TEST.HELD_OUT", 0, "Visible test images per identity that leave a gallery of every image (RegDB, own data) to serve as witness captions.", low=0),
    Key("TEST.SPLIT", "test", "Who is searched: the test identities or, on SYSU-MM01, the validation identities (val).", choices=("test", "val")),
    Key("TEST.PROTOCOL", "standard", "standard, or mip: one gallery draw and the Market-1501 rules, as MIP's authors (named so in every result).", choices=("standard", "mip")),
    Key("TEST.IMAGE_PROTOCOL", "", "Rules by which the row without text is scored; empty: the data set's (the authors score LLCM's with SYSU-MM01).", choices="PROTOCOLS", optional=True),
    Key("TEST.FLIP_FORM", "features", "With TEST.FLIP: the mean of the features of image and mirror image, as fast-reid; or the method's own (AGW, CAJ: the mean of unit embeddings, normalised again; DEEN, MMN, DDAG, YYDS: the mean of unit blocks, as it is).", choices=("features", "embeddings")),
    Key("TEST.RERANK.KIND", "k-reciprocal", "How TEST.RERANK re-ranks: the host's k-reciprocal, the cross-modal kinds of YYDS, or the gallery alone, without other queries.", choices=("k-reciprocal", "constrained", "divided", "extended", "gallery-only")),
    Key("TEST.EVALUATOR", "MEREvaluator", "What evaluates a Tri- data set.", choices="EVALUATOR"),
    *MIP_KEYS,
    *YYDS_KEYS,
)
# fmt: on
