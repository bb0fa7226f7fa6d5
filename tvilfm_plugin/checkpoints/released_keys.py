"""Our names of the tensors in the authors' released checkpoints.

Their complete model has 481 keys; ours has the same tensors except `logit_scale`, which nothing reads. A file of stage 2
has 488: pooling and head of stage 1 as well, of which ours keeps all but the classifier (TVILFM.IR_NECK stage1). In short::

    base_model.visual.{rgb,ir}_model.resnet_conv.{0,1}.*    visual.backbone.base.{conv1,bn1}.{rgb,ir}.*
    base_model.visual.shared_model.resnet_conv.{0..3}.*     visual.backbone.base.layer{1..4}.*
    base_model.visual.GEM.p                                 visual.pool.p
    base_model.*  (the text tower)                          text.*
    classifier.BN.*, classifier.classifier.weight           heads.neck.*, heads.classifier.weight
    backup_pool.p, backup_classifier.BN.*                   stage1.pool.p, stage1.neck.*
"""

import re

_TO_OURS = (
    (r"base_model\.visual\.(rgb|ir)_model\.resnet_conv\.0\.(.+)", r"visual.backbone.base.conv1.\1.\2"),
    (r"base_model\.visual\.(rgb|ir)_model\.resnet_conv\.1\.(.+)", r"visual.backbone.base.bn1.\1.\2"),
    (
        r"base_model\.visual\.shared_model\.resnet_conv\.(\d)\.(.+)",
        lambda m: f"visual.backbone.base.layer{int(m[1]) + 1}.{m[2]}",
    ),
    (r"base_model\.visual\.GEM\.p", "visual.pool.p"),
    (r"base_model\.(?!visual\.)(.+)", r"text.\1"),
    (r"classifier\.BN\.(.+)", r"heads.neck.\1"),
    (r"classifier\.classifier\.weight", "heads.classifier.weight"),
    (r"backup_pool\.p", "stage1.pool.p"),
    (r"backup_classifier\.BN\.(.+)", r"stage1.neck.\1"),
)


def our_key(released: str) -> str | None:
    """Our name of a released key; None for what we do not have (`logit_scale`, stage 1's classifier in stage 2)."""
    return translate(released, _TO_OURS)


def translate(key: str, table: tuple) -> str | None:
    """The key by the first (pattern, replacement) that matches all of it."""
    for pattern, replacement in table:
        match = re.fullmatch(pattern, key)
        if match:
            return replacement(match) if callable(replacement) else match.expand(replacement)
    return None
