"""The built wheel, installed somewhere else, works outside the checkout; and what documents say of the package is so."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from tvilfm_plugin import __version__

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


def files_of(*folders: str) -> list[Path]:
    """The files of these folders of the checkout, relative to it."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    return [path.relative_to(ROOT) for path in found if path.is_file() and "__pycache__" not in path.parts]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: setuptools would leave its build folder in the checkout."""
    pytest.importorskip("setuptools")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "pyproject.toml", "README.md", "requirements.txt", "LICENSE", "NOTICE", "MANIFEST.in"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for path in files_of("tvilfm_plugin", "configs", "projects"):
        target = source / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / path).read_bytes())
    pip = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    python(*pip, "--wheel-dir", str(out), str(source))
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_the_configs_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        read = lambda end: archive.read(next(n for n in archive.namelist() if n.endswith(end))).decode()
        metadata, scripts, licence = read("/METADATA"), read("/entry_points.txt"), read("/LICENSE")
        assert read("/NOTICE") == (ROOT / "NOTICE").read_text(encoding="utf-8")
    ours = {path.as_posix() for path in files_of("tvilfm_plugin")}
    assert packed == ours | {f"tvilfm_plugin/{path.as_posix()}" for path in files_of("configs", "projects")}
    assert "tvilfm = tvilfm_plugin.cli.main:entry" in scripts and licence == (ROOT / "LICENSE").read_text()
    lines = set(metadata.splitlines())
    required = [line for line in lines if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert required and not [line for line in required if "fastreid" in line]
    assert {"Provides-Extra: captions", "Provides-Extra: web", "Provides-Extra: dev", f"Version: {__version__}"} <= lines


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """A folder that it is installed into, as if it were alone there."""
    target = tmp_path_factory.mktemp("site")
    python("-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check", "--target", str(target), str(wheel))
    return target


def test_it_runs_outside_the_checkout(site, wheel, tmp_path, monkeypatch):
    pytest.importorskip("fastreid")
    monkeypatch.chdir(tmp_path)
    place, version, names, keys = json.loads(python("-c", CODE, PYTHONPATH=str(site)).splitlines()[-1])
    assert place == str(site / "tvilfm_plugin") and version == __version__ and version in wheel.name
    assert names == ["TriSYSUMM01", "TVILFM", "TriTrainer"] and keys
    (tmp_path / "script.py").write_text(SCRIPT)
    assert python("-m", "tvilfm_plugin", "script.py", PYTHONPATH=str(site)) == "__main__ TriTrainer True\n"


def test_the_command_trains_evaluates_and_searches_outside_the_checkout(site, tmp_path, monkeypatch):
    pytest.importorskip("fastreid")
    monkeypatch.chdir(tmp_path)
    said = python(str(ROOT / "tests" / "cli" / "smoke.py"), PYTHONPATH=str(site))
    assert said.endswith("It works.\n")
    stored = (tmp_path / "run" / "config.yaml").read_text()
    assert str(ROOT) not in stored


# --- what is written about it ----------------------------------------------------------------------------------------


def test_no_document_names_a_package_that_is_not_on_an_index():
    files = [ROOT / path for path in ("README.md", "CONTRIBUTING.md", *files_of("docs", "projects", "tvilfm_plugin"))]
    texts = {path: path.read_text(encoding="utf-8") for path in files if path.suffix in (".md", ".py", ".html")}
    assert not [path for path, text in texts.items() if re.search(r"install[^\n`]*[ '\"]tvilfm-plugin", text)]
    assert not [path for path, text in texts.items() if "tvilfm-plugin[" in text]


def test_citation_and_changelog_name_this_version_and_both_papers():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == __version__ and f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    bibtex = (ROOT / "CITATION.bib").read_text(encoding="utf-8")
    assert len(cited["references"]) == 2
    for paper in cited["references"]:
        assert paper["title"] in bibtex and all(author["family-names"] in bibtex for author in paper["authors"])


def test_workflows_and_issue_forms_are_yaml_and_run_what_the_gate_runs():
    for path in (ROOT / ".github").rglob("*.yml"):
        assert yaml.safe_load(path.read_text(encoding="utf-8")), path
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))["jobs"]
    assert {"run": ".ci/run"} in jobs["linux"]["steps"] and len(jobs["smoke"]["strategy"]["matrix"]["os"]) == 3
    (named,) = re.findall(r'Python :: 3\.{minor}" for minor in \((.*?)\)', (ROOT / "setup.py").read_text(encoding="utf-8"))
    minors = {f"3.{minor.strip()}" for minor in named.split(",")}
    assert minors and minors <= set(jobs["linux"]["strategy"]["matrix"]["python"])
