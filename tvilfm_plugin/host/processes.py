"""Who this process is among those of a job, as torchrun or SLURM tell it by the environment."""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple


class Place(NamedTuple):
    """One process of a job."""

    rank: int
    world_size: int
    local_rank: int
    # Which machine; processes with equal names share one.
    machine: str
    # Where the processes meet, for `torch.distributed.init_process_group`.
    meeting: str


def place_from_environment(environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place that a launcher has given this process; None where it was started by hand, or alone."""
    for read in (_torchrun, _slurm):
        place = read(environment)
        if place is not None and place.world_size > 1:
            return place
    return None


def _number(environment: Mapping[str, str], name: str, launcher: str) -> int:
    try:
        return int(environment[name])
    except KeyError:
        raise ValueError(f"{launcher} has set some of its variables, but not {name}.") from None
    except ValueError:
        raise ValueError(f"{name} is {environment[name]!r}, where {launcher} sets a whole number.") from None


def _torchrun(environment: Mapping[str, str]) -> Place | None:
    """RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT: torchrun, and whatever sets the same."""
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= environment.keys():
        return None
    rank, world, local = (_number(environment, name, "torchrun") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    _number(environment, "MASTER_PORT", "torchrun")
    # Ranks of one machine are neighbours.
    machine = environment.get("GROUP_RANK") or str(rank - local)
    return Place(rank, world, local, machine, "env://")


def _slurm(environment: Mapping[str, str]) -> Place | None:
    """A step of srun. A batch script itself has a task number too, but no number of tasks of its step."""
    if "SLURM_STEP_NUM_TASKS" not in environment:
        return None
    names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NODEID")
    rank, world, local, node = (_number(environment, name, "SLURM") for name in names)
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or "127.0.0.1"
    host = environment.get("MASTER_ADDR") or first_host(nodes)
    # Jobs that share a machine must not share a port.
    steps = int(environment.get("SLURM_JOB_ID", 0)) * 31 + int(environment.get("SLURM_STEP_ID", 0))
    port = environment.get("MASTER_PORT") or str(20000 + steps % 20000)
    return Place(rank, world, local, str(node), f"tcp://{host}:{port}")


def first_host(nodes: str) -> str:
    """The first name of SLURM's short form of a list: "gpu[07-09,12],cpu1" -> "gpu07"."""
    found = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\]([^,]*))?", nodes.strip())
    if found is None:
        raise ValueError(f"SLURM's list of nodes is {nodes!r}: it names no host. Set MASTER_ADDR to that of the first task.")
    return "".join(part or "" for part in found.groups())
