"""Importing the host: what it needs, what it costs, who may be first."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("fastreid")


from tvilfm_plugin.host import mends, replacing

ROOT = Path(__file__).parents[2]


def python(code: str) -> list[str]:
    """Run code in a new interpreter at the root of the checkout; returns the lines it prints."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_import_needs_each_of_the_early_fixes():
    lines = python("""
        import importlib, importlib.util, sys

        spec = importlib.util.spec_from_file_location("gaps_alone", "tvilfm_plugin/host/gaps.py")
        gaps = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(gaps)

        def attempt(module):
            for name in [name for name in sys.modules if name.split(".")[0] == "fastreid"]:
                del sys.modules[name]
            try:
                importlib.import_module(module)
                print("imported")
            except (ImportError, RuntimeError) as error:
                print(error)
                gaps.declare_torchvision_operators(error)

        attempt("torchvision")
        attempt("fastreid.data.build")
        gaps.provide_torch_six()
        attempt("fastreid.data.build")
        gaps.provide_collections()
        attempt("fastreid.data.build")
        attempt("torchvision")
    """)
    torchvision, six, mapping, works, again = lines
    assert torchvision == "imported" or "torchvision::nms" in torchvision  # a CPU build of torchvision imports
    assert "torch._six" in six
    assert "Mapping" in mapping
    assert works == again == "imported"


def test_importing_the_plugin_costs_nothing_and_brings_everything_with_the_host():
    lines = python("""
        import sys
        import tvilfm_plugin
        print(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "numpy", "fastreid", "yacs", "torchvision"}))
        import torchvision
        from fastreid.data.datasets import DATASET_REGISTRY
        from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
        from torch._six import container_abcs, int_classes, string_classes
        found = DATASET_REGISTRY.get("TriSYSUMM01"), META_ARCH_REGISTRY.get("TVILFM")
        print(*(kind.__name__ for kind in found), "fastreid.engine" in sys.modules)
        print(torchvision.__loader__.__class__.__name__, torchvision.__spec__.loader.__class__.__name__)
    """)
    assert lines == ["[]", "TriSYSUMM01 TVILFM False", "SourceFileLoader SourceFileLoader"]


def test_a_search_loads_neither_compiler_nor_engine_nor_what_others_of_open_clip_want():
    lines = python("""
        import sys
        from tvilfm_plugin.retrieval.retriever import Retriever
        print(Retriever.from_pretrained("example").embed_texts(["a man in a red jacket"]).shape)
        print(sorted({"torch._dynamo", "fastreid.engine", "sklearn", "open_clip", "timm", "transformers"} & set(sys.modules)))
        from torchvision.ops.roi_align import is_compile_supported
        supported = is_compile_supported("cpu")
        from torch._dynamo import utils
        print(supported == utils.is_compile_supported("cpu"), hasattr(utils, "counters"))
    """)
    assert lines[1:] == ["[]", "True True"]


def test_the_host_may_be_there_before_the_plugin():
    lines = python("""
        import collections, collections.abc, sys, types, torch
        collections.Mapping = collections.abc.Mapping
        sys.modules["torch._six"] = types.SimpleNamespace(string_classes=(str, bytes))
        try:
            import torchvision
        except RuntimeError:
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]
            library = torch.library.Library("torchvision", "FRAGMENT")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from fastreid.engine import DefaultTrainer, hooks
        from fastreid.data.datasets import DATASET_REGISTRY
        import tvilfm_plugin
        import fastreid.data, fastreid.engine
        print(fastreid.engine.launch.__module__, DATASET_REGISTRY.get("TriSYSUMM01").__name__)
        print(DefaultTrainer is fastreid.engine.DefaultTrainer, hasattr(hooks.EvalHook, "_evaluated_epoch"))
        print(fastreid.data.build_reid_train_loader.__module__)
    """)
    assert lines == ["tvilfm_plugin.host.launch TriSYSUMM01", "True True", "tvilfm_plugin.host.loaders"]


@pytest.mark.parametrize("first", ["modeling.backbones", "data.datasets.sysu_mm01", "engine.trainer", "modeling.mip.mip"])
def test_any_module_may_be_the_first(first):
    lines = python(f"""
        import importlib
        importlib.import_module("tvilfm_plugin.{first}")
        from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
        from fastreid.data.datasets import DATASET_REGISTRY
        print(DATASET_REGISTRY.get("TriSYSUMM01").__name__, META_ARCH_REGISTRY.get("MIP").__name__)
    """)
    assert lines == ["TriSYSUMM01 MIP"]


def test_without_fastreid_the_core_imports_and_the_rest_names_the_command():
    lines = python("""
        import importlib, importlib.machinery

        find = importlib.machinery.PathFinder.find_spec
        hide = lambda name, *rest: None if name.split(".")[0] == "fastreid" else find(name, *rest)
        importlib.machinery.PathFinder.find_spec = hide
        import tvilfm_plugin.modality
        import tvilfm_plugin.evaluation.ranking
        from tvilfm_plugin.host import presence
        from tvilfm_plugin.host.scripts import run_script

        print(presence.host_available())
        needs = {
            "attribute": lambda: tvilfm_plugin.TriTrainer,
            "module": lambda: importlib.import_module("tvilfm_plugin.engine.trainer"),
            "fastreid": lambda: importlib.import_module("fastreid.engine"),
            "script": lambda: run_script("tests/stock_script.py", []),
        }
        for name, act in needs.items():
            try:
                act()
                print(name, "works")
            except ImportError as error:
                print(presence.INSTALL_COMMAND in str(error))
    """)
    assert lines == ["False", "True", "True", "True", "True"]


def test_applying_twice_changes_nothing():
    names = [(owner, name, getattr(owner, name)) for owner, name in replacing._originals]
    assert names
    mends.apply()
    assert all(getattr(owner, name) is value for owner, name, value in names)
