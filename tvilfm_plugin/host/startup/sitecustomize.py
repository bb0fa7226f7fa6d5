"""Loads the plugin in a process before anything else runs there.

Python itself runs this file when it starts, where this folder stands on PYTHONPATH (a script that the plugin runs sets it,
so that whatever it starts has the plugin too); children of `multiprocessing` run it by its path.
"""

import importlib.machinery
import importlib.util
import os
import sys

_HERE = os.path.dirname(os.path.realpath(__file__))


def _load_plugin() -> None:
    """Import the package from where it lies: its folder need not be on the path of this process."""
    folder = os.path.dirname(os.path.dirname(_HERE))
    if "tvilfm_plugin" in sys.modules or sys.version_info < (3, 11):
        return
    spec = importlib.util.spec_from_file_location(
        "tvilfm_plugin", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tvilfm_plugin"] = module
    spec.loader.exec_module(module)


def _run_the_hidden_one() -> None:
    """Python runs one file of this name: the next one on the path would never have its turn."""
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or os.curdir) != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


_load_plugin()
if __name__ == "sitecustomize":
    _run_the_hidden_one()
