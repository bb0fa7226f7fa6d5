"""YYDS's keys. `configs/Base-YYDS-released.yml` and `configs/Base-YYDS-amp.yml` have what the released code does."""

# ruff: noqa: E501

from tvilfm_plugin.keys.key import Key

# fmt: off
YYDS_KEYS: tuple[Key, ...] = (
    Key("MODEL.YYDS.JOINT", True, "The joint relation of image and text; False: the authors' text mode v1 (TVILFM.MEMBERS without fusion)."),
    Key("MODEL.YYDS.JOINT_LOGITS", "classifier", "What the joint feature's cross entropy sees: a classifier, or the raw feature (released without --use_amp: its numbers stand for classes, neck and classifier do not train).", choices=("classifier", "raw")),
    Key("MODEL.YYDS.UNIT_FEATURES", False, "The metric losses see L2-normalised features (released with --use_amp)."),
    Key("MODEL.YYDS.COLOUR_LR", "visual", "Whose learning rate the visible-to-text trunk has: that of the visual part, or of the heads (released, where it is overwritten).", choices=("visual", "heads")),
    Key("MODEL.YYDS.TEXT", "masked", "RoBERTa's sentence feature: the mean over its tokens, or as released: cut at 20 ids, padded with <s>, the mean over all 20.", choices=("masked", "released")),
    Key("MODEL.YYDS.FROZEN_TEXT", True, "The text encoder does not train (its projection does)."),
    Key("MODEL.YYDS.TEXT_DROPOUT", False, "A frozen text encoder keeps its dropout in training (released)."),
)
# fmt: on
