"""Names that Python, torch and torchvision no longer have, and without which fast-reid cannot be imported."""

import collections
import collections.abc
import importlib
import importlib.machinery
import importlib.util
import sys
import types

# What holds the declared operators: they go with it.
_library = None
_DYNAMO = "torch._dynamo.utils"


def declare_torchvision_operators(error: Exception) -> bool:
    """Beside a CPU torch PyPI's torchvision stops at two undeclared operators; true if `error` was that: import it again."""
    global _library
    if _library is not None or not isinstance(error, RuntimeError) or "torchvision::" not in str(error):
        return False
    import torch

    for name in [name for name in sys.modules if name.startswith("torchvision.")]:
        del sys.modules[name]
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        _library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return True


def postpone_dynamo() -> None:
    """torchvision's `roi_align` imports torch's compiler (1.2 s of CPU) for one question, which only its own calls ask."""
    if _DYNAMO not in sys.modules:
        later = types.ModuleType(_DYNAMO)
        later.is_compile_supported = lambda kind: importlib.import_module(_DYNAMO).is_compile_supported(kind)  # type: ignore[attr-defined]
        sys.modules[_DYNAMO] = later


def end_postponing() -> None:
    """Whoever imports torch's compiler from now on gets it."""
    if getattr(sys.modules.get(_DYNAMO), "__spec__", None) is None:
        sys.modules.pop(_DYNAMO, None)


def provide_torch_six() -> None:
    """`torch._six` (gone since torch 2.0) is imported by fast-reid's loaders and by projects around it."""
    import math
    import queue

    import torch

    if "torch._six" in sys.modules or importlib.util.find_spec("torch._six") is not None:
        return
    six = types.ModuleType("torch._six", "Names of Python 2 and 3, as torch had them before 2.0.")
    vars(six).update(
        string_classes=(str, bytes), int_classes=int, container_abcs=collections.abc, inf=math.inf, nan=math.nan, queue=queue,
        FileNotFoundError=FileNotFoundError, PY3=True, PY37=True,
    )  # fmt: skip
    six.__spec__ = importlib.machinery.ModuleSpec("torch._six", None)
    sys.modules["torch._six"] = torch._six = six  # type: ignore[attr-defined]


def provide_collections() -> None:
    """`collections.Mapping` and its like (gone since Python 3.10) are imported by fast-reid's loaders and evaluation."""
    for name in collections.abc.__all__:
        if not hasattr(collections, name):
            setattr(collections, name, getattr(collections.abc, name))


def fill() -> None:
    """Everything without which `import fastreid.engine` fails. Safe to call again."""
    provide_torch_six()
    provide_collections()


def provide_gpu_faiss() -> None:
    """Projects around fast-reid search with GPU classes of faiss, which the declared dependency, faiss-cpu, lacks.

    They stand for its exact CPU indexes here: same results.
    """
    import faiss

    if hasattr(faiss, "StandardGpuResources"):
        return

    class Ignored:
        """GPU memory and options, where there is no GPU."""

        def __init__(self, *_: object) -> None: ...

        def __getattr__(self, name: str) -> object:
            return lambda *_: None

    for name in ("StandardGpuResources", "GpuIndexFlatConfig", "GpuClonerOptions", "GpuMultipleClonerOptions"):
        setattr(faiss, name, type(name, (Ignored,), {}))
    faiss.GpuIndexFlatL2 = lambda resources, dim, *options: faiss.IndexFlatL2(dim)
    faiss.GpuIndexFlatIP = lambda resources, dim, *options: faiss.IndexFlatIP(dim)
    faiss.index_cpu_to_gpu = lambda resources, device, index, *options: index
    faiss.index_cpu_to_all_gpus = lambda index, *options, **named: index
    faiss.index_cpu_to_gpu_multiple_py = lambda resources, index, *options: index
    faiss.index_gpu_to_cpu = lambda index: index
