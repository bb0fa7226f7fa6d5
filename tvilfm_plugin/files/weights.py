"""Weight files of every kind, read in one way: nothing of a file is run, and what cannot be read is refused in a sentence."""

import argparse
import pickle
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tvilfm_plugin.files.listing import some
from tvilfm_plugin.files.writing import sha256_of

SUFFIXES = (".pt", ".pth", ".pyth", ".bin", ".safetensors", ".ckpt")
# What people put around a state dict, in the order in which it is looked for.
WRAPPERS = ("state_dict", "model", "model_state", "model_state_dict", "net")
# What DDP and torch.compile put in front of every name ...
OUTERMOST = frozenset(("module", "_orig_mod"))
# ... and Lightning, MoCo and its kin, and wrappers of models in front of the names of one part.
PREFIXES = OUTERMOST.union(
    ("model", "net", "network", "backbone", "base", "base_model", "encoder", "encoder_q", "student", "text", "clip")
)
# A TorchScript archive is a program: only the files that OpenAI published are run.
OPENAI_ARCHIVES = {"afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762": "RN50"}
# Objects that lie beside weights in honest files and are plain values. Anything else is refused.
_VALUES: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np.ndarray,
    # What numpy writes its scalars and arrays as, by the names of versions 2 and 1; of objects there is no dtype here.
    *(
        (value.__reduce__()[0], f"numpy.{core}.multiarray.{name}")
        for name, value in (("scalar", np.float64(0)), ("_reconstruct", np.zeros(0)))
        for core in ("_core", "core")
    ),
    *{type(np.dtype(kind)) for kind in "?bBhHiIlLfdeqQ"},
]


class WeightsError(ValueError):
    """A file holds no weights that can be used."""


def read_weights_file(path: str | Path) -> Any:
    """What a weight file holds: tensors, plain values and containers; nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: it is no weight file, a damaged one, or one with objects in it; the message says which.
    """
    path = Path(path)
    if path.is_dir():
        raise WeightsError(f"{str(path)!r} is a folder, not a weight file ({', '.join(SUFFIXES)}).")
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file {str(path)!r}: name a local file ({', '.join(SUFFIXES)}).")
    if path.suffix == ".safetensors" or _is_safetensors(path):
        return _read_safetensors(path)
    if is_archive(path):
        return _read_archive(path)
    try:
        if zipfile.is_zipfile(path):
            # torch reads the records without comparing their checksums.
            with zipfile.ZipFile(path) as archive:
                if broken := archive.testzip():
                    raise zipfile.BadZipFile(broken)
        with torch.serialization.safe_globals(_VALUES):
            return torch.load(path, map_location="cpu", weights_only=True)
    # A foreign or damaged file raises whatever its reader meets first: pickle's, zip's, torch's errors, KeyError, EOFError ...
    except Exception as error:
        raise WeightsError(_why(path, error)) from None


def tensors_of(content: Any, path: str | Path) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict in a file's content, and the names of what lay beside it.

    Wrappers (`WRAPPERS`, also in each other) are taken off, and the prefixes of `OUTERMOST` that all names share.
    """
    beside: list[str] = []
    while isinstance(content, Mapping) and (found := [w for w in WRAPPERS if isinstance(content.get(w), Mapping)]):
        beside += [str(name) for name in content if name != found[0]]
        content = content[found[0]]
    if not isinstance(content, Mapping) or not content:
        kind = "nothing" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise WeightsError(f"{str(path)!r} holds {kind}, not a state dict {{name: tensor}}, bare or in {WRAPPERS}.")
    strange = [name for name, value in content.items() if not isinstance(value, Tensor) or type(name) is not str]
    if strange:
        raise WeightsError(
            f"{str(path)!r} has entries that are no tensors: {some(strange, 4)}. Expected a state dict {{name: tensor}}, "
            f"bare or below one of {', '.join(WRAPPERS)}."
        )
    state = {name: _plain(value) for name, value in content.items()}
    _check_numbers(state, path)
    while len(heads := {name.partition(".")[0] for name in state}) == 1 and heads <= OUTERMOST:
        state = {name.partition(".")[2]: value for name, value in state.items()}
    return state, beside


def _plain(value: Tensor) -> Tensor:
    """A tensor that is stored as sparse or quantised, as any other."""
    value = value.dequantize() if value.is_quantized else value
    return value if value.layout == torch.strided else value.to_dense()


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a weight file; see `read_weights_file` and `tensors_of`."""
    return tensors_of(read_weights_file(path), path)[0]


def prefixes_of(state: Iterable[str]) -> list[str]:
    """Every prefix of `PREFIXES` that the names have, "" among them; short ones first, then in the order of the names."""
    found = {"": None}
    for name in state:
        parts = name.split(".")
        for n in range(1, len(parts)):
            if parts[n - 1] not in PREFIXES:
                break
            found[".".join([*parts[:n], ""])] = None
    return sorted(found, key=len)


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def best_prefix(state: Iterable[str], wanted: Collection[str]) -> str:
    """The prefix behind which most of the wanted names are found; of equal ones the shortest, then the first.

    Of a whole training's file (`backbone.` beside `heads.`, `encoder_q.` beside `encoder_k.`) that is the part that is meant.
    """
    names = list(state)
    found = {p: sum(n.removeprefix(p) in wanted for n in names if n.startswith(p)) for p in prefixes_of(names)}
    return max(found, key=lambda prefix: found[prefix])


def misfits(state: Mapping[str, Tensor], own: Mapping[str, Tensor], excused: Collection[str] = ()) -> list[str]:
    """What of a file's tensors does not fit a model's own, but for the names that are excused."""
    both = [name for name in own if name in state]
    found = [f"missing {name}" for name in own if name not in state and name not in excused]
    for name in both:
        if state[name].shape != own[name].shape and name not in excused:
            found.append(f"shape {tuple(state[name].shape)} instead of {tuple(own[name].shape)} {name}")
    found += [f"unexpected {name}" for name in state if name not in own]
    for name in both:
        if state[name].is_floating_point() != own[name].is_floating_point():
            kinds = (str(one[name].dtype).removeprefix("torch.") for one in (state, own))
            found.append(f"{' instead of '.join(kinds)} {name}")
    return found


# --- refusals ---------------------------------------------------------------------------------------------------------


def _why(path: Path, error: Exception) -> str:
    """One sentence on a file that torch could not read."""
    name = repr(str(path))
    if said := _no_weights(path):
        return said
    if members := _members(path):
        if not any(member.endswith("data.pkl") for member in members):
            return f"{name} is a zip archive of {some(members, 2)}, not a file that torch.save wrote."
    elif _is_text(_head(path)):
        return f"{name} is a text file, not a weight file: give a file that torch.save or safetensors wrote."
    if isinstance(error, pickle.UnpicklingError) and any(word in str(error) for word in ("GLOBAL", "allowed", "function")):
        return (
            f"{name} holds more than tensors (a pickled model or other objects), and loading it would run code from the file; "
            "it is read as weights only. Save its state dict where you trust it: torch.save(model.state_dict(), 'weights.pth')."
        )
    return (
        f"{name} is damaged, or no file that torch.save wrote ({type(error).__name__}; a pickle of other objects is never run)"
        ". Fetch or copy the file again."
    )


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(512)


def _no_weights(path: Path) -> str:
    """What came in the place of a weight file, in a sentence; "" where that cannot be seen."""
    head, name = _head(path), repr(str(path))
    if not head:
        return f"{name} is empty: the download or copy was cut off. Fetch the file again."
    if head.startswith(b"version https://git-lfs"):
        return f"{name} is a Git LFS pointer, not the weights themselves: run `git lfs pull` in its repository."
    if head.lstrip()[:1] == b"<":
        return f"{name} is a web page, not a weight file: the download was answered with a message. Fetch the file again."
    return ""


def _is_safetensors(path: Path) -> bool:
    """Whether a file is one by its first bytes: the length of the header, then JSON."""
    head = _head(path)
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _is_text(head: bytes) -> bool:
    text = head.decode("utf-8", errors="replace").rstrip("\ufffd")
    return all(char.isprintable() or char.isspace() for char in text) and "\ufffd" not in text


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        damaged = f"{str(path)!r} is no safetensors file, or damaged ({reason}). Fetch or copy it again."
        raise WeightsError(_no_weights(path) or damaged) from None


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive, as OpenAI's are."""
    return any(name.endswith("/constants.pkl") for name in _members(path))


def _members(path: Path) -> list[str]:
    """The names in a zip archive; [] where a file is none, or one that cannot be listed."""
    try:
        if not zipfile.is_zipfile(path):
            return []
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []


def _read_archive(path: Path) -> dict[str, Tensor]:
    """The tensors of one of OpenAI's TorchScript archives; no other one is run."""
    digest = sha256_of(path)
    if digest not in OPENAI_ARCHIVES:
        raise WeightsError(
            f"{str(path)!r} is a TorchScript archive, i.e. a program, and not one that OpenAI published (sha256 "
            f"{digest}; known: {', '.join(OPENAI_ARCHIVES.values())}), so it is not run. If you trust it, save "
            "its tensors once: torch.save(torch.jit.load(path, map_location='cpu').state_dict(), 'weights.pth')."
        )
    return torch.jit.load(str(path), map_location="cpu").state_dict()


def _check_numbers(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise for tensors without values, and for numbers that no training that went well leaves behind."""
    absent = [name for name, value in state.items() if value.is_meta]
    if absent:
        raise WeightsError(f"{str(path)!r} has tensors without values (torch's meta device): {some(absent)}. Save them again.")
    complex_ = [name for name, value in state.items() if value.is_complex()]
    if complex_:
        raise WeightsError(f"{str(path)!r} has complex numbers, which no weights here are: {some(complex_)}.")
    wrong = [name for name, value in state.items() if value.is_floating_point() and not torch.isfinite(value.float()).all()]
    if wrong:
        raise WeightsError(
            f"{str(path)!r} has numbers that are not finite in {some(wrong)}: its training had diverged. Take an earlier "
            "checkpoint, or train again."
        )
