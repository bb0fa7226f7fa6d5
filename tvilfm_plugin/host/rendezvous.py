"""Where the processes of a job meet: also those of torchrun that it has started again."""

import datetime
import json
import os
import time
import uuid
from collections.abc import Callable

import torch.distributed as dist

# How long the first process waits for the last one.
MEETING = datetime.timedelta(minutes=30)
_POLL = 0.05


def agents_store(rank: int, world_size: int, timeout: datetime.timedelta = MEETING) -> dist.Store | None:
    """The store of torchrun's agent, in a part of it that only this life of the job uses; None where there is no agent.

    Workers that are started again find the addresses of their dead predecessors in the agent's store, and would connect to
    those. (The count of restarts is no help: on several machines each agent has its own.) So the first process names a
    part, and everybody is in it when the first process has seen them there.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True):
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(host, port, world_size, is_master=False, timeout=timeout)
    return dist.PrefixStore(agree(store, rank, world_size, timeout), store)


def agree(store: dist.Store, rank: int, world_size: int, timeout: datetime.timedelta = MEETING) -> str:
    """One name for all processes of a life, whatever earlier lives left in the store; a TimeoutError says who is missing."""
    end = time.monotonic() + timeout.total_seconds()
    own = uuid.uuid4().hex
    if rank == 0:
        name = f"tvilfm/{own}"
        store.set("tvilfm/life", name)
        others = {str(other): f"{name}/{other}" for other in range(1, world_size)}
        _wait(lambda: not others or store.check(list(others.values())), end, lambda: _missing(store, others))
        store.set(f"{name}/all", json.dumps([store.get(key).decode() for key in others.values()]))
        return name
    said = ""
    while True:
        _wait(lambda: store.check(["tvilfm/life"]), end, lambda: "0")
        name = store.get("tvilfm/life").decode()
        if name != said:
            store.set(f"{name}/{rank}", own)
            said = name
        # What an earlier life has left names others than this process.
        if store.check([f"{name}/all"]) and own in json.loads(store.get(f"{name}/all").decode()):
            return name
        if time.monotonic() > end:
            raise TimeoutError("Process 0 of this job did not come to the meeting. Look at its own output.")
        time.sleep(_POLL)


def _missing(store: dist.Store, keys: dict[str, str]) -> str:
    return ", ".join(rank for rank, key in keys.items() if not store.check([key]))


def _wait(there: Callable[[], bool], end: float, missing: Callable[[], str]) -> None:
    """Look again and again, at least once after a moment."""
    while True:
        time.sleep(_POLL)
        if there():
            return
        if time.monotonic() > end:
            raise TimeoutError(f"Process {missing()} of this job did not come to the meeting. Look at its own output.")
