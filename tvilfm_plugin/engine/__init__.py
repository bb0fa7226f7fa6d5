"""The engine: a trainer around fast-reid's, the two stages, the identity of a run, and trained models.

What stands here is what people script against. Each comes from its own module when it is asked for: the trainer takes all of
fast-reid's engine with it, which a search does not need.
"""

import importlib
from typing import Any

_EXPORTS = {
    "TriTrainer": "tvilfm_plugin.engine.trainer",
    "load_model": "tvilfm_plugin.engine.trained",
    "load_run": "tvilfm_plugin.engine.trained",
    "lr_factor": "tvilfm_plugin.engine.optim",
    "param_groups": "tvilfm_plugin.engine.optim",
    "read_config": "tvilfm_plugin.config.nodes",
    "uses_text": "tvilfm_plugin.modeling.registration",
}


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
