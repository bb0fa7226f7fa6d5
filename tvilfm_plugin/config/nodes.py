"""The config: fast-reid's with our keys, which knows where every value comes from."""

import json
import os
from ast import literal_eval
from collections.abc import Sequence
from typing import Any

import torch
from fastreid.config import CfgNode
from fastreid.config.config import BASE_KEY

from tvilfm_plugin.config.errors import ConfigError, did_you_mean
from tvilfm_plugin.config.reading import construct, read_settings
from tvilfm_plugin.files.json import read_json
from tvilfm_plugin.keys.adding import add_keys
from tvilfm_plugin.keys.host import HOST_KEYS
from tvilfm_plugin.keys.key import Key, is_whole, shown
from tvilfm_plugin.keys.table import KEYS

STAGE1 = "STAGE1."
COMMAND_LINE, DEFAULT = "command line", "default"
OURS: dict[str, Key] = {key.name: key for key in KEYS}
FLOATS = frozenset(key.name for key in (*HOST_KEYS, *KEYS) if key.kind == "list of float")
# What older configs say -> key, and value by value, of what they mean; a mapping without a value leaves it.
OLDER: dict[str, tuple[str, dict[Any, str]]] = {
    "TVILFM.JOINT": ("TVILFM.ROWS", {True: "MJL", False: "baseline"}),
    "TVILFM.FUSION": ("TVILFM.FUSION", {"FilteredAdd": "SFF"}),
}


KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", list: "a list", tuple: "a list"}


class TriConfig(CfgNode):
    """A fast-reid config that remembers its overrides, so that both stages of a run get them, and the origin of its values.

    On the command line `KEY VALUE` reaches both stages, `STAGE1.KEY VALUE` only the first. What is merged is checked:
    a `ConfigError` names file and line, the fact and the choices.
    """

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = False) -> None:
        path = os.fspath(cfg_filename)
        settings = read_settings(path)
        for key in settings:  # before anything is constructed
            self._known(key, str(settings[key]))
        for key, setting in settings.items():
            value = construct(setting)
            if key == "TVILFM.STAGE1" and value and isinstance(value, str):
                value = os.path.abspath(os.path.join(os.path.dirname(setting.file), value))
            self._set(key, value, str(setting), os.path.dirname(setting.file))

    def merge_from_list(self, cfg_list: list) -> None:
        if len(cfg_list) % 2:
            raise ConfigError(f"Overrides come as KEY VALUE pairs; {len(cfg_list)} words were given: {list(cfg_list)}")
        pairs = [(str(key), value) for key, value in zip(cfg_list[0::2], cfg_list[1::2], strict=True)]
        first = [word for key, value in pairs if key.startswith(STAGE1) for word in (key.removeprefix(STAGE1), value)]
        rest = [word for key, value in pairs if not key.startswith(STAGE1) for word in (key, value)]
        for key, value in zip(rest[0::2], rest[1::2], strict=True):
            self._set(key, value, COMMAND_LINE)
        self.TVILFM.OVERRIDES = [*self.TVILFM.OVERRIDES, *rest]
        self.TVILFM.STAGE1_OVERRIDES = [*self.TVILFM.STAGE1_OVERRIDES, *first]

    def origin(self, key: str) -> str:
        """Where the value of a full key comes from: "FILE, line N", "command line" or "default"."""
        return self.__dict__.get("_origins", {}).get(key, DEFAULT)

    def merge_values(self, words: list, origin: str) -> None:
        """KEY VALUE words that are no overrides of the run."""
        for key, value in zip(words[0::2], words[1::2], strict=True):
            self._set(key, value, origin)

    # --- one value ---------------------------------------------------------------------------------------------------

    def _known(self, key: str, where: str) -> Any:
        """The section that holds a key; raises where there is no such key."""
        if key == BASE_KEY:
            raise ConfigError(f"{where}: {BASE_KEY} can only stand in files.")
        if key in OLDER:
            key = OLDER[key][0]
        *sections, name = key.split(".")
        node: Any = self
        for section in sections:
            if not isinstance(node, CfgNode) or section not in node:
                self._unknown(key, where)
            node = node[section]
        if not isinstance(node, CfgNode) or name not in node and not node.is_new_allowed():
            self._unknown(key, where)
        return node

    def _unknown(self, key: str, where: str) -> None:
        near = did_you_mean(key, flat(self)) or did_you_mean(key.upper(), flat(self))
        hint = near or " `tvilfm config` lists the keys that there are."
        raise ConfigError(f"{where}: there is no key {key[:80]!r}.{hint}")

    def _set(self, key: str, value: Any, origin: str, folder: str = "") -> None:
        node = self._known(key, origin)
        value = _decoded(value)
        if key in OLDER:
            key, meant = OLDER[key]
            value = meant.get(value, value) if isinstance(value, (str, bool)) else value
        name = key.rpartition(".")[2]
        before = node.get(name)
        if isinstance(before, CfgNode):
            if isinstance(value, dict) and not value or value is None and origin != COMMAND_LINE:
                return  # a section without keys says nothing
            raise ConfigError(f"{origin}: {key} is a section, with {', '.join(list(before)[:4])} ...; name one of its keys.")
        if name in node:
            value = self._fitting(key, value, before, origin, folder)
        node[name] = value
        self.__dict__.setdefault("_origins", {})[key] = origin

    def _fitting(self, key: str, value: Any, before: Any, origin: str, folder: str) -> Any:
        """The value in the type of the default; raises where it has another, or is none that our table allows."""
        if isinstance(before, float) and is_whole(value):
            value = float(value)
        elif isinstance(before, (tuple, list)) and isinstance(value, (tuple, list)):
            value = type(before)(value)
            if key in FLOATS:
                value = type(before)(float(one) if is_whole(one) else one for one in value)
        if key == "MODEL.TEXT.ARCH" and isinstance(value, str):
            value = embedded(value, folder)
        # Any name of a registry passes: these are looked up when a run starts, as a script may register after its config.
        problem = OURS[key].problem(value, lambda registry: ()) if key in OURS else ""
        if not problem and type(value) is not type(before) and not (before is None or value is None and key not in OURS):
            problem = f"{key} is {shown(value)}; it must be {KINDS[type(before)]}, as {shown(before)} is."
        if not problem and isinstance(value, str) and "\0" in value:
            problem = f"{key} is {shown(value)}; a text cannot hold a zero byte."
        if problem:
            raise ConfigError(problem if origin == COMMAND_LINE else f"{origin}: {problem}")
        return value


def _decoded(value: Any) -> Any:
    """A text as the literal that it is, as yacs reads it; a description in braces stays a text."""
    if not isinstance(value, str) or value.lstrip().startswith("{"):
        return value
    try:
        return literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return value


def embedded(arch: str, folder: str) -> str:
    """MODEL.TEXT.ARCH with a JSON file's content for its name (from `folder` or the current one): it must work anywhere."""
    if not arch.endswith(".json"):
        return arch
    found = [path for path in (os.path.join(folder, arch), arch) if os.path.isfile(path)]
    if not found:
        return arch
    try:
        return json.dumps(read_json(found[0]), sort_keys=True)
    except ValueError as error:
        raise ConfigError(f"MODEL.TEXT.ARCH names a file that describes no text tower: {error} See configs/text.") from None


def flat(node: CfgNode, prefix: str = "") -> dict[str, Any]:
    """Full key -> value of a config, in its order."""
    found: dict[str, Any] = {}
    for name, value in node.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, CfgNode) else {f"{prefix}{name}": value}
    return found


def get_cfg() -> TriConfig:
    """fast-reid's default config with our keys."""
    from fastreid.config import get_cfg as host_cfg

    cfg = host_cfg()
    add_tvilfm_config(cfg)
    return cfg


def read_config(file: str | os.PathLike[str] = "", opts: Sequence[Any] = ()) -> TriConfig:
    """The config of a file and overrides, merged as training merges it.

    Args:
        opts: keys and values in turn, `[KEY, VALUE, …]`; words are read as YAML.

    Raises:
        ConfigError: naming file and line, the fact and the choices.
    """
    cfg = get_cfg()
    if file:
        cfg.merge_from_file(os.fspath(file))
    cfg.merge_from_list(list(opts))
    return cfg


def add_tvilfm_config(cfg: CfgNode) -> None:
    """Add our keys in place to a fast-reid config (`get_cfg()`), before files are merged. A second call changes nothing."""
    if "TVILFM" in cfg:
        return
    object.__setattr__(cfg, "__class__", TriConfig)  # the script made it; yacs only lets values through
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    cfg.SOLVER.CHECKPOINT_PERIOD = 1
    add_keys(cfg, KEYS)
    # Filled in by the command line: the overrides of this run, and those of its stage 1 alone.
    cfg.TVILFM.OVERRIDES, cfg.TVILFM.STAGE1_OVERRIDES = [], []
