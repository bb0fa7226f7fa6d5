"""The only file that knows where fast-reid 1.4.0 and today's Python, torch and torchvision disagree."""

import collections
import collections.abc
import importlib
import sys
import types

import torch

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


def provide_removed_names() -> None:
    """`torch._six` (gone since torch 2.0) and `collections.Mapping` (gone since Python 3.10) are imported by fast-reid."""
    if "torch._six" not in sys.modules:
        six = types.ModuleType("torch._six")
        six.string_classes = (str, bytes)  # type: ignore[attr-defined]
        sys.modules["torch._six"] = six
    if not hasattr(collections, "Mapping"):
        collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]


def apply() -> None:
    """Everything that must happen before fast-reid is imported."""
    declare_torchvision_operators()
    provide_removed_names()
