"""What leaves torch: one graph per kind of input, each with everything that belongs to it inside.

Every graph gives the raw features (N, D), which the fusion adds up, and the unit embeddings (N, D), which are compared.
"""

import copy
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tvilfm_plugin.evaluation.flips import encode_rows
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.mip.encoder import MIPEncoder

OUTPUTS = ("raw", "unit")


class Cameras(NamedTuple):
    """The cameras that an encoder tells apart: `first` .. `first + number - 1`."""

    first: int
    number: int


class ImageGraph(nn.Module):
    """(N, 3, H, W) uint8 pixels of one modality, and (N,) cameras where the encoder knows some -> raw and unit (N, D).

    An unknown camera (any number outside the encoder's) counts as the mean of all, as in `MIPEncoder`.
    """

    def __init__(self, model: Any, modality: Modality, flip: bool) -> None:
        super().__init__()
        self.heads = model.heads
        self.visual = model.visual
        self.modality = modality
        self.flip = flip
        self.cameras = known_cameras(model)
        if self.cameras is not None:
            self.visual = copy.deepcopy(model.visual)
            table = self.visual.embedding.camera
            self.visual.embedding.camera = nn.Parameter(torch.cat([table, table.mean(dim=0, keepdim=True)]))

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.cameras is not None and cameras is not None:
            first, number = self.cameras
            rows = cameras - first
            cameras = torch.where((rows >= 0) & (rows < number), rows, number) + first
        raw = encode_rows(self._encode, images, self.modality, cameras, self.flip)
        return raw, self.heads.embed(raw)

    def _encode(self, images: Tensor, modality: Modality, cameras: Tensor | None) -> Tensor:
        return self.visual({modality: images}, None if cameras is None else {modality: cameras})[modality]


class CropGraph(ImageGraph):
    """(N, 3, H, W) float32 pixels 0..1, RGB -> unit (N, D) alone: what trackers that run foreign ONNX encoders hand over."""

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(images * 255)[1]


class TextGraph(nn.Module):
    """(N, L) int64 token ids, L up to the context length -> raw and unit (N, D)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text = model.text
        self.heads = model.heads

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        # Without the model's trimming and packing: both ask the values, which an exporter does not have.
        ends = self.text.end_of_text(tokens)
        at_ends = self.text.features(tokens)[torch.arange(tokens.shape[0]), ends]
        raw = self.text.ln_final(at_ends) @ self.text.text_projection
        return raw, self.heads.embed(raw)


class FusionGraph(nn.Module):
    """Raw (N, D) infrared, text and (where the fusion filters) filter text -> raw and unit (N, D)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.fusion = model.fusion
        self.heads = model.heads

    def forward(self, ir: Tensor, text: Tensor, ir_text: Tensor | None = None) -> tuple[Tensor, Tensor]:
        raw = self.fusion(ir, text, ir_text)
        return raw, self.heads.embed(raw)


class Graph(NamedTuple):
    """A module with an example of two rows per input, the axes that vary per name, and the names of its outputs."""

    module: nn.Module
    inputs: dict[str, Tensor]
    dynamic: dict[str, dict[int, Any]]
    outputs: tuple[str, ...] = OUTPUTS


def known_cameras(model: Any) -> Cameras | None:
    """The cameras whose number changes the features, or None."""
    visual = model.visual
    if not isinstance(visual, MIPEncoder) or visual.embedding.camera is None:
        return None
    return Cameras(visual.first_camera, visual.embedding.camera.shape[0])


def model_graphs(model: Any, image_size: tuple[int, int], flip: bool) -> dict[str, Graph]:
    """All graphs of a model in eval mode, on the CPU: `infrared`, `visible` and, with text, `text` and `fusion`.

    Args:
        model: a `VIBaseline` (MIP included) or `TVILFM`.
        flip: average the features of image and mirror image, as TEST.FLIP.
    """
    batch = {0: torch.export.Dim("batch", min=1, max=4096)}
    pixels = torch.zeros(2, 3, *image_size, dtype=torch.uint8)
    inputs = {"images": pixels}
    if cameras := known_cameras(model):
        inputs["cameras"] = torch.full((2,), cameras.first)
    found = {
        name: Graph(ImageGraph(model, modality, flip), inputs, dict.fromkeys(inputs, batch))
        for name, modality in (("infrared", Modality.IR), ("visible", Modality.RGB))
    }
    if not model.has_text:
        return found
    tokens = torch.ones(2, 9, dtype=torch.int64)
    length = torch.export.Dim("length", min=2, max=model.text.context_length)
    found["text"] = Graph(TextGraph(model), {"tokens": tokens}, {"tokens": {**batch, 1: length}})
    names = ("ir", "text", "ir_text") if model.fusion.filters else ("ir", "text")
    raw = torch.rand(2, model.visual.dim)
    found["fusion"] = Graph(FusionGraph(model), dict.fromkeys(names, raw), dict.fromkeys(names, batch))
    return found


def crop_graph(model: Any, image_size: tuple[int, int], flip: bool, modality: Modality) -> Graph:
    """The graph of one modality for trackers; height and width are fixed, the batch varies. Cameras count as unknown."""
    module, pixels = CropGraph(model, modality, flip), torch.zeros(2, 3, *image_size)
    return Graph(module, {"images": pixels}, {"images": {0: torch.export.Dim("batch", min=1, max=4096)}}, ("embedding",))


def to_onnx(graph: Graph) -> bytes:
    """A graph as the bytes of an ONNX file with its weights inside."""
    with torch.no_grad(), warnings.catch_warnings():
        # torch's exporter warns of its own internals.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.module.eval(),
            (),
            # Copies: an exporter takes one tensor under two names for one input.
            kwargs={name: value.clone() for name, value in graph.inputs.items()},
            dynamic_shapes=graph.dynamic,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto.SerializeToString()
