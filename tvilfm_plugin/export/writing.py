"""An export on disk: graphs and tokenizer under names of their content, and export.json, which names them, last.

Until export.json is replaced, an older export in the folder stays whole; its graphs, and those that a killed run left, go
afterwards.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from tvilfm_plugin.data.resize import read_resized
from tvilfm_plugin.evaluation.fusion import LateJoin
from tvilfm_plugin.export.graphs import known_cameras, model_graphs, to_onnx
from tvilfm_plugin.export.parity import Parity, compare_features, compare_searches
from tvilfm_plugin.export.tokenizer_file import tokenizer_file
from tvilfm_plugin.files.json import digest_of
from tvilfm_plugin.files.writing import atomic_file, make_folder, write_text
from tvilfm_plugin.retrieval.gallery_list import list_gallery
from tvilfm_plugin.retrieval.retriever import Retriever
from tvilfm_plugin.runtime.facts import FACTS, FORMAT, OURS
from tvilfm_plugin.runtime.model import OnnxModel

logger = logging.getLogger("fastreid." + __name__)

SAMPLES = 8


class ParityError(RuntimeError):
    """The exported graphs do not say what the model says."""


def export_retriever(
    retriever: Retriever,
    out: str | Path,
    *,
    gallery: str | Path = "",
    queries: str | Path = "",
    notes: Mapping[str, Any] | None = None,
    quiet: bool = True,
) -> Parity:
    """Write a model, on the CPU, as an export, and compare the export with it. One that differs is not finished.

    Args:
        out: folder of the export; an older export in it is replaced, other files are left alone.
        gallery: folder of visible images whose ranking is compared as well.
        queries: folder of infrared images to search with; "" takes the gallery's.
        notes: further facts for export.json.
    """
    folder = make_folder(out)
    model = retriever.model
    if model.device.type != "cpu":
        raise ValueError(f"The model is on {model.device}; an export is made on the CPU: from_checkpoint(..., device='cpu').")
    if isinstance(getattr(model, "fusion", None), LateJoin):
        raise ValueError(
            f"A {type(model).__name__} joins text and rows after they are stored, which the graphs of an export do not: export "
            "it with --format folder."
        )
    graphs = model_graphs(model, retriever.image_size, retriever.flip)
    files = {}
    for name, graph in tqdm(graphs.items(), desc="Exporting", unit="graph", disable=quiet or None):
        files[name] = _write(folder, name, ".onnx", to_onnx(graph))
    tokens = None
    if model.has_text:
        content, facts = tokenizer_file()
        known = None if retriever.known_tokens is None else sorted(retriever.known_tokens)
        tokens = {**_write(folder, "tokenizer", ".json", content.encode()), **facts, "known": known}
    everything = {"format": FORMAT, "graphs": files, "tokenizer": tokens, **_facts(retriever), **(notes or {})}
    parity = _compare(retriever, OnnxModel(folder, facts=everything), str(gallery), str(queries))
    if not parity.ok:
        raise ParityError(f"The export differs from the model, so {folder / FACTS} is not written:\n{parity}")
    everything["parity"] = parity.to_dict()
    write_text(folder / FACTS, json.dumps({**everything, "digest": digest_of(everything)}, indent=1) + "\n")
    named = {entry["file"] for entry in (*files.values(), *([tokens] if tokens else []))}
    for path in folder.iterdir():
        if OURS.fullmatch(path.name) and path.name not in named:
            path.unlink()
    return parity


def _facts(retriever: Retriever) -> dict[str, Any]:
    cameras, fusion = known_cameras(retriever.model), getattr(retriever.model, "fusion", None)
    return {
        "image_size": list(retriever.image_size),
        "resample": retriever.resample,
        "ir_scaling": list(retriever.ir_window or ()),
        "pixels": "uint8 (N, 3, H, W), RGB, 0..255; normalised inside",
        "members": [member.value for member in retriever.members],
        "fusion": {"name": type(fusion).__name__, "filters": fusion.filters} if fusion is not None else None,
        "cameras": cameras._asdict() if cameras else None,
        "fingerprint": retriever.fingerprint.to_dict(),
        "text_trust": asdict(retriever.text_trust) if retriever.text_trust else None,
        "weighs": retriever.weighs,
        "torch": torch.__version__,
    }


def _compare(retriever: Retriever, exported: OnnxModel, gallery: str, queries: str) -> Parity:
    height, width = retriever.image_size
    records = list_gallery(gallery) if gallery else []
    if records:
        step = max(1, len(records) // SAMPLES)
        pixels = np.stack([read_resized(one.path, (height, width), retriever.resample) for one in records[::step][:SAMPLES]])
    else:
        pixels = np.random.default_rng(0).integers(0, 256, (SAMPLES, height, width, 3), dtype=np.uint8)
    known = known_cameras(retriever.model)
    cameras = None if known is None else [known.first + n % known.number for n in range(len(pixels))]
    parity = compare_features(retriever, exported, pixels, cameras)
    if records:
        asked = list_gallery(queries) if queries else records
        compare_searches(retriever, exported, records, [record.path for record in asked], parity)
    return parity


def _write(folder: Path, name: str, suffix: str, content: bytes) -> dict[str, str]:
    digest = hashlib.sha256(content).hexdigest()
    file = f"{name}-{digest[:12]}{suffix}"
    with atomic_file(folder / file) as stream:
        stream.write(content)
    return {"file": file, "sha256": digest}
