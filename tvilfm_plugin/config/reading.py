"""Config files with their bases, and the line of every value."""

import os
import re
from dataclasses import dataclass
from typing import Any

import yaml
from fastreid.config.config import BASE_KEY

from tvilfm_plugin.config.errors import ConfigError


@dataclass(frozen=True)
class Setting:
    """What a file says about one key, and in which line, from 1; a mapping sets a section as a whole."""

    value: Any
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}"


def read_settings(path: str) -> dict[str, Setting]:
    """Full key -> setting of a config file and its bases; what a file says itself counts more than its base."""
    return _read(os.path.expanduser(path), ())


def _read(path: str, readers: tuple[str, ...]) -> dict[str, Setting]:
    ring = os.path.realpath(path)
    if ring in map(os.path.realpath, readers):
        raise ConfigError(f"{readers[-1]} names {path} as its {BASE_KEY}, which is based on it in turn: a ring.")
    root = _root(path, readers[-1] if readers else "")
    found: dict[str, Setting] = {}
    base: str | None = None
    for key, node in _pairs(root, path, ""):
        if key != BASE_KEY:
            _collect(found, key, node, path)
        elif not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str":
            raise ConfigError(f"{path}, line {node.start_mark.line + 1}: {BASE_KEY} must be the path of one file.")
        elif "://" in node.value:
            raise ConfigError(f"{path}: {BASE_KEY} {node.value!r} is no local file; download it and give its path.")
        else:
            base = os.path.normpath(os.path.join(os.path.dirname(path), os.path.expanduser(node.value)))
    below = _read(base, (*readers, path)) if base else {}
    replaced = {old for old in below for new in found if old.startswith(f"{new}.") or new.startswith(f"{old}.")}
    if replaced:
        old = sorted(replaced)[0]
        new = next(new for new in found if old.startswith(f"{new}.") or new.startswith(f"{old}."))
        raise ConfigError(f"{found[new]}: {new} does not fit {old} of its base ({below[old]}): one of them is a section.")
    return below | found


def _root(path: str, named_by: str) -> yaml.MappingNode:
    """The YAML tree of one file; nothing in it is constructed."""
    by = f", which {named_by} names as its {BASE_KEY}," if named_by else ""
    if not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "does not exist" if not os.path.exists(path) else "is no file"
        if by:
            raise ConfigError(f"The config file {path}{by} {what}; give its path relative to {named_by}.")
        raise FileNotFoundError(f"The config file {path!r} {what} (from {os.getcwd()}); give the path of a .yml file.")
    try:
        with open(path, encoding="utf-8-sig") as file:
            root = yaml.compose(file, yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply for a config; sections have four levels at most.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path}{line}: this is no YAML ({problem}); mend the line.") from None
    if root is None or root.tag == "tag:yaml.org,2002:null":
        raise ConfigError(f"{path} is empty; a config says at least one KEY: VALUE, e.g. {BASE_KEY}: configs/Base-TVILFM.yml.")
    if path.endswith(".json") and isinstance(root, yaml.MappingNode):  # a model folder's: the config is a part of it
        root = next((value for key, value in root.value if key.value == "config"), root)
    if not isinstance(root, yaml.MappingNode):
        noun = "list" if isinstance(root, yaml.SequenceNode) else "text"
        raise ConfigError(f"{path} holds no KEY: VALUE pairs but one {noun}; a config is a mapping of sections.")
    return root


def _pairs(node: yaml.MappingNode, path: str, prefix: str) -> list[tuple[str, yaml.Node]]:
    seen: dict[str, int] = {}
    pairs = []
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.tag == "tag:yaml.org,2002:merge":
            raise ConfigError(f"{path}, line {line}: a config has no <<; name another file in {BASE_KEY} instead.")
        if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            raise ConfigError(f"{path}, line {line}: {getattr(key, 'value', '?')!s:.40} is no key; keys are words.")
        if key.value in seen:
            where = f"in line {seen[key.value]} and in line {line}"
            raise ConfigError(f"{path}: {prefix}{key.value} stands {where}; keep one of them.")
        seen[key.value] = line
        pairs.append((key.value, value))
    return pairs


def _collect(found: dict[str, Setting], key: str, node: yaml.Node, path: str, depth: int = 0) -> None:
    if isinstance(node, yaml.MappingNode) and node.value and depth < 10:
        for name, inner in _pairs(node, path, f"{key}."):
            _collect(found, f"{key}.{name}", inner, path, depth + 1)
        return
    found[key] = Setting(node, path, node.start_mark.line + 1)


def construct(setting: Setting) -> Any:
    """The value of a setting, by YAML's plain types alone."""
    if odd := [text for text in _numbers(setting.value) if ":" in text or re.match(r"[-+]?0[0-9_]", text)]:
        raise ConfigError(f"{setting}: {odd[0]} counts to the base of 8 or 60 in YAML; write it without leading 0 or colon.")
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(setting.value, deep=True)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{setting}: the value cannot be read ({problem:.120}); configs hold plain values.") from None
    finally:
        loader.dispose()


def _numbers(node: yaml.Node) -> list[str]:
    """The texts of the numbers in a value."""
    if isinstance(node, yaml.SequenceNode):
        return [text for one in node.value for text in _numbers(one)]
    number = isinstance(node, yaml.ScalarNode) and node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    return [node.value] if number else []
