"""MIP's config keys, for a config that has fast-reid's alone."""

from fastreid.config import CfgNode

from tvilfm_plugin.keys.adding import add_keys
from tvilfm_plugin.keys.mip import MIP_KEYS


def add_mip_config(cfg: CfgNode) -> None:
    """Add MIP's keys (`keys.mip`) to a fast-reid config, in place. Safe to call twice (the second call changes nothing)."""
    add_keys(cfg, MIP_KEYS)
