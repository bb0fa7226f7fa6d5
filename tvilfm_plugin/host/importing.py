"""What happens around the first import of a module: before it, after it, or when it fails."""

import importlib.abc
import importlib.machinery
import sys
import types
from collections import defaultdict
from collections.abc import Callable
from typing import Any

Action = Callable[[], None]

_OURS = "tvilfm_plugin"
# What rooms to the right of the host give it, by name ("trainer": the class that scripts find as DefaultTrainer).
provided: dict[str, Callable[[], Any]] = {}

_before: dict[str, list[Action]] = defaultdict(list)
_after: dict[str, list[Action]] = defaultdict(list)
_mended: dict[str, Callable[[Exception], bool]] = {}
# Modules of ours whose import has begun and not ended, and what waits for the last of them.
_beginning: list[str] = []
_waiting: list[Action] = []


class _Loader(importlib.abc.Loader):
    """The loader of a watched module, which acts around its execution and then leaves no trace on the module."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_loader"], name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        name, loader = module.__name__, self._loader
        module.__loader__ = loader
        if module.__spec__ is not None:
            module.__spec__.loader = loader
        for action in _before[name]:
            action()
        ours = name.startswith(_OURS)
        _beginning.extend([name] if ours else [])
        try:
            try:
                loader.exec_module(module)
            except Exception as error:
                if name not in _mended or not _mended[name](error):
                    raise
                loader.exec_module(module)
        finally:
            _beginning[:] = _beginning[:-1] if ours else _beginning
        for action in _after[name]:
            action()
        _go_on()


class _Finder(importlib.abc.MetaPathFinder):
    """First entry of `sys.meta_path`: whoever finds a watched module, its loader is watched."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if not (name in _before or name in _after or name in _mended or name.startswith(_OURS + ".")):
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


_finder = _Finder()


def install() -> None:
    """Watch imports from now on. Safe to call again."""
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def imported(name: str) -> bool:
    """Whether a module is there in full, not half way through its own import."""
    module = sys.modules.get(name)
    return module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False)


def before(name: str, action: Action) -> None:
    """Act before the code of a module runs; at once where it ran already."""
    if sys.modules.get(name) is not None:
        action()
    else:
        _before[name].append(action)


def after(name: str, action: Action) -> None:
    """Act when the code of a module has run, before whoever imports it goes on; at once where it is there already."""
    if imported(name):
        action()
    else:
        _after[name].append(action)


def when_failing(name: str, mend: Callable[[Exception], bool]) -> None:
    """Where the code of a module raises and `mend(error)` is true, it runs once more."""
    _mended[name] = mend


def when_ours_are_whole(action: Action) -> None:
    """Act as soon as no module of this package is half imported: what imports others of ours would meet it half made."""
    _waiting.append(action)
    _go_on()


def _go_on() -> None:
    while _waiting and not _beginning:
        _waiting.pop(0)()
