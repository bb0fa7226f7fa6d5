"""The description of a synthetic benchmark in Croissant 1.0 (MLCommons), which data set hubs and search engines read."""

import mimetypes
from pathlib import Path
from typing import Any

from tvilfm_plugin.files.writing import sha256_of
from tvilfm_plugin.synthetic.plans import GENERATOR, Spec, spec_of

_TERMS = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet", "format", "includes",
    "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated", "replace",
    "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    **{term: f"cr:{term}" for term in _TERMS},
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
}
"""What the names of the format stand for; readers expect all of them."""


def croissant(spec: Spec, root: Path, picture: str) -> dict[str, Any]:
    """What lies in `root`: the truth with its sha256, and the pictures, a record each (path and pixels).

    Args:
        picture: path of any of them; the others are of its kind.
    """
    truth = root / "attributes.json"
    kind, _ = mimetypes.guess_type(picture)
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"synthetic-people-{spec.layout}-seed-{spec.seed}",
        "description": f"Synthetic people before visible and infrared cameras, with captions that err. {spec_of(spec)}",
        "version": f"{GENERATOR}.0.0",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": truth.name,
                "description": "Everybody's shape and palette; of each picture its view and what its caption says.",
                "contentUrl": truth.name,
                "encodingFormat": "application/json",
                "sha256": sha256_of(truth),
            },
            {"@type": "cr:FileSet", "@id": "files", "encodingFormat": kind, "includes": f"**/*{Path(picture).suffix}"},
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "pictures",
                "field": [_field("path", "sc:Text", "fullpath"), _field("pixels", "sc:ImageObject", "content")],
            }
        ],
    }


def _field(name: str, kind: str, read: str) -> dict[str, Any]:
    source = {"fileSet": {"@id": "files"}, "extract": {"fileProperty": read}}
    return {"@type": "cr:Field", "@id": f"pictures/{name}", "dataType": kind, "source": source}
