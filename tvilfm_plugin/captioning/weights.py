"""Where a model comes from: a folder, or the Hugging Face hub. Without a network a hub id fails at once, not after retries."""

import hashlib
import importlib.util
import os
import re
import socket
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tvilfm_plugin.files.writing import sha256_of

_HUB_ID = re.compile(r"^[\w-][\w.-]*/[\w-][\w.-]*(?:@[\w./-]+)?$")
_TIMEOUT = 4.0  # seconds for the first sign of life of the hub


class Weights(NamedTuple):
    """A model's origin: its name (a folder's last part), what transformers loads, sha256 of a folder or commit on the hub."""

    name: str
    source: str
    revision: str
    options: dict[str, Any]

    def checked(self, model: Any) -> "Weights":
        """The same with the commit that was really loaded, if the hub was asked for a moving name."""
        commit = getattr(model.config, "_commit_hash", None)
        return self._replace(revision=commit) if commit and not self.revision.startswith("sha256:") else self


def find_weights(name: str) -> Weights:
    """Find a model by folder, by hub id (`org/name`, `org/name@revision`), or a language model by its GGUF file.

    Raises:
        FileNotFoundError: neither a folder with a model nor a hub id.
        ValueError: not a GGUF file, or nothing here reads it.
        ConnectionError: a hub id that is not in the local cache, and no way to the hub.
    """
    folder = Path(name).expanduser()
    if folder.suffix.lower() == ".gguf":
        return _find_gguf(folder)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} has no config.json: it is no model that transformers saved.")
        return Weights(folder.resolve().name, str(folder), _hash_folder(folder), {})
    if not _HUB_ID.match(name):
        raise FileNotFoundError(
            f"{name!r} is neither an existing folder nor a Hugging Face id such as 'Salesforce/blip-image-captioning-large'."
        )
    from huggingface_hub import constants, try_to_load_from_cache

    repository, _, revision = name.partition("@")
    revision = revision or "main"
    cached = try_to_load_from_cache(repository, "config.json", revision=revision)
    offline = constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE", "") not in ("", "0")
    if isinstance(cached, str):
        # .../snapshots/<commit>/config.json
        commit = Path(cached).parent.name
        return Weights(name, repository, commit, {"revision": revision, "local_files_only": offline})
    reason = "HF_HUB_OFFLINE is set" if offline else _unreachable(constants.ENDPOINT)
    if reason:
        raise ConnectionError(
            f"{name!r} is not in the local cache ({constants.HF_HUB_CACHE}), and the hub cannot be asked: {reason}. "
            f"Download it where there is a network (`hf download {repository}`) and give the folder, "
            "or copy the cache and set HF_HOME."
        )
    return Weights(name, repository, revision, {"revision": revision})


def _find_gguf(file: Path) -> Weights:
    """A language model in one file, which transformers converts while it reads it."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist.")
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ValueError(f"{file} is no GGUF file: it does not begin with 'GGUF'. Download it again.")
    if importlib.util.find_spec("gguf") is None:
        raise ValueError(
            f"{file} needs the package gguf: `pip install gguf`; or serve it (llama.cpp: `llama-server -m {file}`) and give "
            "the address, --llm http://localhost:8080/v1."
        )
    return Weights(file.name, str(file.parent), f"sha256:{sha256_of(file)}", {"gguf_file": file.name})


def _unreachable(endpoint: str) -> str:
    """Why the hub cannot be reached, or ""."""
    proxied = any(os.environ.get(variable) for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    parts = urlsplit(endpoint)
    if proxied or not parts.hostname:
        return ""
    try:
        socket.create_connection((parts.hostname, parts.port or 443), timeout=_TIMEOUT).close()
    except OSError as error:
        return f"{parts.hostname} does not answer ({error})"
    return ""


def _hash_folder(folder: Path) -> str:
    """sha256 over the names and bytes of everything that decides the output: weights, configuration, vocabulary."""
    total = hashlib.sha256()
    kept = (".safetensors", ".bin", ".json", ".txt", ".model", ".jinja")
    for file in sorted(path for path in folder.iterdir() if path.suffix in kept and path.name != "training.json"):
        total.update(file.name.encode())
        total.update(bytes.fromhex(sha256_of(file)))
    return f"sha256:{total.hexdigest()}"
