"""Configs: fast-reid's with our keys, read from files with the origin of every value, and checked in one place."""

from tvilfm_plugin.config.check import check_config
from tvilfm_plugin.config.errors import ConfigError
from tvilfm_plugin.config.nodes import TriConfig, add_tvilfm_config, get_cfg, read_config
from tvilfm_plugin.config.stages import stage1_config, visual_part

__all__ = [
    "ConfigError",
    "TriConfig",
    "add_tvilfm_config",
    "check_config",
    "get_cfg",
    "read_config",
    "stage1_config",
    "visual_part",
]
