"""A model written as one folder that `Retriever.from_pretrained`, an evaluation and a training load.

`checkpoints.model_folder` reads it.
"""

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tvilfm_plugin.analysis.intervals import row_intervals
from tvilfm_plugin.checkpoints.loading import read_checkpoint
from tvilfm_plugin.checkpoints.model_folder import CARD, FORMAT, read_description
from tvilfm_plugin.config.nodes import flat
from tvilfm_plugin.data.tokenizer import END, START, tokenize
from tvilfm_plugin.evaluation.fingerprint import version_of_software, weights_sha256
from tvilfm_plugin.files.shipped import DESCRIPTION, WEIGHTS, folder_of
from tvilfm_plugin.files.writing import atomic_file, make_folder, sha256_of, write_text
from tvilfm_plugin.modeling.token_rows import fewer_rows
from tvilfm_plugin.retrieval.model_card import model_card

logger = logging.getLogger("fastreid." + __name__)

DTYPES = ("float32", "float16")
PACKAGES = ("torch", "fastreid", "open_clip_torch", "safetensors")
# What belongs to one machine or one training, not to the model.
_LEFT_OUT = (
    "OUTPUT_DIR", "MODEL.DEVICE", "MODEL.WEIGHTS", "MODEL.BACKBONE.PRETRAIN", "MODEL.TEXT.WEIGHTS", "TVILFM.STAGE1",
    "TVILFM.OVERRIDES", "DATASETS.CACHE", "TEST.HUMAN_TEXTS",
)  # fmt: skip
# The classifier knows the training's people only: no search and no other training wants it.
_CLASSIFIER = "heads.classifier."


class Source(NamedTuple):
    """Where a model came from."""

    cfg: Any
    weights: Path


def save_model(
    model: Any, source: Source, out: str | Path, *, dtype: str = "float32", words: Iterable[str] = (), terms: str = ""
) -> dict[str, Any]:
    """Write model.safetensors, README.md and, last, config.json; returns what config.json says.

    Args:
        source: protocol cards and intervals come from the evaluation that lies beside its weights.
        out: the folder; a model in it is replaced, a run is not.
        dtype: "float32" keeps every bit, "float16" halves the size.
        words: texts; where some are given, the text tower keeps the embeddings of their tokens alone.
        terms: of the training data, for the model card.
    """
    folder = Path(out)
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; choices are {', '.join(DTYPES)}.")
    if (folder / "config.yaml").is_file():
        raise ValueError(f"{folder} is the folder of a run; a model folder needs one of its own.")
    texts = list(words)
    state, digest = _stored_state(model, dtype, texts), weights_sha256(model)
    make_folder(folder)
    described = {
        "format": FORMAT,
        "architecture": source.cfg.MODEL.META_ARCHITECTURE,
        "members": [member.value for member in model.members],
        "dim": model.visual.dim,
        "preprocessing": _preprocessing(source.cfg, model),
        "tower": _tower(source.cfg) if model.has_text else None,
        "weights": {
            "file": WEIGHTS,
            "dtype": dtype,
            "parameters": sum(value.numel() for value in state.values()),
            "words": _said(model, texts),
            "of": digest,
            "sha256": _write_weights(state, folder),
        },
        "provenance": _record(source.weights, model),
        "protocol": _protocol(source.weights, digest),
        "versions": {"tvilfm-plugin": version_of_software(), **{name: version_of_software(name) for name in PACKAGES}},
        "config": _travelling_config(source.cfg),
    }
    write_text(folder / CARD, model_card(described, terms))
    write_text(folder / DESCRIPTION, json.dumps(described, indent=1) + "\n")
    return described


def _record(weights: Path, model: Any) -> dict[str, Any]:
    """Whom it was trained on. A stage 1 that goes on from it leaves its text tower out."""
    record = read_checkpoint(weights)[1].state_dict()
    return record | {"optional": sorted({*record["optional"], *(["text."] if model.has_text else [])})}


def _said(model: Any, texts: list[str]) -> str:
    kept = "all" if model.known_tokens is None else f"{len(model.known_tokens)} tokens"
    return f"those of {len(set(texts))} texts" if texts else kept


def _stored_state(model: Any, dtype: str, words: list[str]) -> dict[str, Tensor]:
    state = {name: value.cpu() for name, value in model.state_dict().items() if not name.startswith(_CLASSIFIER)}
    if words and not model.has_text:
        raise ValueError(f"A {type(model).__name__} has no text tower, so there are no words to keep.")
    if words and not any(name.endswith(".token_embedding.weight") for name in state):
        raise ValueError(f"The text tower of a {type(model).__name__} has no table of CLIP's tokens to keep words of.")
    # A model that was stored with some words alone knows no more of the others when it is stored again.
    if words:
        state = fewer_rows(state, torch.cat([tokenize(words).flatten(), torch.tensor([START, END])]))
    elif model.known_tokens is not None:
        state = fewer_rows(state, model.known_tokens)
    return {name: _rounded(name, value) for name, value in state.items()} if dtype == "float16" else state


def _rounded(name: str, value: Tensor) -> Tensor:
    half = value.half() if value.is_floating_point() else value
    if not torch.isfinite(half).all():
        raise ValueError(f"{name} has numbers beyond half precision ({value.abs().max():g}): store it as float32.")
    return half


def _write_weights(state: dict[str, Tensor], folder: Path) -> str:
    """Whole or absent; the sha256 of the file."""
    from safetensors.torch import save

    # It refuses tensors that share memory; its own files nobody but their owner may read.
    with atomic_file(folder / WEIGHTS) as file:
        file.write(save({name: value.clone().contiguous() for name, value in state.items()}, metadata={"format": "pt"}))
        (folder / DESCRIPTION).unlink(missing_ok=True)  # of an older model: it does not describe this one
    return sha256_of(folder / WEIGHTS)


def _preprocessing(cfg: Any, model: Any) -> dict[str, Any]:
    mean, std = (values.flatten().tolist() for values in (model.visual.pixel_mean, model.visual.pixel_std))
    return {
        "image_size": list(cfg.INPUT.SIZE_TEST),
        "resample": cfg.INPUT.RESAMPLE_TEST,
        "channels": "RGB, 0..255; an infrared image three times the same",
        "pixel_mean": mean,
        "pixel_std": std,
        "flip": cfg.TEST.FLIP.ENABLED,
        "ir_scaling": list(cfg.INPUT.IR_SCALING),
    }


def _tower(cfg: Any) -> Any:
    arch = cfg.MODEL.TEXT.ARCH
    return json.loads(arch) if arch.lstrip().startswith("{") else arch


def _protocol(weights: Path, digest: str) -> dict[str, Any] | None:
    """Cards, results and intervals of every evaluation of these very weights that lies beside them; None if there is none."""
    if folder := folder_of(weights):
        stored: dict[str, Any] | None = read_description(folder)["protocol"]
        return stored
    from tvilfm_plugin.evaluation.evaluator import load_evaluation

    found: dict[str, Any] = {}
    for path in sorted(weights.parent.glob("evaluation/*/results.json")):
        stored_evaluation = load_evaluation(path.parent)
        cards = {label: card for label, card in stored_evaluation.cards.items() if card.weights_sha256 == digest}
        if len(cards) < len(stored_evaluation.cards):
            logger.warning(f"{path.parent} was measured with other weights (sha256), so the folder does not tell of it")
            continue
        found[path.parent.name] = {
            "cards": {label: card.to_dict() for label, card in cards.items()},
            "results": dict(stored_evaluation.results),
            "intervals": {
                row.label: {name: [100 * one.mean, 100 * one.low, 100 * one.high] for name, one in row.intervals.items()}
                for row in row_intervals(stored_evaluation, path.parent)
            },
        }
    return found or None


def _travelling_config(cfg: Any) -> dict[str, Any]:
    """The config without what belongs to one machine, as nested plain values."""
    nested: dict[str, Any] = {}
    kept = {k: v for k, v in flat(cfg).items() if not (k.startswith(_LEFT_OUT) or isinstance(v, str) and os.path.isabs(v))}
    for key, value in kept.items():
        *sections, name = key.split(".")
        node = nested
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = list(value) if isinstance(value, tuple) else value
    return nested
