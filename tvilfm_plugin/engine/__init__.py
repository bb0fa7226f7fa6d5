"""The engine: a trainer around fast-reid's, the two stages, the identity of a run, and trained models.

What stands here is what people script against.
"""

from tvilfm_plugin.config.nodes import read_config
from tvilfm_plugin.engine.config_report import config_report, keys_reference
from tvilfm_plugin.engine.optim import lr_factor, param_groups
from tvilfm_plugin.engine.trained import load_model, load_run
from tvilfm_plugin.engine.trainer import TriTrainer
from tvilfm_plugin.modeling.registration import uses_text

__all__ = [
    "TriTrainer",
    "config_report",
    "keys_reference",
    "load_model",
    "load_run",
    "lr_factor",
    "param_groups",
    "read_config",
    "uses_text",
]
