"""Scripts in a process of their own (plainly, with the plugin, or through its command), and those of tools/ in this one."""

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
PLUGIN = ("-m", "tvilfm_plugin")


def start(*words, cwd, command=PLUGIN, **environment):
    """What a process has done in a folder; `command` stands before the script, () is plain python."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    line = [sys.executable, *command, *map(str, words)]
    return subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, timeout=240)


def run(*words, cwd, status=0, command=PLUGIN, **environment):
    """The lines that it printed; its exit status must be `status`."""
    done = start(*words, cwd=cwd, command=command, **environment)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout.splitlines()


def load_tool(name: str) -> ModuleType:
    """tools/NAME.py as a module, for this process: a new one would spend its time on imports."""
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder, **files):
    """Python files by name; "__in__" stands for a slash."""
    for name, text in files.items():
        path = folder / name.replace("__in__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".py").write_text(textwrap.dedent(text))
