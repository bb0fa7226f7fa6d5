"""Where fast-reid 1.4.0 and today's Python, torch, torchvision and faiss disagree, and what is done about each.

Three kinds of remedy, in the order in which they are preferred:

* subclasses and builders, in `tvilfm_plugin.host` (they need fast-reid; this module hands them on by name);
* fixes that must happen before fast-reid can be imported: `apply_before_import`;
* patches of what fast-reid looks up by name deep inside its own functions: `apply_after_import`. Each replaces one
  name once, keeps the original (`original(...)`), and says why no subclass could do it.

The module itself imports without fast-reid.
"""

import collections
import collections.abc
import contextlib
import functools
import importlib
import importlib.machinery
import importlib.util
import logging
import multiprocessing
import os
import random
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

logger = logging.getLogger("fastreid." + __name__)

INSTALL_COMMAND = "pip install --no-deps fastreid==1.4.0"

# What `tvilfm_plugin.host` defines and this module hands on.
_FROM_HOST = (
    "CompatTrainer",
    "AtomicCheckpointer",
    "PythonRankEvaluator",
    "build_optimizer",
    "build_test_loader",
    "build_train_loader",
    "contiguous_optimizer",
    "default_setup",
)


def __getattr__(name: str) -> Any:
    if name in _FROM_HOST:
        require_host()
        return getattr(importlib.import_module("tvilfm_plugin.host"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# --- is the host there? ----------------------------------------------------------------------------------------------


def host_available() -> bool:
    """Whether fast-reid is installed (or already imported)."""
    return "fastreid" in sys.modules or importlib.machinery.PathFinder.find_spec("fastreid") is not None


def require_host() -> None:
    """Raise an ImportError that names the installation command where fast-reid is missing."""
    if not host_available():
        raise ModuleNotFoundError(_missing_host(), name="fastreid")


def _missing_host() -> str:
    return (
        "This part of tvilfm_plugin needs fast-reid, which is not installed. Its pinned requirements (torch==1.13.1) "
        f"cannot be met, so install it without them: {INSTALL_COMMAND}"
    )


class _MissingHost:
    """Last entry of `sys.meta_path` where fast-reid is missing: `import fastreid` then says how to install it."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name == "fastreid":
            raise ModuleNotFoundError(_missing_host(), name=name)


def explain_missing_host() -> None:
    """Let every `import fastreid`, also one in a module of ours, name the command; "No module named" would not help."""
    if _MissingHost not in sys.meta_path:
        sys.meta_path.append(_MissingHost)  # type: ignore[arg-type]


# --- before fast-reid is imported ------------------------------------------------------------------------------------

_torchvision_library = None


def declare_torchvision_operators() -> None:
    """PyPI's torchvision is a CUDA build: next to a CPU torch its import stops at two undeclared operators."""
    global _torchvision_library
    try:
        importlib.import_module("torchvision")
        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    _torchvision_library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        _torchvision_library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    importlib.import_module("torchvision")


def provide_torch_six() -> None:
    """`torch._six` (gone since torch 2.0) is imported by fast-reid's loaders."""
    if importlib.util.find_spec("torch._six") is None and "torch._six" not in sys.modules:
        six = types.ModuleType("torch._six")
        six.string_classes = (str, bytes)  # type: ignore[attr-defined]
        six.__spec__ = importlib.machinery.ModuleSpec("torch._six", None)
        sys.modules["torch._six"] = six


def provide_collections_mapping() -> None:
    """`collections.Mapping` (gone since Python 3.10) is imported by fast-reid's loaders and evaluation."""
    if not hasattr(collections, "Mapping"):
        collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]


def apply_before_import() -> None:
    """Everything without which `import fastreid.engine` fails. Safe to call again."""
    declare_torchvision_operators()
    provide_torch_six()
    provide_collections_mapping()


# --- after fast-reid is imported -------------------------------------------------------------------------------------

_originals: dict[tuple[Any, str], Any] = {}


def _replace(owner: Any, name: str, replacement: Callable[[Any], Any]) -> None:
    """Replace `owner.name` by `replacement(its value)`, once."""
    if (owner, name) not in _originals:
        _originals[owner, name] = getattr(owner, name)
        setattr(owner, name, replacement(_originals[owner, name]))


def original(owner: Any, name: str) -> Any:
    """What `owner.name` was in fast-reid before a patch replaced it."""
    return _originals.get((owner, name)) or getattr(owner, name)


@contextlib.contextmanager
def lend(owner: Any, **names: Any) -> Iterator[None]:
    """Replace names of a module for the duration of a block; for code of the host that looks them up while it runs."""
    before = {name: getattr(owner, name) for name in names}
    try:
        for name, value in names.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def normalise_out_of_place() -> None:
    """`preprocess_image` normalises the caller's batch in place; the flip test passes it twice (features 34 % off).

    Why a patch: the two passes are inside `inference_on_dataset`, the normalisation is in registered models.
    """

    def keep_batch(preprocess: Callable[[Any, Any], torch.Tensor]) -> Callable[[Any, Any], torch.Tensor]:
        @functools.wraps(preprocess)
        def preprocess_image(self: Any, batched_inputs: Any) -> torch.Tensor:
            if isinstance(batched_inputs, dict):
                batched_inputs = {**batched_inputs, "images": batched_inputs["images"].clone()}
            elif isinstance(batched_inputs, torch.Tensor):
                batched_inputs = batched_inputs.clone()
            return preprocess(self, batched_inputs)

        return preprocess_image

    for module, model in (("baseline", "Baseline"), ("mgn", "MGN")):
        owner = getattr(importlib.import_module(f"fastreid.modeling.meta_arch.{module}"), model)
        _replace(owner, "preprocess_image", keep_batch)


def rerank_on_cpu() -> None:
    """Re-ranking calls `.cuda()` and GPU faiss; the declared dependency is faiss-cpu.

    (And faiss 1.15 renamed the pointer cast that the GPU search uses.) fast-reid has a CPU search too (option 3),
    which nothing selects. `k1` is cut to the number of rows: faiss pads what is missing with -1, which then indexes
    the last row. Why a patch: `build_dist` inside `ReidEvaluator.evaluate` calls it.
    """

    def cpu_search(jaccard: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        @functools.wraps(jaccard)
        def compute_jaccard_distance(
            features: torch.Tensor, k1: int = 20, k2: int = 6, search_option: int = 3, fp16: bool = False
        ) -> np.ndarray:
            return jaccard(features.cpu(), k1=min(k1, len(features)), k2=k2, search_option=3, fp16=fp16)

        return compute_jaccard_distance

    _replace(importlib.import_module("fastreid.utils.compute_dist"), "compute_jaccard_distance", cpu_search)


def accept_old_affine_arguments() -> None:
    """`INPUT.AFFINE` passes `resample=` and `fillcolor=`; torchvision calls them `interpolation=` and `fill=` now.

    Why a patch: the call is in the middle of `build_transforms`. torchvision itself is left alone: fast-reid's module
    gets a copy of the namespace in which one name differs.
    """

    def with_old_affine(transforms: types.ModuleType) -> types.ModuleType:
        def random_affine(*args: Any, resample: Any = None, fillcolor: Any = 0, **kwargs: Any) -> Any:
            # fast-reid's only value of `resample` is False, i.e. nearest, which is the default of `interpolation`.
            return transforms.RandomAffine(*args, fill=fillcolor, **kwargs)

        copy = types.ModuleType(transforms.__name__)
        vars(copy).update(vars(transforms))
        copy.RandomAffine = random_affine  # type: ignore[attr-defined]
        return copy

    _replace(importlib.import_module("fastreid.data.transforms.build"), "T", with_old_affine)


def read_backbone_files_afresh() -> None:
    """RegNet and EffNet open `fastreid/modeling/...yaml` relative to the current folder; they are in the package.

    And they read it into one global config that keeps what the last file said: RegNetX, whose files do not mention SE_ON,
    would get the squeeze-and-excitation of a RegNetY built before it. Now every file is read onto the defaults.
    Why a patch: the path is a literal inside the registered builder.
    """
    config = importlib.import_module("fastreid.modeling.backbones.regnet.config").cfg
    parent = Path(importlib.import_module("fastreid").__path__[0]).parent
    if "merge_from_file" in vars(config):
        return
    defaults = config.clone()

    def merge_from_file(path: str) -> None:
        packaged = parent / path
        found = str(packaged) if not os.path.exists(path) and packaged.exists() else path
        config.merge_from_other_cfg(defaults)
        type(config).merge_from_file(config, found)

    # On the instance, past CfgNode.__setattr__, which adds keys; a subclass would not compare equal to its own
    # sub-nodes.
    vars(config)["merge_from_file"] = merge_from_file


def explain_missing_pretrained_weights() -> None:
    """`PRETRAIN True` without a path imports gdown first, which is not a dependency, even if the file is already there.

    With the file in torch's cache it now loads; without it the error names the file, the address and the choices.
    Why a patch: the import is inside a function of five backbones.
    """

    def without_gdown(load: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(load)
        def init_pretrained_weights(*args: Any, **kwargs: Any) -> Any:
            if importlib.util.find_spec("gdown") is not None:
                return load(*args, **kwargs)
            stand_in = types.ModuleType("gdown")
            stand_in.download = _refuse_download  # type: ignore[attr-defined]
            sys.modules["gdown"] = stand_in
            try:
                return load(*args, **kwargs)
            finally:
                del sys.modules["gdown"]

        return init_pretrained_weights

    for name in ("resnet", "resnext", "osnet", "regnet.regnet", "regnet.effnet"):
        backbone = importlib.import_module(f"fastreid.modeling.backbones.{name}")
        _replace(backbone, "init_pretrained_weights", without_gdown)


def _refuse_download(url: str, output: str, **_: Any) -> None:
    raise FileNotFoundError(
        f"MODEL.BACKBONE.PRETRAIN is True and MODEL.BACKBONE.PRETRAIN_PATH is empty: {output} does not exist, and "
        f"without gdown it cannot be downloaded. Put {url} there, or set MODEL.BACKBONE.PRETRAIN_PATH to a local file, "
        "or `pip install gdown`, or start from random weights with MODEL.BACKBONE.PRETRAIN False."
    )


def log_every_line_once() -> None:
    """`setup_logger` adds its handlers for every new combination of arguments, so a second call doubles every line.

    Now a stream has one handler per logger, and handlers of closed streams go. Why a patch: `DefaultTrainer` and
    `default_setup` call it by name.
    """

    def one_handler_per_stream(setup: Callable[..., logging.Logger]) -> Callable[..., logging.Logger]:
        @functools.wraps(setup)
        def setup_logger(*args: Any, **kwargs: Any) -> logging.Logger:
            log = setup(*args, **kwargs)
            seen: set[int] = set()
            for handler in list(log.handlers):
                stream = getattr(handler, "stream", handler)
                if id(stream) in seen or getattr(stream, "closed", False):
                    log.removeHandler(handler)
                seen.add(id(stream))
            return log

        return setup_logger

    _replace(importlib.import_module("fastreid.utils.logger"), "setup_logger", one_handler_per_stream)
    _replace(importlib.import_module("fastreid.engine.defaults"), "setup_logger", one_handler_per_stream)


def silence_known_warnings() -> None:
    """Deprecations inside fast-reid that compute the right thing, repeat in every worker, and ask nothing of the user."""
    for message in ("TypedStorage is deprecated", "This overload of addmm_ is deprecated", ".*broadcast_buffers"):
        warnings.filterwarnings("ignore", message=message)


PATCHES: tuple[Callable[[], None], ...] = (
    normalise_out_of_place,
    rerank_on_cpu,
    accept_old_affine_arguments,
    read_backbone_files_afresh,
    explain_missing_pretrained_weights,
    log_every_line_once,
    silence_known_warnings,
)


def apply_after_import() -> None:
    """The patches of fast-reid's modules; imports them. Safe to call again."""
    importlib.import_module("fastreid.engine")
    for patch in PATCHES:
        patch()


def apply() -> None:
    """Make fast-reid usable; without it, let its import name the installation command. Safe to call again."""
    apply_before_import()
    if host_available():
        apply_after_import()
    else:
        explain_missing_host()


# --- what the subclasses, and others, use ----------------------------------------------------------------------------


def seed_everything(seed: int | None) -> None:
    """Seed python, numpy and torch; None seeds at random, as fast-reid does."""
    seed = int.from_bytes(os.urandom(4), "big") if seed is None else seed % 2**32
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def usable_device(wanted: str | torch.device) -> torch.device:
    """The device for `MODEL.DEVICE`: the CPU (with a warning) if there is no GPU, the process's own GPU in DDP."""
    device = torch.device(wanted)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            logger.warning(f"MODEL.DEVICE is {wanted} but torch finds no GPU: using the CPU")
            return torch.device("cpu")
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.device("cuda", torch.cuda.current_device())
    return device


def collate(samples: Sequence[Any], where: str = "the sample") -> Any:
    """fast-reid's collation of a batch, except that what it cannot collate raises; the original returns None.

    Args:
        samples: one item per sample: tensors of one shape, numbers, strings, or dicts of these.
        where: what the error calls the item.
    """
    first = samples[0]
    if isinstance(first, Mapping):
        return {key: collate([sample[key] for sample in samples], f"{where}[{key!r}]") for key in first}
    if isinstance(first, torch.Tensor):
        return torch.stack(list(samples))
    if isinstance(first, float):
        return torch.tensor(samples, dtype=torch.float64)
    if isinstance(first, int):
        return torch.tensor(samples)
    if isinstance(first, (str, bytes)):
        return list(samples)
    raise TypeError(
        f"Cannot make a batch of {where}: it is a {type(first).__module__}.{type(first).__qualname__}. "
        "Return a torch.Tensor, int, float, str or a dict of these from the dataset's __getitem__."
    )


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch with every tensor on `device`; anything else as it is."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    return batch


def worker_context(num_workers: int) -> str | None:
    """How loader workers start: forked also inside launched children.

    There the default is *spawn*, for which each worker imports everything again (5 s) and the dataset must pickle.
    """
    launched = multiprocessing.parent_process() is not None
    return "fork" if num_workers and launched and "fork" in multiprocessing.get_all_start_methods() else None


class DeviceLoader(DataLoader):
    """A plain DataLoader whose batches arrive on a device; errors in a dataset reach the caller.

    fast-reid's own needs CUDA whatever MODEL.DEVICE says, and hangs for ever if its thread dies.
    """

    def __init__(self, dataset: Any, *, device: torch.device, num_workers: int = 0, **options: Any) -> None:
        options.setdefault("collate_fn", collate)
        super().__init__(
            dataset,
            num_workers=num_workers,
            pin_memory=device.type == "cuda",
            multiprocessing_context=worker_context(num_workers),
            **options,
        )
        self.device = device

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            yield to_device(batch, self.device)
