"""What fast-reid 1.4.0 looks up by name deep inside its own functions, replaced when the module that holds it is imported.

Each patch replaces one name once, keeps the original (`replacing.original`), and says why no subclass could do it.
"""

import importlib
import importlib.util
import logging
import os
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tvilfm_plugin.host.replacing import around, replace


def normalise_out_of_place(meta_arch: types.ModuleType) -> None:
    """`preprocess_image` normalises the caller's batch in place; the flip test passes it twice (features 34 % off).

    Why a patch: the two passes are inside `inference_on_dataset`, the normalisation is in registered models.
    """

    @around(getattr(meta_arch, "MGN" if hasattr(meta_arch, "MGN") else "Baseline"), "preprocess_image")
    def keep_batch(preprocess: Callable[[Any, Any], torch.Tensor], self: Any, batched_inputs: Any) -> torch.Tensor:
        if isinstance(batched_inputs, dict):
            batched_inputs = {**batched_inputs, "images": batched_inputs["images"].clone()}
        elif isinstance(batched_inputs, torch.Tensor):
            batched_inputs = batched_inputs.clone()
        return preprocess(self, batched_inputs)


def rerank_on_cpu(compute_dist: types.ModuleType) -> None:
    """Re-ranking calls `.cuda()` and GPU faiss; the declared dependency is faiss-cpu.

    (And faiss 1.15 renamed the pointer cast that the GPU search uses.) fast-reid has a CPU search too (option 3),
    which nothing selects. `k1` is cut to the number of rows: faiss pads what is missing with -1, which then indexes
    the last row. Why a patch: `build_dist` inside `ReidEvaluator.evaluate` calls it.
    """

    @around(compute_dist, "compute_jaccard_distance")
    def cpu_search(
        jaccard: Callable[..., np.ndarray],
        features: torch.Tensor,
        k1: int = 20,
        k2: int = 6,
        search_option: int = 3,
        fp16: bool = False,
    ) -> np.ndarray:
        return jaccard(features.cpu(), k1=min(k1, len(features)), k2=k2, search_option=3, fp16=fp16)


def accept_old_affine_arguments(build: types.ModuleType) -> None:
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

    replace(build, "T", with_old_affine)


def read_backbone_files_afresh(module: types.ModuleType) -> None:
    """RegNet and EffNet open `fastreid/modeling/...yaml` relative to the current folder; they are in the package.

    And they read it into one global config that keeps what the last file said: RegNetX, whose files do not mention SE_ON,
    would get the squeeze-and-excitation of a RegNetY built before it. Now every file is read onto the defaults.
    Why a patch: the path is a literal inside the registered builder.
    """
    config = module.cfg
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


def explain_missing_pretrained_weights(backbone: types.ModuleType) -> None:
    """`PRETRAIN True` without a path imports gdown first, which is not a dependency, even if the file is already there.

    With the file in torch's cache it now loads; without it the error names the file, the address and the choices.
    Why a patch: the import is inside a function of five backbones.
    """

    @around(backbone, "init_pretrained_weights")
    def without_gdown(load: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if importlib.util.find_spec("gdown") is not None:
            return load(*args, **kwargs)
        stand_in = types.ModuleType("gdown")
        stand_in.download = _refuse_download  # type: ignore[attr-defined]
        sys.modules["gdown"] = stand_in
        try:
            return load(*args, **kwargs)
        finally:
            del sys.modules["gdown"]


def _refuse_download(url: str, output: str, **_: Any) -> None:
    raise FileNotFoundError(
        f"MODEL.BACKBONE.PRETRAIN is True and MODEL.BACKBONE.PRETRAIN_PATH is empty: {output} does not exist, and "
        f"without gdown it cannot be downloaded. Put {url} there, or set MODEL.BACKBONE.PRETRAIN_PATH to a local file, "
        "or `pip install gdown`, or start from random weights with MODEL.BACKBONE.PRETRAIN False."
    )


def log_every_line_once(module: types.ModuleType) -> None:
    """`setup_logger` adds its handlers for every new combination of arguments, so a second call doubles every line.

    Now a stream has one handler per logger, and handlers of closed streams go. Why a patch: `DefaultTrainer` and
    `default_setup` call it by name.
    """

    @around(module, "setup_logger")
    def one_handler_per_stream(setup: Callable[..., logging.Logger], *args: Any, **kwargs: Any) -> logging.Logger:
        log = setup(*args, **kwargs)
        seen: set[int] = set()
        for handler in list(log.handlers):
            stream = getattr(handler, "stream", handler)
            if id(stream) in seen or getattr(stream, "closed", False):
                log.removeHandler(handler)
            seen.add(id(stream))
        return log


def compile_nothing(reid_evaluation: types.ModuleType) -> None:
    """`ReidEvaluator` runs `make` in site-packages, or ends the process; now it ranks in Python, or with what is compiled.

    Why a patch: the constructor calls it, wherever an evaluator is made.
    """
    replace(reid_evaluation.ReidEvaluator, "_compile_dependencies", lambda compiling: lambda self: None)


def silence_known_warnings() -> None:
    """Deprecations inside fast-reid that compute the right thing, repeat in every worker, and ask nothing of the user."""
    for message in ("TypedStorage is deprecated", "This overload of addmm_ is deprecated", ".*broadcast_buffers"):
        warnings.filterwarnings("ignore", message=message)
