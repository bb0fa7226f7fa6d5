"""A trained model as one folder: model.safetensors, config.json, README.md. It is found and read here.

`retrieval.saving` writes it.
"""

import difflib
import os
import re
from pathlib import Path
from typing import Any

from tvilfm_plugin.files.json import JsonError, checked, expect_object, read_json
from tvilfm_plugin.files.shipped import DESCRIPTION, WEIGHTS, folder_of, is_model_folder, shipped_models
from tvilfm_plugin.files.weights import WeightsError
from tvilfm_plugin.files.writing import sha256_of

CARD = "README.md"
FORMAT = 1
_HUB = re.compile(r"(?:hf:/{1,2})?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
SCHEMA: dict[str, Any] = {
    "format": int,
    "architecture": str,
    "members": list[str],
    "weights": dict[str, Any],
    "provenance": dict[str, Any],
    "protocol": dict[str, Any] | None,
    "config": dict[str, Any],
}


def read_description(folder: str | os.PathLike[str], verify: bool = False) -> dict[str, Any]:
    """config.json of a model folder, checked; with `verify` model.safetensors must have the sha256 that it states."""
    path = Path(folder) / DESCRIPTION
    described = expect_object(read_json(path), str(path))
    missing = [key for key in SCHEMA if key not in described]
    if missing:
        lacks = f"{path} lacks {', '.join(missing)}: it describes no model of ours"
        raise JsonError(f"{lacks}. `tvilfm export --format folder` writes one.")
    for key, schema in SCHEMA.items():
        checked({key: described[key]}, dict[str, schema], str(path))  # type: ignore[valid-type]
    if described["format"] != FORMAT:
        raise JsonError(f"{path} has format {described['format']}; this version reads {FORMAT}. Export the model again.")
    if verify and (found := sha256_of(path.with_name(WEIGHTS))) != described["weights"].get("sha256"):
        raise WeightsError(
            f"{path.with_name(WEIGHTS)} is not the file that {DESCRIPTION} describes (sha256 {found[:12]}): one of the two was "
            "changed or cut off. Fetch or export the folder again."
        )
    return described


def find_pretrained(name: str | os.PathLike[str]) -> Path:
    """The folder of a model: a folder itself, one that comes with the plugin by its name, or one of the hub by its id.

    Args:
        name: a path; "example"; "owner/name" or "owner/name@revision" ("hf://" may stand in front). The hub library keeps
            what it fetched; offline (HF_HUB_OFFLINE=1) that is all that there is.
    """
    if os.path.isdir(name):
        return Path(name)
    if folder := folder_of(name):
        return folder
    shipped = shipped_models()
    known = f"With the plugin come {', '.join(shipped)}." if shipped else "No model comes with this installation."
    asked = _HUB.fullmatch(os.fspath(name))
    if not asked:
        near = difflib.get_close_matches(os.fspath(name), shipped, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        said = f"There is no model folder {os.fspath(name)!r}, and it is no owner/name of the hub"
        raise FileNotFoundError(f"{said}. {known}{hint}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    files = [WEIGHTS, DESCRIPTION, CARD]
    try:
        found = Path(snapshot_download(asked[1], revision=asked[2], allow_patterns=files))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise FileNotFoundError(
            f"There is no folder {os.fspath(name)!r}, and the model {asked[1]} is neither in the hub library's cache nor to be "
            f"had from the hub ({type(error).__name__}: {reason:.160}). {known}"
        ) from None
    if not is_model_folder(found):
        raise FileNotFoundError(f"{asked[1]} on the hub is no model of ours: it lacks {WEIGHTS} or {DESCRIPTION}.")
    return found
