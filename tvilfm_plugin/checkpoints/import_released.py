"""The authors' checkpoint files as ours: every tensor is mapped, or ignored for a reason that is printed, or an error."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from tvilfm_plugin.checkpoints import released_baselines, released_keys, released_mip
from tvilfm_plugin.checkpoints.released_keys import Translation
from tvilfm_plugin.evaluation.provenance import KEY, NOT_RECORDED, Provenance
from tvilfm_plugin.files.listing import in_lines, some
from tvilfm_plugin.files.weights import read_weights_file, tensors_of
from tvilfm_plugin.files.writing import atomic_file

logger = logging.getLogger("fastreid." + __name__)

CLASSIFIERS = {"tvilfm": "classifier.classifier.weight", "mmn": "classifier1.weight"}
"""Method -> the released tensor whose rows are the training identities, where that is not classifier.weight."""

IGNORED = {
    r"logit_scale$": "the temperature of a contrastive loss that neither stage uses",
    r"backup_classifier\.classifier\.weight$": "stage 1's classifier, which nothing reads after stage 1",
}
IGNORED_MIP = {
    r"base\.blocks\.\d+\.": "a block behind the last one that this config runs",
    r"base\.(norm|fc)\.": "the ImageNet model's last norm and classifier, which MIP never runs",
    r"base\.prompt_embed$": "the learned query of the instance prompts, which this config does not have",
    r"base\.prompt_adapters\.": "layers that are built and never called",
    r"(bottlenecks|classifiers)_ins_prompts\.": "the heads of the prompts' loss (IAEL), which this config switches off",
    r"(b3\.|zero_token$)": "the prompt reader, which this config does not have",
    r"base\.(deep_)?prompt_embeddings$": "prompts of blocks that this config does not prompt",
}
UNTRAINED_TEXT = "text."


class KeyReport(NamedTuple):
    """What became of every name.

    Attributes:
        mapped: ours -> the released names that it was made of.
        ignored: released name -> why.
        missing: ours that the file lacks.
        misshapen: lines with both shapes.
        unexplained: released names that nothing accounts for.
    """

    mapped: dict[str, tuple[str, ...]]
    ignored: dict[str, str]
    missing: list[str]
    misshapen: list[str]
    unexplained: list[str]

    @property
    def complete(self) -> bool:
        """Whether our model gets everything and nothing is left over."""
        return not (self.missing or self.misshapen or self.unexplained)

    def __str__(self) -> str:
        lines = [f"mapped: {len(self.mapped)} tensors", f"ignored: {len(self.ignored)}"]
        reasons: dict[str, list[str]] = {}
        for name, reason in self.ignored.items():
            reasons.setdefault(reason, []).append(name)
        lines += [f"  {some(names, 4)}: {reason}" for reason, names in reasons.items()]
        for title, names in (("missing", self.missing), ("shape", self.misshapen), ("unexplained", self.unexplained)):
            lines += [f"{title}: {len(names)}", *([in_lines(names)] if names else [])]
        return "\n".join(lines)


def read_released(path: str | Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of an authors' file, and what lies beside them in it. No code of the file is run.

    Wrappers and the prefixes of DDP and torch.compile are taken off (`files.weights`).
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}: --weights names a checkpoint of the authors.")
    return tensors_of(read_weights_file(path), path)


def reported(found: Translation, reasons: Mapping[str, str]) -> KeyReport:
    """The report on a translation; `reasons` say why names of a pattern are left out."""
    why = {name: next((why for pattern, why in reasons.items() if re.match(pattern, name)), "") for name in found.unused}
    ignored = {name: reason for name, reason in why.items() if reason}
    unexplained = [name for name, reason in why.items() if not reason]
    return KeyReport(found.loaded, ignored, found.missing, found.misshapen, unexplained)


METHODS = {
    "tvilfm": (released_keys.from_official, IGNORED),
    "mip": (released_mip.from_official, IGNORED_MIP),
    **dict.fromkeys(released_baselines.METHODS, (released_baselines.from_official, released_baselines.IGNORED)),
}
"""Method -> what translates a file, and the names of it that are left out, with the reasons."""


def shapes_of(cfg: CfgNode, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the config's model with so many classes; nothing is allocated or loaded."""
    from fastreid.modeling.meta_arch import META_ARCH_REGISTRY

    from tvilfm_plugin.modeling.text_encoder import FROM_CHECKPOINT

    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.BACKBONE.PRETRAIN = False
    if cfg.MODEL.TEXT.ARCH != "roberta":  # which is described by its folder
        cfg.MODEL.TEXT.WEIGHTS = FROM_CHECKPOINT
    cfg.MODEL.HEADS.NUM_CLASSES = num_classes
    with torch.device("meta"):
        model: nn.Module = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def import_released(
    method: str, weights: str | Path, out: str | Path, cfg: CfgNode, provenance: Provenance | None = None
) -> KeyReport:
    """Write an authors' checkpoint as one of ours; nothing is written if anything is missing, misshapen or unexplained.

    Args:
        out: the .pth file to write, all or nothing.
        cfg: config of the model (for TVI-LFM of stage 2).
        provenance: record of the weights; whom they were trained on stands in no authors' file.
    """
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}; choices are {', '.join(METHODS)}.")
    official, beside = read_released(weights)
    classifier = official.get(CLASSIFIERS.get(method, "classifier.weight"))
    shapes = shapes_of(cfg, len(classifier) if classifier is not None and classifier.ndim == 2 else 1)
    # Files of stage 2 carry the pooling and the classifier of stage 1 along.
    stage1 = method == "tvilfm" and not any(name.startswith("backup_") for name in official)
    if stage1:
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith("stage1.")}
    translate, reasons = METHODS[method]
    found = translate(official, shapes)
    report = reported(found, reasons)
    report.ignored.update(dict.fromkeys(beside, "lies beside the weights"))
    if not report.complete:
        raise ValueError(f"{str(weights)!r} is no checkpoint of {method} with this config:\n{report}")
    record = provenance or Provenance()
    # Known of the training commands; of MIP's files it is not.
    record.epoch_rule = NOT_RECORDED if method == "mip" else "best Rank-1 on the test set"
    # Stage 1's file holds CLIP's text tower, which stage 1 does not train: its model does not have one.
    record.optional = (UNTRAINED_TEXT,) if stage1 else ()
    with atomic_file(out) as file:
        torch.save({"model": found.state, KEY: record.state_dict()}, file)
    logger.info(f"{weights} -> {out}\n{report}")
    return report
