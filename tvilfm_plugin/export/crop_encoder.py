"""One ONNX file that a tracker runs by itself: float RGB crops 0..1 of one size in, unit vectors out."""

from pathlib import Path

import numpy as np
import torch

from tvilfm_plugin.export.graphs import crop_graph, to_onnx
from tvilfm_plugin.export.parity import LIMIT
from tvilfm_plugin.export.writing import ParityError
from tvilfm_plugin.files.writing import atomic_file, make_folder
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.retriever import Retriever
from tvilfm_plugin.runtime.model import GRAPH_OF


def export_crop_encoder(retriever: Retriever, out: str | Path, modality: Modality | str) -> tuple[Path, float]:
    """Write `encoder-visible.onnx` or `encoder-infrared.onnx` of a model on the CPU, compared with the model first.

    Returns:
        The file, and the largest difference to the model's unit vectors over their largest value, on random crops.
    """
    import onnxruntime

    modality = Modality(modality)
    if modality not in GRAPH_OF:
        raise ValueError(f"A camera sees rgb or ir, not {modality.value}.")
    content = to_onnx(crop_graph(retriever.model, retriever.image_size, retriever.flip, modality))
    crops = np.random.default_rng(0).integers(0, 256, (4, *retriever.image_size, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    given = torch.from_numpy(crops.transpose(0, 3, 1, 2).copy()).float() / 255
    found = session.run(None, {"images": given.numpy()})[0]
    expected = retriever.embed_images(list(crops), modality)
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    if difference > LIMIT:
        raise ParityError(f"The encoder differs from the model by {difference:.1e} (limit {LIMIT:.0e}), so it is not written.")
    path = make_folder(out) / f"encoder-{GRAPH_OF[modality]}.onnx"
    with atomic_file(path) as stream:
        stream.write(content)
    return path, difference
