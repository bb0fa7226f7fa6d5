"""Text-enhanced visible-infrared person re-identification as a plugin to fast-reid.

Importing the package costs nothing. When fast-reid is first imported, what it lacks is provided, its public functions are
repaired, and our data sets and models are registered. Without fast-reid the core modules (evaluation, data, the modules of
modeling that hold no registered class) work all the same; without torch those that search an index do.
"""

import contextlib
import importlib
import os
from collections.abc import Callable
from typing import Any

from tvilfm_plugin.host import children, importing, presence

__version__ = "0.2.0"

_EXPORTS = {"add_tvilfm_config": "config", "get_cfg": "config", "TriTrainer": "engine"}
# Module of fast-reid with a registry -> module of ours that fills it.
_REGISTRATIONS = {
    "fastreid.data.datasets": "data.datasets",
    "fastreid.modeling": "modeling.registration",
    "fastreid.evaluation": "evaluation.evaluator",
}


def _ours(module: str) -> Any:
    return importlib.import_module(f"{__name__}.{module}")


def _before_fastreid() -> None:
    gaps = _ours("host.gaps")
    gaps.fill()
    importing.after("faiss", gaps.provide_gpu_faiss)
    _ours("host.mends").apply()


def _register(module: str) -> Callable[[], None]:
    return lambda: importing.when_ours_are_whole(lambda: _ours(module))


importing.install()
importing.when_failing("torchvision", lambda error: _ours("host.gaps").declare_torchvision_operators(error))
importing.before("torchvision.ops.roi_align", lambda: _ours("host.gaps").postpone_dynamo())
importing.after("torchvision.ops.roi_align", lambda: _ours("host.gaps").end_postponing())
importing.before("fastreid", _before_fastreid)
for _host_module, _module in _REGISTRATIONS.items():
    importing.after(_host_module, _register(_module))
importing.provided["trainer"] = lambda: _ours("engine").TriTrainer
importing.provided["ready"] = lambda: _ours("engine.ready").ready
presence.explain_missing_host()
children.prepare_spawned()
if children.MARK in os.environ:  # a process that a script has started
    _ours("host.scripts").stand_in(contextlib.ExitStack())


def __getattr__(name: str) -> Any:
    """`TriTrainer` pulls in all of fast-reid's engine (3 s): only who asks for it waits."""
    if name in _EXPORTS:
        presence.require_host()  # without torch, this names what is missing
        return getattr(_ours(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
