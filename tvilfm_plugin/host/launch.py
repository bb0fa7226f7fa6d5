"""Several processes, on GPUs or on the CPU, whoever starts them."""

import datetime
import functools
import os
import pickle
import socket
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tvilfm_plugin.host.processes import Place, place_from_environment
from tvilfm_plugin.host.rendezvous import agents_store
from tvilfm_plugin.host.replacing import replace

# While rank 0 evaluates, the others wait. NCCL would give up after ten minutes; whoever starts the processes ends them all
# when one has failed.
PATIENCE = datetime.timedelta(days=2)


def launch_anywhere(module: types.ModuleType) -> None:
    """`fastreid.engine.launch` is ours: the original asserts CUDA and NCCL, and knows neither torchrun nor SLURM."""
    replace(module, "launch", lambda original: launch)


def wait_for_long(comm: types.ModuleType) -> None:
    """The second group of processes, with which objects are gathered beside NCCL, is as patient as the first."""

    def patient(original: Callable[[], Any]) -> Callable[[], Any]:
        @functools.lru_cache
        def _get_global_gloo_group() -> Any:
            return dist.new_group(backend="gloo", timeout=PATIENCE) if dist.get_backend() == "nccl" else dist.group.WORLD

        return _get_global_gloo_group

    replace(comm, "_get_global_gloo_group", patient)


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple = (),
) -> None:
    """fast-reid's `launch`, with CPU processes (gloo) where there is no GPU.

    A process that torchrun or srun has started, as one of several, is one of the job's: it joins the others and starts no
    more. Otherwise the processes are spawned here, and each loads this package before anything else of the job.

    Args:
        main_func: called as `main_func(*args)` in every process; must pickle where processes are spawned.
        dist_url: where the processes meet, e.g. "tcp://127.0.0.1:8686"; "auto" or None takes a free local port.
    """
    world_size = num_machines * num_gpus_per_machine
    place = None if dist.is_available() and dist.is_initialized() else place_from_environment()
    if place is not None:
        if world_size not in (1, place.world_size):
            raise ValueError(
                f"This process is one of {place.world_size} that a launcher (torchrun or srun) has started, and asks for "
                f"{world_size} itself (--num-gpus {num_gpus_per_machine}, --num-machines {num_machines}). Leave these options "
                "away."
            )
        _work(place, main_func, args)
        return
    if world_size <= 1:
        main_func(*args)
        return
    _check_gpus(num_gpus_per_machine, "--num-gpus")
    if dist_url in (None, "auto"):
        if num_machines > 1:
            raise ValueError("--dist-url auto is for one machine; give every machine tcp://HOST:PORT of machine 0.")
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    _check_pickles(main_func)
    mp.spawn(
        _spawned,
        nprocs=num_gpus_per_machine,
        args=(main_func, world_size, num_gpus_per_machine, machine_rank, dist_url, args),
        daemon=False,
    )


def _check_gpus(processes: int, where: str) -> None:
    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise ValueError(
            f"{where} {processes}, but this machine has {torch.cuda.device_count()}. "
            "Lower it, or hide the GPUs (CUDA_VISIBLE_DEVICES=) to run that many processes on the CPU."
        )


def _check_pickles(main_func: Callable[..., Any]) -> None:
    try:
        pickle.dumps(main_func)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        name = getattr(main_func, "__qualname__", repr(main_func))
        raise ValueError(
            f"launch() cannot send {name} to the other processes ({error}): give it a function that is defined at the top "
            "level of the script or of a module."
        ) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _spawned(
    local_rank: int,
    main_func: Callable[..., Any],
    world_size: int,
    per_machine: int,
    machine_rank: int,
    dist_url: str,
    args: tuple,
) -> None:
    """What a spawned process does."""
    if not torch.cuda.is_available() and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // per_machine))
    rank = machine_rank * per_machine + local_rank
    _work(Place(rank, world_size, local_rank, str(machine_rank), dist_url), main_func, args)


def _work(place: Place, main_func: Callable[..., Any], args: tuple) -> None:
    """Join the others, form the group of this machine, which fast-reid's `comm` asks for, and work."""
    from fastreid.utils import comm

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        _check_gpus(place.local_rank + 1, "Processes on this machine:")
        # Before the first collective, or NCCL takes GPU 0 for everybody.
        torch.cuda.set_device(place.local_rank)
    store = agents_store(place.rank, place.world_size) if place.meeting == "env://" else None
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=place.meeting if store is None else None,
        store=store,
        world_size=place.world_size,
        rank=place.rank,
        timeout=PATIENCE,
    )
    comm.synchronize()
    machines: list[str] = [""] * place.world_size
    dist.all_gather_object(machines, place.machine)
    for machine in dict.fromkeys(machines):
        group = dist.new_group([rank for rank, where in enumerate(machines) if where == machine], timeout=PATIENCE)
        if machine == place.machine:
            comm._LOCAL_PROCESS_GROUP = group
    main_func(*args)
    # Only after success: a process that failed must end now, not wait for the others.
    comm.synchronize()
    dist.destroy_process_group()
