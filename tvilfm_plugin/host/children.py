"""Processes that this one starts load the plugin first, whatever starts them."""

import contextlib
import functools
import os
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tvilfm_plugin.host import importing

STARTUP = Path(__file__).with_name("startup")
# Set for the processes that a script starts: they get the stand-ins of the script, too.
MARK = "TVILFM_PLUGIN_SCRIPT"


class _Startup:
    """Unpickled, it runs `startup/sitecustomize.py`: where it is sent first, the plugin is there before the rest."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return runpy.run_path, (str(STARTUP / "sitecustomize.py"),)


def prepare_spawned() -> None:
    """What `multiprocessing` sends to a spawned child, or to one of a fork server, brings the plugin."""
    importing.after("multiprocessing.spawn", _send_startup)


def _send_startup() -> None:
    from multiprocessing import spawn

    prepare = spawn.get_preparation_data
    if hasattr(prepare, "__wrapped__"):
        return

    @functools.wraps(prepare)
    def get_preparation_data(name: str) -> dict[str, Any]:
        return {"tvilfm_plugin": _Startup(), **prepare(name)}

    spawn.get_preparation_data = get_preparation_data


@contextlib.contextmanager
def inherited() -> Iterator[None]:
    """Every Python process that is started in this block loads the plugin, with a script's stand-ins, before all else."""
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", MARK)}
    path = [entry for entry in (before["PYTHONPATH"] or "").split(os.pathsep) if entry and entry != str(STARTUP)]
    os.environ.update({"PYTHONPATH": os.pathsep.join([str(STARTUP), *path]), MARK: "1"})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})
