"""The site of `make docs`: it builds without a warning, and its index knows every command."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tvilfm_plugin.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]


def test_the_index_names_every_command_once_and_no_other():
    named = re.findall(r"`tvilfm ([a-z -]+)`", (ROOT / "docs/index.md").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(COMMANDS)


def test_the_reforms_page_has_every_item_and_commands_that_exist():
    page = (ROOT / "docs/reforms.md").read_text(encoding="utf-8")
    counts = (3, 5, 7, 3, 6, 3, 3, 2)  # items of the eight modules, 32 in all
    items = [f"{module}{letter}" for module, count in enumerate(counts, start=1) for letter in "abcdefg"[:count]]
    assert re.findall(r"^\| (\d[a-g]) \|", page, flags=re.M) == items
    commands = re.findall(r"`tvilfm ((?:[a-z]+ ?)+)", page)
    assert commands and all(words.strip() in COMMANDS for words in commands)


def test_the_site_builds_without_a_warning(tmp_path):
    for module in ("material", "mkdocstrings_handlers.python"):
        pytest.importorskip(module, reason="mkdocs is not installed; `make docs` installs it and builds the site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    for page in ("index.html", "docs/index.html", "docs/config/index.html", "CHANGELOG/index.html"):
        assert (tmp_path / page).stat().st_size, page
    api = (tmp_path / "docs/api/index.html").read_text(encoding="utf-8")
    assert 'id="tvilfm_plugin.evaluation.ranking.rank_metrics"' in api
