"""Scripts written for fast-reid, with the plugin loaded."""

import builtins
import contextlib
import importlib.util
import io
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tvilfm_plugin.host import importing, presence
from tvilfm_plugin.host.launch import launch
from tvilfm_plugin.host.replacing import lend


@contextlib.contextmanager
def stand_ins(launch_function: Callable[..., None] = launch) -> Iterator[None]:
    """Put ours under the names that a script imports from fast-reid, and our keys into its default config."""
    presence.require_host()
    import fastreid.data
    import fastreid.engine
    import fastreid.evaluation
    from fastreid.config import defaults as config_defaults

    from tvilfm_plugin.config import add_tvilfm_config
    from tvilfm_plugin.host.loaders import build_test_loader, build_train_loader
    from tvilfm_plugin.host.setup import default_setup
    from tvilfm_plugin.host.trainer import PythonRankEvaluator

    config = config_defaults._C.clone()
    add_tvilfm_config(config)
    engine = {"DefaultTrainer": importing.provided["trainer"](), "default_setup": default_setup}
    loaders = {"build_reid_train_loader": build_train_loader, "build_reid_test_loader": build_test_loader}
    evaluator = {"ReidEvaluator": PythonRankEvaluator}
    with contextlib.ExitStack() as stack:
        stack.enter_context(lend(config_defaults, _C=config))
        stack.enter_context(lend(fastreid.engine, launch=launch_function, **engine))
        # `fastreid.engine.launch` is the function: the package's star import hides the module of that name.
        stack.enter_context(lend(sys.modules["fastreid.engine.launch"], launch=launch_function))
        stack.enter_context(lend(sys.modules["fastreid.engine.defaults"], **engine, **loaders, **evaluator))
        for module in (fastreid.data, sys.modules["fastreid.data.build"]):
            stack.enter_context(lend(module, **loaders))
        for module in (fastreid.evaluation, sys.modules["fastreid.evaluation.reid_evaluation"]):
            stack.enter_context(lend(module, **evaluator))
        yield


class ScriptFunction:
    """A top-level function of a script, by name: what a spawned process can be sent and then find.

    The process imports this module, and so the plugin, to unpickle it; then it loads the script under an importable
    name.
    """

    def __init__(self, script: str, name: str) -> None:
        self.script, self.name = script, name

    def __call__(self, *args: Any) -> Any:
        with stand_ins():
            return getattr(_load(self.script), self.name)(*args)


def _load(script: str) -> types.ModuleType:
    """The script as a module whose `if __name__ == "__main__"` is false."""
    name = "tvilfm_plugin_script"
    spec = importlib.util.spec_from_file_location(name, script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def run_script(script: str, args: list[str]) -> dict[str, Any]:
    """Run a script of the shape of fast-reid's `tools/train_net.py` with the plugin loaded.

    Its code sees `__name__ == "__main__"`, while `sys.modules["__main__"]` stays what it is: else a spawned process
    would import the script as its main module, before the plugin.

    Args:
        script: its path.
        args: its command line.

    Returns:
        the script's names after it has run.
    """
    script = os.path.abspath(script)
    namespace: dict[str, Any] = {
        "__name__": "__main__",
        "__file__": script,
        "__builtins__": builtins,
        "__doc__": None,
        "__package__": None,
        "__spec__": None,
        "__loader__": None,
    }

    def launch_by_name(
        main_func: Callable[..., Any],
        num_gpus_per_machine: int,
        num_machines: int = 1,
        machine_rank: int = 0,
        dist_url: str | None = None,
        args: tuple = (),
    ) -> None:
        if num_machines * num_gpus_per_machine > 1 and getattr(main_func, "__module__", None) == "__main__":
            name = main_func.__name__
            if namespace.get(name) is not main_func:
                raise ValueError(
                    f"{script} launches {main_func.__qualname__}, which the other processes cannot find: "
                    "launch() needs a function defined at the top level of the script."
                )
            main_func = ScriptFunction(script, name)
        launch(main_func, num_gpus_per_machine, num_machines, machine_rank, dist_url, args)

    with io.open_code(script) as file:
        code = compile(file.read(), script, "exec", dont_inherit=True)
    argv, path = sys.argv, list(sys.path)
    sys.argv = [script, *args]
    sys.path.insert(0, str(Path(script).parent))
    try:
        with stand_ins(launch_by_name):
            exec(code, namespace)
    finally:
        sys.argv, sys.path[:] = argv, path
    return namespace
