"""The Dockerfile copies what there is, and what it copies is enough for the package."""

import re
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()


def test_what_is_copied_exists_and_is_not_ignored():
    copied = [name for line in LINES if line.startswith("COPY ") for name in line.split()[1:-1]]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert all((ROOT / name).exists() for name in copied) and not [n for n in copied if any(fnmatch(n, i) for i in ignored)]
    # What setup.py opens or ships, and what the wheel of tests/test_packaging.py is built from.
    assert {"setup.py", "pyproject.toml", "README.md", "requirements.txt", "LICENSE", "tvilfm_plugin", "configs"} <= set(copied)


def test_it_installs_the_versions_of_make_setup():
    made = (ROOT / "Makefile").read_text(encoding="utf-8")
    versions = re.findall(r"(?:fastreid|anny)==[\d.]+", "\n".join(LINES))
    assert len(versions) == 2 and all(one in made for one in versions)
