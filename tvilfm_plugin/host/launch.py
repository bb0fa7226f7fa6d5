"""Several processes, on GPUs or on the CPU."""

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


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
