"""Several processes, on GPUs or on the CPU, and scripts written for fast-reid."""

import builtins
import contextlib
import importlib.util
import io
import os
import socket
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tvilfm_plugin import compat


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple = (),
) -> None:
    """fast-reid's `launch`, with CPU processes (gloo) where there is no GPU; the original asserts CUDA and NCCL.

    Each process imports this package, and so applies the fixes, before anything else of the job.

    Args:
        main_func: called as `main_func(*args)` in every process; must pickle.
        num_gpus_per_machine: processes on each machine.
        num_machines: machines of the job; this function is called on each.
        machine_rank: number of this machine.
        dist_url: where the processes meet, e.g. "tcp://127.0.0.1:8686"; "auto" or None takes a free local port.
        args: arguments of `main_func`.
    """
    world_size = num_machines * num_gpus_per_machine
    if world_size <= 1:
        main_func(*args)
        return
    if torch.cuda.is_available() and num_gpus_per_machine > torch.cuda.device_count():
        raise ValueError(
            f"--num-gpus {num_gpus_per_machine}, but this machine has {torch.cuda.device_count()}. "
            "Lower it, or hide the GPUs (CUDA_VISIBLE_DEVICES=) to run that many processes on the CPU."
        )
    if dist_url in (None, "auto"):
        if num_machines > 1:
            raise ValueError("--dist-url auto is for one machine; give every machine tcp://HOST:PORT of machine 0.")
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    mp.spawn(
        _worker,
        nprocs=num_gpus_per_machine,
        args=(main_func, world_size, num_gpus_per_machine, machine_rank, dist_url, args),
        daemon=False,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _worker(
    local_rank: int,
    main_func: Callable[..., Any],
    world_size: int,
    per_machine: int,
    machine_rank: int,
    dist_url: str,
    args: tuple,
) -> None:
    """One process: join the others, form the group of this machine, which fast-reid's `comm` asks for, and work."""
    from fastreid.utils import comm

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        # Before the first collective, or NCCL takes GPU 0 for everybody.
        torch.cuda.set_device(local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // per_machine))
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=dist_url,
        world_size=world_size,
        rank=machine_rank * per_machine + local_rank,
    )
    comm.synchronize()
    for machine in range(world_size // per_machine):
        group = dist.new_group(list(range(machine * per_machine, (machine + 1) * per_machine)))
        if machine == machine_rank:
            comm._LOCAL_PROCESS_GROUP = group
    main_func(*args)
    # Only after success: a process that failed must end now, not wait for the others.
    comm.synchronize()
    dist.destroy_process_group()


# --- scripts written for fast-reid -----------------------------------------------------------------------------------


@contextlib.contextmanager
def stand_ins(launch_function: Callable[..., None] = launch) -> Iterator[None]:
    """Put ours under the names that a script imports from fast-reid, and our keys into its default config."""
    compat.require_host()
    import fastreid.data
    import fastreid.engine
    import fastreid.evaluation
    from fastreid.config import defaults as config_defaults

    from tvilfm_plugin import host
    from tvilfm_plugin.config import add_tvilfm_config
    from tvilfm_plugin.engine import TriTrainer

    config = config_defaults._C.clone()
    add_tvilfm_config(config)
    engine = {"DefaultTrainer": TriTrainer, "default_setup": host.default_setup}
    loaders = {"build_reid_train_loader": host.build_train_loader, "build_reid_test_loader": host.build_test_loader}
    evaluator = {"ReidEvaluator": host.PythonRankEvaluator}
    with contextlib.ExitStack() as stack:
        stack.enter_context(compat.lend(config_defaults, _C=config))
        stack.enter_context(compat.lend(fastreid.engine, launch=launch_function, **engine))
        # `fastreid.engine.launch` is the function: the package's star import hides the module of that name.
        stack.enter_context(compat.lend(sys.modules["fastreid.engine.launch"], launch=launch_function))
        stack.enter_context(compat.lend(sys.modules["fastreid.engine.defaults"], **engine, **loaders, **evaluator))
        for module in (fastreid.data, sys.modules["fastreid.data.build"]):
            stack.enter_context(compat.lend(module, **loaders))
        for module in (fastreid.evaluation, sys.modules["fastreid.evaluation.reid_evaluation"]):
            stack.enter_context(compat.lend(module, **evaluator))
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
