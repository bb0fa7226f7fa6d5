"""The built wheel, installed somewhere else, imports, registers and runs a script outside the checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = """
import json, sys, tvilfm_plugin
from pathlib import Path
from importlib.metadata import version
place = Path(tvilfm_plugin.__file__).parent
from tvilfm_plugin.config import get_cfg
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
names = [kind.__name__ for kind in (
    DATASET_REGISTRY.get("TriSYSUMM01"), META_ARCH_REGISTRY.get("TVILFM"), tvilfm_plugin.TriTrainer)]
print(json.dumps([str(place), version("tvilfm-plugin"), names, "TVILFM" in get_cfg()]))
"""
SCRIPT = """
from fastreid.config import get_cfg
from fastreid.engine import DefaultTrainer
print(__name__, DefaultTrainer.__name__, "TVILFM" in get_cfg())
"""


def python(*arguments: str, **environment: str) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: setuptools would leave its build folder in the checkout."""
    pytest.importorskip("setuptools")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "pyproject.toml", "README.md", "requirements.txt"):
        if (ROOT / name).exists():
            (source / name).write_bytes((ROOT / name).read_bytes())
    for path in (ROOT / "tvilfm_plugin").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    pip = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    python(*pip, "--wheel-dir", str(out), str(source))
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = archive.read(next(n for n in archive.namelist() if n.endswith("/METADATA"))).decode()
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tvilfm_plugin").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == ours
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert required and not [line for line in required if "fastreid" in line]
    assert {"Provides-Extra: captions", "Provides-Extra: web", "Provides-Extra: dev"} <= set(metadata.splitlines())


def test_it_runs_outside_the_checkout(wheel, tmp_path, monkeypatch):
    pytest.importorskip("fastreid")
    target = tmp_path / "site"
    python("-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check", "--target", str(target), str(wheel))
    monkeypatch.chdir(tmp_path)
    place, version, names, keys = json.loads(python("-c", CODE, PYTHONPATH=str(target)).splitlines()[-1])
    assert place == str(target / "tvilfm_plugin") and version in wheel.name
    assert names == ["TriSYSUMM01", "TVILFM", "TriTrainer"] and keys
    (tmp_path / "script.py").write_text(SCRIPT)
    assert python("-m", "tvilfm_plugin", "script.py", PYTHONPATH=str(target)) == "__main__ TriTrainer True\n"
