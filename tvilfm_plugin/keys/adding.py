"""A table's defaults in a config."""

from collections.abc import Iterable

from fastreid.config import CfgNode

from tvilfm_plugin.keys.key import Key


def add_keys(cfg: CfgNode, keys: Iterable[Key]) -> None:
    """Give a config the defaults of a table, with the sections that they need; keys that it has stay as they are."""
    for key in keys:
        *sections, name = key.name.split(".")
        node = cfg
        for section in sections:
            if section not in node:
                node[section] = CfgNode()
            node = node[section]
        if name not in node:
            node[name] = list(key.default) if isinstance(key.default, list) else key.default
