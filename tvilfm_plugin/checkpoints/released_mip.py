"""The authors' MIP checkpoints: their names and ours, both ways, and the bridge from MIP to TVI-LFM's second stage.

Our model has only what its config uses; their file has everything. Their deep library has a slice for every block, of which
block i reads slice i - 1; ours has one slice per prompted layer, the first library included. Everything else is a change of
name, so the same functions translate gradients.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tvilfm_plugin.checkpoints.released_keys import Shapes, Table, Translation, renamed, translated

LIBRARY = "visual.modality_prompts.library"
FIRST_LIBRARY = "base.prompt_embeddings"
DEEP_LIBRARY = "base.deep_prompt_embeddings"
_RENAMED: Table = (
    (r"visual\.embedding\.patch\.", "base.patch_embed.proj."),
    (r"visual\.embedding\.cls$", "base.cls_token"),
    (r"visual\.embedding\.position$", "base.pos_embed"),
    (r"visual\.embedding\.camera$", "base.sie_embed"),
    (r"visual\.blocks\.", "base.blocks."),
    (r"visual\.modality_prompts\.projection\.", "base.prompt_proj."),
    (r"visual\.instance_prompts\.block\.", "base.instance_prompt_generator."),
    (r"visual\.instance_prompts\.query$", "base.prompt_embed"),
    (r"visual\.global_branch\.block\.", "b1.0."),
    (r"visual\.global_branch\.norm\.", "b1.1."),
    (r"visual\.local_branch\.reader\.block\.", "b2.0."),
    (r"visual\.local_branch\.reader\.norm\.", "b2.1."),
    (r"heads\.prompt_reader\.reader\.block\.", "b3.0."),
    (r"heads\.prompt_reader\.reader\.norm\.", "b3.1."),
    (r"heads\.prompt_reader\.token$", "zero_token"),
    (r"heads\.necks\.0\.", "bottleneck."),
    (r"heads\.necks\.(\d+)\.", r"bottleneck_\1."),
    (r"heads\.prompt_necks\.", "bottlenecks_ins_prompts."),
    (r"heads\.classifier\.branches\.0\.", "classifier."),
    (r"heads\.classifier\.branches\.(\d+)\.", r"classifier_\1."),
    (r"heads\.classifier\.prompts\.", "classifiers_ins_prompts."),
)


def official_names(name: str) -> tuple[str, ...]:
    """The file's names that one of our tensors corresponds to; a KeyError for the fusion type, of which none are known."""
    if name == LIBRARY:
        return FIRST_LIBRARY, DEEP_LIBRARY
    if theirs := renamed(name, _RENAMED):
        return (theirs,)
    raise KeyError(
        f"{name} has no counterpart in the authors' checkpoints: they were trained with MODEL.MIP.INSTANCE_TYPE generator."
    )


def from_official(official: Mapping[str, Tensor], shapes: Shapes) -> Translation:
    """The authors' tensors under our names; the arguments as in `released_keys.from_official`."""

    def find(name: str, shape: tuple[int, ...]) -> tuple[tuple[str, ...], Tensor | None]:
        theirs = official_names(name)
        if not set(theirs) <= set(official):
            return theirs, None
        value = official[theirs[0]]
        if name == LIBRARY:
            value = torch.cat([value.unsqueeze(1), official[DEEP_LIBRARY][:, : shape[1] - 1]], dim=1)
        return theirs, value

    return translated(official, shapes, find)


def identity_head_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A MIP state dict as stage 1 of TVI-LFM: the encoder as it is, the heads as one neck and one classifier of width 5 D.

    The joined neck gives the five necks' vectors side by side; the local parts of the test feature are a quarter of the
    vectors, which the neck undoes. The joined classifier is the five classifiers, averaged as in the loss.

    Returns:
        `visual.*`, `heads.neck.*` and `heads.classifier.weight`.
    """
    branches = sum(bool(re.fullmatch(r"heads\.necks\.\d+\.weight", name)) for name in state)
    if branches < 2:
        raise KeyError("This is no MIP checkpoint: it has no heads.necks.*; give the model_final.pth of a MIP run.")
    eps = nn.BatchNorm1d(1).eps
    share = [1.0] + [1.0 / (branches - 1)] * (branches - 1)
    kinds = ("weight", "bias", "running_mean", "running_var")
    neck = [{kind: state[f"heads.necks.{b}.{kind}"] for kind in kinds} for b in range(branches)]
    joined = {name: value for name, value in state.items() if name.startswith("visual.")}
    joined["heads.neck.weight"] = torch.cat([n["weight"] for n in neck])
    joined["heads.neck.bias"] = torch.cat([n["bias"] for n in neck])
    joined["heads.neck.running_mean"] = torch.cat([n["running_mean"] * s for n, s in zip(neck, share, strict=True)])
    # (var + eps) s^2 = var' + eps, so that the joined neck divides by exactly s times the old deviation.
    variances = [(n["running_var"] + eps) * s**2 - eps for n, s in zip(neck, share, strict=True)]
    joined["heads.neck.running_var"] = torch.cat(variances).clamp(min=0)
    joined["heads.neck.num_batches_tracked"] = state["heads.necks.0.num_batches_tracked"]
    weights = [state[f"heads.classifier.branches.{b}.weight"] * s / 2 for b, s in enumerate(share)]
    joined["heads.classifier.weight"] = torch.cat(weights, dim=1)
    return joined


def as_stage1(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What stage 2 of TVI-LFM starts from: a state dict of MIP or DEEN with one neck for all vectors, any other as it is."""
    if "heads.bn.weight" in state and "visual.backbone.base.dee.branches.0.out.weight" in state:
        return deen_head_state(state)
    return identity_head_state(state) if "heads.necks.0.weight" in state else dict(state)


def deen_head_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A DEEN state dict as stage 1 of TVI-LFM: its neck and classifier once per branch, side by side, the logits averaged.

    Its rows of retrieval have unit vectors before the neck as well; these TVI-LFM does not look at.

    Returns:
        `visual.*`, `heads.neck.*` and `heads.classifier.weight`.
    """
    joined, branches = {name: value for name, value in state.items() if name.startswith("visual.")}, 3
    for kind in ("weight", "bias", "running_mean", "running_var"):
        joined[f"heads.neck.{kind}"] = state[f"heads.bn.{kind}"].repeat(branches)
    joined["heads.neck.num_batches_tracked"] = state["heads.bn.num_batches_tracked"]
    joined["heads.classifier.weight"] = state["heads.classifier.weight"].repeat(1, branches) / branches
    return joined
