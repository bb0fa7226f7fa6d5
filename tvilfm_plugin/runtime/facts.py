"""export.json, which says what an export is: checked by a schema, and by a digest of itself."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tvilfm_plugin.files.json import checked, digest_of, expect_object, read_json, shorten
from tvilfm_plugin.retrieval.fingerprint import Fingerprint

FACTS = "export.json"
FORMAT = 2
OURS = re.compile(r"(infrared|visible|text|fusion|tokenizer)-[0-9a-f]{12}\.(onnx|json)")
"""Names of an export's other files."""

_Count = Annotated[int, Field(ge=1, le=1 << 20)]


class ExportError(ValueError):
    """A folder is no export, or not all of one."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _File(_Strict):
    file: Annotated[str, Field(pattern=f"^{OURS.pattern}$")]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Graphs(_Strict):
    infrared: _File
    visible: _File
    text: _File | None = None
    fusion: _File | None = None


class _Tokenizer(_File):
    pattern: str
    special: dict[str, int]
    start: int
    end: int
    context_length: Annotated[int, Field(ge=3, le=1 << 16)]
    known: list[int] | None = None


class _Fusion(_Strict):
    name: str
    filters: bool


class _Cameras(_Strict):
    first: int
    number: _Count


class _Facts(_Strict):
    graphs: _Graphs
    tokenizer: _Tokenizer | None
    image_size: Annotated[list[_Count], Field(min_length=2, max_length=2)]
    resample: Literal["lanczos", "bicubic", "bilinear"]
    ir_scaling: list[float]
    members: Annotated[list[Literal["ir", "text", "fusion"]], Field(min_length=1)]
    fusion: _Fusion | None
    cameras: _Cameras | None
    fingerprint: Fingerprint
    text_trust: dict[str, Any] | None = None
    weighs: bool = False
    digest: str


def read_facts(folder: Path) -> dict[str, Any]:
    """What the export.json of a folder says, if every value is one that an exporter writes and none was changed since."""
    file = folder / FACTS
    if not file.is_file():
        raise ExportError(f"{folder} is no export: it has no {FACTS}. `tvilfm export RUN` writes one.")
    try:
        facts = expect_object(read_json(file), str(file))
        known: _Facts | None = checked(facts, _Facts, str(file)) if facts.get("format") == FORMAT else None
    except ValueError as error:
        raise ExportError(f"{error} Export the model again.") from None
    if known is None:
        told = shorten(facts.get("format"), 40)
        raise ExportError(f"{file} has format {told}, this version reads {FORMAT}. Export the model again.")
    if known.digest != digest_of(facts):
        raise ExportError(f"{file} was changed after it was written: its digest is another. Export the model again.")
    pairs = ((known.tokenizer, known.graphs.text), (known.fusion, known.graphs.fusion))
    if any((part is None) != (graph is None) for part, graph in pairs):
        raise ExportError(f"{file} names a part without its graph, or a graph without its part. Export the model again.")
    return facts
