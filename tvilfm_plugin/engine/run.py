"""The identity of a run: config, lists of data and input files. Everybody asks here whether a run is the one that is wanted.

`run.json` in the folder of a run holds it, with what a reader wants to know besides: seed, device, versions.
"""

import functools
import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NotRequired

import torch
from fastreid.utils import comm
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12
from yacs.config import CfgNode

from tvilfm_plugin.config.nodes import flat, get_cfg
from tvilfm_plugin.data.datasets.base import TriDataset
from tvilfm_plugin.data.loaders import build_dataset, reads_captions
from tvilfm_plugin.engine.fingerprint import Fingerprint, fingerprint
from tvilfm_plugin.evaluation.fingerprint import version_of_software
from tvilfm_plugin.files.json import checked, expect_object, read_json
from tvilfm_plugin.files.shipped import weights_file
from tvilfm_plugin.files.text import read_text
from tvilfm_plugin.files.writing import sha256_of, write_text
from tvilfm_plugin.keys.table import KEYS
from tvilfm_plugin.modeling.registration import uses_text

RUN = "run.json"
PACKAGES = ("torch", "torchvision", "fastreid", "numpy", "Pillow", "open_clip_torch", "timm", "yacs")
# Files that a run starts from: they are known by their content, not by their name. Two of the keys are fast-reid's.
FILES = ("MODEL.WEIGHTS", "MODEL.BACKBONE.PRETRAIN_PATH", *(key.name for key in KEYS if key.file and key.name[:5] != "TEST."))
# Schedules in which an epoch's rates do not depend on how many epochs follow.
_OPEN_ENDED = ("WarmupMultiStep", "MultiStepLR", "MIPCosine")
# What the fingerprint of the data says better.
_BY_DATA = ("DATASETS.ROOT", "MODEL.HEADS.NUM_CLASSES")


class RunDiffersError(RuntimeError, ValueError):
    """A run would go on, or count as done, although it was made otherwise; the message names what differs."""


class _Data(TypedDict):
    """A fingerprint as run.json has it."""

    images: int
    list: str
    times: str
    content: str
    captions: str


class _Stored(TypedDict):
    """The identity in run.json; an older file may lack a part."""

    config: NotRequired[dict[str, str]]
    data: NotRequired[dict[str, _Data]]
    inputs: NotRequired[dict[str, str]]


@dataclass(frozen=True)
class Identity:
    """What determines a run's weights: keys as texts, "train" -> its images' fingerprint, sha256 of the files of `FILES`."""

    config: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)

    def differences(self, stored: "Identity") -> list[str]:
        """What is otherwise in a stored identity: full keys, and words for data and files; empty if nothing is."""
        lines = {key: (self.config.get(key), stored.config.get(key)) for key in {**stored.config, **self.config}}
        defaults = _config_of(get_cfg()) if any(None in pair for pair in lines.values()) else {}
        found = []
        for key, (value, before) in lines.items():
            # A key that one of them lacks came later, or is gone: it was as its default says.
            value = defaults.get(key, before) if value is None else value
            before = defaults.get(key, value) if before is None else before
            if value != before:
                found.append(key)
        found += [f"the file of {key}" for key in FILES if key in self.inputs and self.inputs[key] != stored.inputs.get(key)]
        for part, now in self.data.items():
            then = stored.data.get(part, {})
            same_files = now["times"] == then.get("times") or now["content"] == then.get("content")
            if now["images"] != then.get("images") or now["list"] != then.get("list") or not same_files:
                found.append(f"the {part}ing images ({then.get('images', 0)} then, {now['images']} now)")
            elif now["captions"] != then.get("captions"):
                found.append(f"the captions of the {part}ing images")
        return sorted(found)

    def said(self, stored: "Identity", name: str) -> str:
        """A difference with both values: "SOLVER.BASE_LR 0.2 instead of 0.1"."""
        if name not in self.config and name not in stored.config:
            return name
        return f"{name} {self.config.get(name, 'unset')} instead of {stored.config.get(name, 'unset')}"


def identity(cfg: CfgNode, weights: str = "", data: TriDataset | None = None) -> Identity:
    """The run of a config from MODEL.WEIGHTS or `weights` (of stage 1), with its data set where that is read already."""
    return Identity(_config_of(cfg), {"train": _data_of(cfg, data)._asdict()}, _inputs_of(cfg, weights))


def _inputs_of(cfg: CfgNode, weights: str) -> dict[str, str]:
    names = {key: value for key, value in flat(cfg).items() if key in FILES}
    names["MODEL.WEIGHTS"] = weights or names["MODEL.WEIGHTS"]
    if not cfg.MODEL.BACKBONE.PRETRAIN:
        names.pop("MODEL.BACKBONE.PRETRAIN_PATH")
    if not uses_text(cfg):
        names.pop("MODEL.TEXT.WEIGHTS")
    names = {key: str(weights_file(path)) if path else "" for key, path in names.items()}
    return {key: _sha256(path, os.stat(path).st_mtime_ns) for key, path in names.items() if os.path.isfile(path)}


def _config_of(cfg: CfgNode) -> dict[str, str]:
    files = {key for key, value in flat(cfg).items() if key in FILES and (not value or os.path.isfile(value))}
    left_out = {*files, *_BY_DATA, "MODEL.WEIGHTS"}
    return {key: value for key, value in recipe(cfg).items() if key not in left_out}


def _data_of(cfg: CfgNode, data: TriDataset | None) -> Fingerprint:
    text = uses_text(cfg) and reads_captions(cfg, training=True)
    data = data or build_dataset(cfg, cfg.DATASETS.NAMES[0], text, verbose=False)
    return fingerprint(data, [*data.train_rgb, *data.train_ir], text)


@functools.lru_cache(maxsize=64)
def _sha256(path: str, time: int) -> str:
    return sha256_of(path)


def write_run(folder: str, made: Identity, cfg: CfgNode) -> None:
    """Write run.json: the identity, and what else there is to know of a run."""
    described = {
        "identity": asdict(made),
        "seed": cfg.SEED,
        "preset": cfg.TVILFM.PRESET,
        "device": _device_name(cfg.MODEL.DEVICE),
        "processes": comm.get_world_size(),
        "code": version_of_software(),
        "python": platform.python_version(),
        "packages": {name: version_of_software(name) for name in PACKAGES},
        "config": cfg.dump(),
    }
    write_text(os.path.join(folder, RUN), json.dumps(described, indent=1) + "\n")


def read_run(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """run.json of a folder; empty where there is none."""
    path = os.path.join(folder, RUN)
    if not os.path.isfile(path):
        return {}
    try:
        described = expect_object(read_json(path), path)
        checked(described.get("identity"), _Stored, path)
        return described
    except ValueError as error:
        raise RunDiffersError(
            f"{path} cannot be read, so nothing says how this run was made: restore the file, or start anew in another "
            f"OUTPUT_DIR. ({error})"
        ) from None


def what_differs(cfg: CfgNode, weights: str = "") -> list[str] | None:
    """In what the run in OUTPUT_DIR was made otherwise than a config says; None where no run.json says how.

    Where the data set is not at hand, as for a table of runs that came from another machine, the rest is compared.
    """
    stored = read_run(cfg.OUTPUT_DIR)
    if not stored:
        return None
    try:
        now = identity(cfg, weights)
    except FileNotFoundError:
        now = Identity(_config_of(cfg), {}, _inputs_of(cfg, weights))
    return now.differences(Identity(**stored["identity"]))


def refuse_another_run(cfg: CfgNode, weights: str, data: TriDataset) -> None:
    """Raise where the run in OUTPUT_DIR would be resumed although it was made otherwise than the config says.

    The config.yaml that the refused start wrote there is put back to what the run was made with. A larger SOLVER.MAX_EPOCH
    makes the run longer, if the epochs that are done would have been the same.
    """
    stored = read_run(cfg.OUTPUT_DIR)
    if not stored:
        return
    now, then = identity(cfg, weights, data), Identity(**stored["identity"])
    different = now.differences(then)
    longer = different == ["SOLVER.MAX_EPOCH"] and int(then.config["SOLVER.MAX_EPOCH"]) < cfg.SOLVER.MAX_EPOCH
    if longer and cfg.SOLVER.SCHED in _OPEN_ENDED:
        _make_longer(cfg, Identity(now.config, then.data, then.inputs), int(then.config["SOLVER.MAX_EPOCH"]))
    elif different:
        path = os.path.join(cfg.OUTPUT_DIR, "config.yaml")
        if comm.is_main_process() and os.path.isfile(path) and "config" in stored:
            write_text(path, stored["config"])
        said = "; ".join(now.said(then, name) for name in different[:6])
        said += " ..." if len(different) > 6 else ""
        said += f" (and all rates of SOLVER.SCHED {cfg.SOLVER.SCHED} depend on it)" if longer else ""
        raise RunDiffersError(
            f"The run in {cfg.OUTPUT_DIR} cannot be resumed, for it was made otherwise: {said}. Give the values that it was "
            "made with (config.yaml lies beside it), or start anew in another OUTPUT_DIR."
        )


def _make_longer(cfg: CfgNode, made: Identity, epochs: int) -> None:
    """Nothing takes a run for finished that trains on: its final weights become the checkpoint of the last of `epochs`."""
    comm.synchronize()  # all have read run.json
    final, pointer = (os.path.join(cfg.OUTPUT_DIR, name) for name in ("model_final.pth", "last_checkpoint"))
    if comm.is_main_process():
        if os.path.isfile(final) and read_text(pointer).strip() == "model_final.pth":
            name = f"model_{epochs - 1:04d}.pth"
            shutil.copyfile(final, os.path.join(cfg.OUTPUT_DIR, name))  # at no moment is there none that last_checkpoint names
            write_text(pointer, name)
            os.remove(final)
        write_run(cfg.OUTPUT_DIR, made, cfg)
    comm.synchronize()


def _device_name(device: str) -> str:
    on_gpu = device.startswith("cuda") and torch.cuda.is_available()
    return torch.cuda.get_device_name() if on_gpu else device if not device.startswith("cuda") else "cpu"


# --- the config's part ------------------------------------------------------------------------------------------------

# Keys, or beginnings of keys, that may differ between two runs that compute the same weights.
_INCIDENTAL = (
    "OUTPUT_DIR",
    "MODEL.DEVICE",
    "DATALOADER.NUM_WORKERS",
    "DATASETS.CACHE",
    "DATASETS.TOKEN_CACHE",
    "DATASETS.GALLERY",
    "DATASETS.MODES",
    "DATASETS.RULES",
    "DATASETS.SHOTS",
    "DATASETS.TESTS",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.EPOCH_RULE",
    "SOLVER.KEEP_MEMORY",
    "SOLVER.LOG_PERIOD",
    "TEST.",
    "TRACKING.",
    "TVILFM.BANK.MAX_GB",
    "TVILFM.MEMBERS",
    "TVILFM.OVERRIDES",
    "TVILFM.STAGE1",
)
# What a model without text does not read: an ablation of stage 2 on the command line needs no new stage 1.
_TEXT_ONLY = ("TVILFM.", "MODEL.TEXT.", "SOLVER.TEXT_", "INPUT.REPHRASE_PROB")


def recipe(cfg: CfgNode) -> dict[str, str]:
    """What determines the weights of a stage: full key -> value as text."""
    skipped = _INCIDENTAL if uses_text(cfg) else _INCIDENTAL + _TEXT_ONLY
    found = {
        key: str(list(value) if isinstance(value, tuple) else value)
        for key, value in sorted(flat(cfg).items())
        if not key.startswith(skipped)
    }
    if cfg.SOLVER.EPOCH_RULE != "last":
        found["SOLVER.EPOCH_RULE"] = f"{cfg.SOLVER.EPOCH_RULE}, every {cfg.TEST.EVAL_PERIOD} epochs"
    return found
