"""Scripts written for fast-reid, run as Python runs them, with the plugin loaded there and in every process they start."""

import builtins
import contextlib
import importlib.metadata
import importlib.util
import io
import os
import pkgutil
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tvilfm_plugin.host import children, gaps, importing, presence

USAGE = """usage: python -m tvilfm_plugin [--debug] SCRIPT [ARGS...]
       python -m tvilfm_plugin [--debug] -m MODULE [ARGS...]

Runs SCRIPT (a file, or a folder or archive with a __main__.py), e.g. fast-reid's tools/train_net.py, or a module,
unmodified, with ARGS as its command line. fast-reid is repaired, our data sets, models and config keys are known, and
DefaultTrainer is the plugin's trainer; also in the processes that the script starts. What the plugin says of a wrong input is
one line, with --debug the traceback; the script's own errors are Python's."""


def run(argv: Sequence[str]) -> int:
    """What `python -m tvilfm_plugin ARGV` does; gives the exit status, and the script's own SystemExit passes through."""
    words = list(argv)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    module = words[0] == "-m"
    if module and len(words) == 1:
        print(f"{USAGE}\n\n-m needs the name of a module.", file=sys.stderr)
        return 2
    name, arguments = (words[1], words[2:]) if module else (words[0], words[1:])
    if not module and not os.path.exists(name):
        print(f"{USAGE}\n\nThere is no script {name!r} (from {os.getcwd()}).", file=sys.stderr)
        return 2
    try:
        main = _module(name, arguments) if module else _file(name, arguments)
    except ImportError as error:
        print(f"{USAGE}\n\n{error}", file=sys.stderr)
        return 2
    _execute(*main)
    return 0


def run_script(script: str, args: list[str]) -> dict[str, Any]:
    """Run a script in this process with a command line; gives its names after it has run."""
    presence.require_host()
    return _execute(*_file(script, args))


# --- what to run -----------------------------------------------------------------------------------------------------

# The main module, its code, its command line, and the first entry of the path ("" leaves it as it is).
Main = tuple[types.ModuleType, types.CodeType, list[str], str]


def _main_module(file: str | None, loader: Any, spec: Any = None, package: str | None = None) -> types.ModuleType:
    main = types.ModuleType("__main__")
    vars(main).update(
        __file__=file, __loader__=loader, __spec__=spec, __package__=package, __builtins__=builtins, __annotations__={}
    )
    return main


def _file(script: str, args: Sequence[str]) -> Main:
    """A file of source or byte code; a folder or archive with a `__main__`."""
    importer = pkgutil.get_importer(script) if not os.path.isfile(script) or script.endswith((".zip", ".pyz")) else None
    if importer is not None:
        spec = importer.find_spec("__main__")
        if spec is None:
            raise ImportError(f"{script} has no __main__.py: it cannot be run. Name a script in it.")
        return *_of_spec(spec, ""), [script, *args], script
    path = os.path.abspath(script)
    with io.open_code(path) as file:
        code = pkgutil.read_code(file)
    if code is None:
        with io.open_code(path) as file:
            code = compile(file.read(), path, "exec", dont_inherit=True)
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    return _main_module(path, loader), code, [script, *args], str(Path(script).resolve().parent)


def _module(name: str, args: Sequence[str]) -> Main:
    """A module, or the `__main__` of a package."""
    # As with python -m, what lies in the current folder can be run.
    if os.getcwd() not in (os.path.abspath(entry) for entry in sys.path):
        sys.path.insert(0, os.getcwd())
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    if spec is None or spec.loader is None:
        raise ImportError(f"There is no module {name} that can be run (from {os.getcwd()}).")
    return *_of_spec(spec, spec.parent), [str(spec.origin), *args], ""


def _of_spec(spec: Any, package: str | None) -> tuple[types.ModuleType, types.CodeType]:
    code = spec.loader.get_code(spec.name)
    if code is None:
        raise ImportError(f"{spec.origin} holds no Python code that can be run.")
    return _main_module(spec.origin, spec.loader, spec, package), code


def _execute(main: types.ModuleType, code: types.CodeType, argv: list[str], first: str) -> dict[str, Any]:
    """Run code as the main module of this process; what was main, the command line and the path come back at its end."""
    before = sys.modules["__main__"], sys.argv, list(sys.path)
    threads = set(threading.enumerate())
    gaps.provide_collections()
    with stand_ins(), children.inherited():
        importing.after("fastreid", _name_the_host)
        sys.argv = argv
        if first and sys.path and os.path.abspath(sys.path[0]) == os.getcwd():
            sys.path[0] = first  # `python -m` has put the current folder there
        elif first:
            sys.path.insert(0, first)
        sys.modules["__main__"] = main
        try:
            exec(code, vars(main))
        finally:
            for thread in set(threading.enumerate()) - threads:
                if not thread.daemon:
                    thread.join()
            sys.modules["__main__"], sys.argv, sys.path[:] = before
    return vars(main)


def _name_the_host() -> None:
    """Say so where fast-reid is not the installed one: a checkout on the path goes first without a word."""
    module = sys.modules["fastreid"]
    used = Path(next(iter(module.__path__))).resolve()
    try:
        installed: Path | None = Path(str(importlib.metadata.distribution("fastreid").locate_file("fastreid"))).resolve()
    except importlib.metadata.PackageNotFoundError:
        installed = None
    if used != installed:
        which = "not the installed one" if installed else "a checkout"
        print(f"fast-reid is the one in {used.parent}, {which}.", file=sys.stderr)


def stand_in(undo: contextlib.ExitStack) -> None:
    """When fast-reid is imported: our keys in its default config, our trainer as DefaultTrainer, until `undo` closes."""
    active = [True]
    undo.callback(active.clear)

    def add_keys() -> None:
        from fastreid.config import defaults

        from tvilfm_plugin.config import add_tvilfm_config

        if active:
            config = defaults._C.clone()
            add_tvilfm_config(config)
            undo.callback(setattr, defaults, "_C", defaults._C)
            defaults._C = config

    def put_trainer() -> None:
        if active:
            kind = importing.provided["trainer"]()
            for module in (sys.modules["fastreid.engine"], sys.modules["fastreid.engine.defaults"]):
                undo.callback(setattr, module, "DefaultTrainer", module.DefaultTrainer)
                module.DefaultTrainer = kind  # type: ignore[attr-defined]

    importing.after("fastreid.config", lambda: importing.when_ours_are_whole(add_keys))
    importing.after("fastreid.engine", lambda: importing.when_ours_are_whole(put_trainer))


@contextlib.contextmanager
def stand_ins() -> Iterator[None]:
    """What a script finds, for the duration of a block."""
    with contextlib.ExitStack() as undo:
        stand_in(undo)
        yield
