"""Text-enhanced visible-infrared person re-identification as a plugin to fast-reid.

Importing the package applies the host's compatibility fixes, registers everything and does nothing else. Without fast-reid
the core modules (evaluation, data, the modules of modeling that hold no registered class) work all the same; without torch
those that search an index do.
"""

import importlib
import importlib.util
from typing import Any

if importlib.util.find_spec("torch") is not None:
    from tvilfm_plugin import compat

    compat.apply()
    if compat.host_available():
        for _module in ("data.datasets", "modeling.registration", "evaluation.evaluator"):
            importlib.import_module(f"{__name__}.{_module}")

_EXPORTS = {"add_tvilfm_config": "config", "get_cfg": "config", "TriTrainer": "engine"}


def __getattr__(name: str) -> Any:
    """`TriTrainer` pulls in all of fast-reid's engine (3 s): only who asks for it waits."""
    if name in _EXPORTS:
        importlib.import_module(f"{__name__}.compat").require_host()  # without torch, this names what is missing
        return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
