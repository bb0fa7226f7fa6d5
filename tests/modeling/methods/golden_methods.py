"""Full-size models of the methods, built by their configs, with seeded weights by the authors' keys."""

from pathlib import Path

import golden_inputs_baselines as inputs
import numpy as np
import pytest
import torch
from fastreid.modeling.meta_arch import build_model
from tiny_runs import ROOT
from torch import nn

from tvilfm_plugin.checkpoints.released_baselines import official_key
from tvilfm_plugin.config import read_config
from tvilfm_plugin.modeling.methods.text_losses import overlap_targets

FORWARD = inputs.golden("forward.npz")
STEPS = inputs.golden("train_step.json")
V1 = ("MODEL.YYDS.JOINT_LOGITS", "raw", "MODEL.YYDS.COLOUR_LR", "heads", "MODEL.YYDS.TEXT", "released")
AMP = ("MODEL.YYDS.JOINT_LOGITS", "classifier", "MODEL.YYDS.UNIT_FEATURES", True)
FLIP = ("TEST.FLIP.ENABLED", True, "TEST.FLIP_FORM", "embeddings")
# Name among the reference numbers -> config file and overrides.
CONFIGS = {
    "agw": ("AGW/configs/sysu_released.yml",),
    "caj": ("CAJ/configs/sysu_released.yml",),
    "deen": ("DEEN/configs/sysu_released.yml",),
    "deen_regdb": ("DEEN/configs/regdb.yml", *FLIP),
    "mmn": ("MMN/configs/sysu_released.yml",),
    "ddag": ("DDAG/configs/sysu_released.yml",),
    "yyds": ("YYDS/configs/sysu_released.yml",),
    "yyds_regdb": ("YYDS/configs/regdb_released.yml",),
    "yyds_v1": ("YYDS/configs/sysu_v1.yml", *V1),
    "yyds/amp_branch": ("YYDS/configs/sysu_amp.yml",),
    "yyds_regdb/amp_branch": ("YYDS/configs/regdb_released.yml", *AMP),
}


class AuthorsGeM(nn.Module):
    """fast-reid clamps where the authors add; in float64 the difference shows."""

    def forward(self, maps):
        return ((maps**3).mean(dim=(2, 3)) + 1e-12) ** (1 / 3)


def small_roberta(folder: Path) -> str:
    """A folder with the goldens' RoBERTa."""
    transformers = pytest.importorskip("transformers")
    config = transformers.RobertaConfig(**inputs.ROBERTA, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    transformers.RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


def config(name, folder):
    """The config of a name, at full size and without what would be fetched."""
    file, *overrides = CONFIGS[name]
    cfg = read_config(ROOT / "projects" / file)
    cfg.merge_from_list([
        *overrides, "MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAIN", False, "MODEL.HEADS.NUM_CLASSES", 24,
        "MODEL.DUAL_STREAM.FOLD_BN", False,
    ])  # fmt: skip
    if "yyds" in name:
        cfg.merge_from_list(["MODEL.TEXT.WEIGHTS", small_roberta(folder)])
    return cfg


def key_of(name, yyds):
    """The authors' key of one of our tensors, their loss's included."""
    if name.startswith("projection."):
        _, number, kind = name.split(".")
        return f"dcl.fc1.0.{kind}" if number == "0" else f"dcl.fc2.{int(number) - 1}.{kind}"
    return official_key(name, yyds)


def golden_model(name, folder, training=False, salt=0):
    """The model with the authors' weights, {our name: their key}, and its config; it takes normalised images."""
    cfg = config(name, folder)
    model = build_model(cfg)
    keys = {ours: key_of(ours, "yyds" in name) for ours in model.state_dict() if ours != "others"}
    state = {}
    for ours, value in model.state_dict().items():
        if ours == "others":
            state[ours] = torch.tensor([0.0, 0.0, 0.0, 1.0])  # the graph's weight is then 1 / (1 + 1)
            continue
        shape = tuple(value.shape)
        if keys[ours].startswith("wpa.fc") and ours.endswith("weight"):
            shape = (*shape, 1, 1)
        state[ours] = torch.from_numpy(inputs.weight(keys[ours], shape, training, salt)).reshape(value.shape)
    model.load_state_dict(state)
    model.visual.pixel_mean.zero_()
    model.visual.pixel_std.fill_(1.0)
    if name in ("agw", "caj"):
        model.visual.pool = AuthorsGeM()
    return model.train(training), keys, cfg


def train_model(name, case, folder):
    """The model without dropout and the batch of a training case, in float64."""
    model, keys, cfg = golden_model(name, folder, training=True, salt=inputs.TRAIN[case][3])
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    model.double()
    batch = {n: v.double() if v.is_floating_point() else v for n, v in inputs.train_batch(case).items()}
    batch |= {"targets": batch["pids"], "rgb_tokens": batch["ids"]}
    if "yyds" in name:
        colours = inputs.COLOURS[case]
        model._overlap = lambda tokens, pids: overlap_targets(colours, pids)
    return model, keys, cfg, batch


def assert_close(ours, theirs, tolerance=1e-5):
    ours, theirs = np.asarray(ours.detach() if isinstance(ours, torch.Tensor) else ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    difference = np.abs(ours.astype(np.float64) - theirs).max() / np.abs(theirs).max()
    assert difference <= tolerance, difference


def assert_rows(ours, key, tolerance=1e-5):
    """The first 512 columns, and the length of the complete rows where it is given."""
    assert_close(ours[:, :512], FORWARD[key][:, :512], tolerance)
    if f"{key}/norm" in FORWARD:
        assert_close(ours.norm(dim=1), FORWARD[f"{key}/norm"], tolerance)
