"""Does the export say what the model says? Feature by feature, and hit by hit."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tvilfm_plugin.data.tokenizer import tokenize
from tvilfm_plugin.export.graphs import known_cameras
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.hits import Hit, search_index
from tvilfm_plugin.retrieval.records import Record
from tvilfm_plugin.retrieval.retriever import Retriever
from tvilfm_plugin.runtime.model import OnnxModel
from tvilfm_plugin.runtime.vectors import Vectors

LIMIT = 1e-4
TOP = 10
TIE = 1e-5  # similarities as near as this are equal but for rounding, and so is the order of their images
# Short and long, with what a tokenizer has to repair; the last is longer than the context.
TEXTS = (
    "a woman in a red coat",
    "a man wearing a blue striped shirt, black trousers and white shoes, and carrying an orange bag &amp; an umbrella",
    "A Boy's  grey HOODIE, caf\u00e9-brown shorts (knee-length) \u2013 no hat!",
    "person",
    "!(a man) in a red coat!!(tall)",  # CLIP's id 0, which is padding elsewhere, is "!" inside a run of signs
    " ".join(["someone in a dark jacket and light trousers"] * 12),
)


@dataclass
class Parity:
    """Largest difference between onnxruntime and torch, divided by the largest value, per output; and the ranking.

    Attributes:
        relative: output, e.g. "infrared unit" -> largest difference over largest value.
        queries: searches of the gallery, each with every member; 0 = no gallery was given.
        same_top: searches whose first TOP hits are the same, in the same order.
        ties: searches whose first TOP hits are the same but for images whose similarities differ by no more than TIE.
        overlap: mean share of common images among the first TOP.
    """

    relative: dict[str, float] = field(default_factory=dict)
    queries: int = 0
    gallery: int = 0
    same_top: int = 0
    ties: int = 0
    overlap: float = 1.0

    @property
    def largest(self) -> float:
        """The largest of `relative`."""
        return max(self.relative.values())

    @property
    def ok(self) -> bool:
        """Within LIMIT, and no ranking differs but in ties."""
        return self.largest <= LIMIT and self.same_top + self.ties == self.queries

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"limit": LIMIT, "top": TOP, "ok": self.ok}

    def __str__(self) -> str:
        lines = [f"{name:<14} {value:.1e}" for name, value in self.relative.items()]
        lines.append(f"largest difference / largest value: {self.largest:.1e} (limit {LIMIT:.0e})")
        if self.queries:
            lines.append(
                f"first {TOP} of {self.gallery} gallery images the same in {self.same_top} of {self.queries} searches "
                f"(common images {self.overlap:.2%})"
            )
        if self.ties:
            lines.append(f"in {self.ties} of the others only images that are equally near, within {TIE:.0e}, change places")
        return "\n".join([*lines, "OK" if self.ok else "NOT OK"])


def compare_features(retriever: Retriever, exported: OnnxModel, pixels: np.ndarray, cameras: Sequence[int] | None) -> Parity:
    """Every output of every graph, of (N, H, W, 3) uint8 pixels and N cameras that the model knows (or None)."""
    parity, model = Parity(), retriever.model
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    asked: list[tuple[str, Sequence[int] | None]] = [("", None)]
    if cameras is not None and known_cameras(model) is not None:
        asked.append((" cameras", cameras))
    with torch.no_grad():
        ir = torch.empty(0)
        for modality, name in ((Modality.IR, "infrared"), (Modality.RGB, "visible")):
            for note, numbers in asked:
                raw = retriever.raw_features(images, modality, None if numbers is None else torch.tensor(numbers))
                _note(parity, name + note, raw, model.embed, exported.images(pixels, modality, numbers))
                ir = raw if modality is Modality.IR and numbers is None else ir
        if model.has_text:
            said = model.encode_text(tokenize(TEXTS))
            ours = exported.texts(TEXTS)
            _note(parity, "text", said, model.embed, ours)
            rows = [n % len(TEXTS) for n in range(len(ir))]
            other = [(n + 1) % len(TEXTS) for n in range(len(ir))]
            fused = model.fusion(ir, said[rows], said[other])
            infrared = exported.images(pixels, Modality.IR)[0]
            _note(parity, "fusion", fused, model.embed, exported.fuse(infrared, ours[0][rows], ours[0][other]))
    return parity


def _note(
    parity: Parity, name: str, raw: Tensor, embed: Callable[[Tensor], Tensor], exported: tuple[np.ndarray, np.ndarray]
) -> None:
    for kind, theirs, ours in (("raw", raw, exported[0]), ("unit", embed(raw), exported[1])):
        expected = theirs.float().numpy()
        parity.relative[f"{name} {kind}"] = float(np.abs(ours - expected).max() / np.abs(expected).max())


def compare_searches(
    retriever: Retriever, exported: OnnxModel, gallery: Sequence[Record], queries: Sequence[str], parity: Parity
) -> None:
    """The first TOP hits among visible images of every query picture, with texts in turn; the result goes to `parity`."""
    from tvilfm_plugin.runtime.retriever import OnnxRetriever

    runtime = OnnxRetriever(exported)
    theirs = Vectors(retriever.embed_images([record.path for record in gallery]), gallery)
    ours = Vectors(runtime.embed_images([record.path for record in gallery]), gallery)
    overlap = []
    for number, path in enumerate(queries):
        words = {}
        if exported.has_text:
            words = {"text": TEXTS[number % len(TEXTS)], "infrared_text": TEXTS[(number + 1) % len(TEXTS)]}
        found = []
        for one, index in ((retriever, theirs), (runtime, ours)):
            units, _ = one.embed_query(infrared=path, **words)
            found.append(search_index(index, units, TOP))
        first, second = ([hit.path for hit in hits] for hits in found)
        parity.same_top += first == second
        parity.ties += first != second and tied(*found)
        overlap.append(len({*first} & {*second}) / len(first))
    parity.queries, parity.gallery, parity.overlap = len(queries), len(gallery), float(np.mean(overlap))


def tied(first: Sequence[Hit], second: Sequence[Hit]) -> bool:
    """Whether two rankings differ at most in images that are equally near: at every rank the same image, or a tie."""
    pairs = zip(first, second, strict=True)
    return all(one.path == other.path or abs(one.similarity - other.similarity) <= TIE for one, other in pairs)
