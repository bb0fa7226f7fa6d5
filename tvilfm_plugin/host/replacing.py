"""Names of the host that are replaced: for good, or for the duration of a block."""

import contextlib
import functools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

_originals: dict[tuple[Any, str], Any] = {}


def replace(owner: Any, name: str, replacement: Callable[[Any], Any]) -> None:
    """Replace `owner.name` by `replacement(its value)`, once, also where a module of fast-reid has imported it already."""
    if (owner, name) in _originals:
        return
    before = _originals[owner, name] = getattr(owner, name)
    after = replacement(before)
    setattr(owner, name, after)
    for module in host_modules() if isinstance(owner, types.ModuleType) else ():
        if vars(module).get(name) is before:
            setattr(module, name, after)


def around(owner: Any, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: a call of `owner.name` becomes one of the function, which is given the original before the arguments."""

    def put(function: Callable[..., Any]) -> Callable[..., Any]:
        replace(owner, name, lambda original: functools.wraps(original)(lambda *args, **kw: function(original, *args, **kw)))
        return function

    return put


def host_modules() -> list[Any]:
    """The modules of fast-reid that are imported."""
    return [module for key, module in list(sys.modules.items()) if key.split(".")[0] == "fastreid" and module is not None]


def original(owner: Any, name: str) -> Any:
    """What `owner.name` was in fast-reid before a patch replaced it."""
    return _originals.get((owner, name)) or getattr(owner, name)


@contextlib.contextmanager
def lend(owner: Any, **names: Any) -> Iterator[None]:
    """Replace names of a module for the duration of a block; for code of the host that looks them up while it runs."""
    before = {name: getattr(owner, name) for name in names}
    try:
        for name, value in names.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)
