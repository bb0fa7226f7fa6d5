"""The graphs of an export, run by onnxruntime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tvilfm_plugin.files.pictures import Window
from tvilfm_plugin.files.writing import sha256_of
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.fingerprint import Fingerprint
from tvilfm_plugin.runtime.facts import ExportError, read_facts
from tvilfm_plugin.runtime.tokens import Tokens

UNKNOWN_CAMERA = -1
GRAPH_OF = {Modality.IR: "infrared", Modality.RGB: "visible"}


class OnnxModel:
    """What `tvilfm export` wrote, as functions of numpy arrays.

    Attributes:
        ir_window: what of an infrared picture with more than 8 bits becomes grey; None refuses such pictures.
        members: who can vote in a search.
        fingerprint: of the vectors; equal to that of the model in torch.
    """

    def __init__(self, folder: str | Path, *, facts: Mapping[str, Any] | None = None, threads: int = 0) -> None:
        """The export in a folder, or other facts than its export.json; threads of onnxruntime (0 = its own choice)."""
        self.folder = Path(folder)
        self.facts = dict(facts) if facts is not None else read_facts(self.folder)
        height, width = self.facts["image_size"]
        self.image_size = (int(height), int(width))
        self.resample = str(self.facts["resample"])
        self.ir_window = Window.of(self.facts.get("ir_scaling", ()))
        self.members = tuple(Modality(name) for name in self.facts["members"])
        self.has_text = self.facts["tokenizer"] is not None
        known = (self.facts["tokenizer"] or {}).get("known")
        self.known_tokens = None if known is None else frozenset(known)
        self.filters = bool(self.facts["fusion"] and self.facts["fusion"]["filters"])
        self.fingerprint = Fingerprint(**self.facts["fingerprint"])
        self._threads = threads
        self._sessions: dict[str, Any] = {}
        self._tokens: Tokens | None = None

    def images(
        self, pixels: np.ndarray, modality: Modality, cameras: Sequence[int | None] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Raw and unit (N, D) of pixels (N, H, W, 3) uint8."""
        inputs = {"images": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))}
        if known := self.facts["cameras"]:
            numbers = [UNKNOWN_CAMERA if one is None else int(one) for one in cameras or [None] * len(pixels)]
            last = known["first"] + known["number"] - 1
            if wrong := sorted({n for n in numbers if n != UNKNOWN_CAMERA and not known["first"] <= n <= last}):
                raise ValueError(f"This model knows the cameras {known['first']}..{last}, not {wrong}; None is an unknown one.")
            inputs["cameras"] = np.array(numbers, dtype=np.int64)
        return self._run(GRAPH_OF[modality], inputs)

    def texts(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Raw and unit (N, D) of N texts."""
        return self._run("text", {"tokens": self.tokens(texts)})

    def tokens(self, texts: Sequence[str]) -> np.ndarray:
        """(N, L) int64 ids of N texts."""
        facts = self.facts["tokenizer"]
        if facts is None:
            raise ValueError("This export has no text encoder: search by image only, or export a TVILFM model.")
        if self._tokens is None:
            file = self._checked(facts)
            try:
                self._tokens = Tokens(file, facts)
            except Exception as error:  # each of the libraries behind it has errors of its own
                raise ExportError(f"{file}: it is no tokenizer that can be read ({error}). Export the model again.") from error
        return self._tokens(texts)

    def is_cut(self, text: str) -> bool:
        """Whether a text is longer than what the model reads of it."""
        self.tokens([""])  # there is a text encoder
        assert self._tokens is not None
        return self._tokens.is_cut(text)

    def fuse(self, ir: np.ndarray, text: np.ndarray, ir_text: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Raw and unit (N, D) of raw (N, D) infrared, text and filter text (None only if not `filters`)."""
        inputs = {"ir": ir, "text": text}
        if self.filters:
            if ir_text is None:
                raise ValueError("The fusion of this model subtracts the text of the infrared image, but there is none.")
            inputs["ir_text"] = ir_text
        return self._run("fusion", inputs)

    def _run(self, name: str, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        file = self.folder / self.facts["graphs"][name]["file"]
        try:
            if name not in self._sessions:
                self._sessions[name] = self._session(str(self._checked(self.facts["graphs"][name])))
            raw, unit = self._sessions[name].run(["raw", "unit"], inputs)
        except ExportError:
            raise
        # onnxruntime has a class of its own per kind of failure, with no other parent.
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise ExportError(f"{file}: onnxruntime cannot read or run it ({said}). Export the model again.") from error
        if not np.isfinite(unit).all():
            raise ExportError(f"{file} gives vectors with NaN, which no search can rank. Export the model again.")
        return raw, unit

    def _session(self, file: str) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        return onnxruntime.InferenceSession(file, options, providers=onnxruntime.get_available_providers())

    def _checked(self, entry: Mapping[str, Any]) -> Path:
        """A file of the export, if it still is what was written."""
        path = self.folder / entry["file"]
        if not path.is_file() or sha256_of(path) != entry["sha256"]:
            state = "was changed" if path.is_file() else "is missing"
            raise ExportError(f"{path} {state}: the export is not complete. Run `tvilfm export RUN` again.")
        return path
