"""The examples of docs/extending run as they stand: what the page shows is what is executed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastreid")

ROOT = Path(__file__).parents[1]
PAGES = {
    "backbone": "torch.Size([4, 64])",
    "fusion": "the gate has a gradient",
    "loss": "loss_centre",
    "method": "loss_halves_apart",
    "captioner": "a person in a red top and blue trousers",
    "dataset": "all/infrared/R-1",
}


def blocks(page, language):
    text = (ROOT / "docs" / "extending" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


# One process of their own for all (what they register must not stay in this one), and a fresh namespace for each.
DRIVER = """
import contextlib, io, json, runpy, sys, traceback
found = {}
for script in sys.argv[1:]:
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            runpy.run_path(script, run_name="__main__")
        error = ""
    except BaseException:
        error = traceback.format_exc()
    found[script] = out.getvalue(), error
print("RESULT" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Page -> what its example printed, and its traceback or ""."""
    folder = tmp_path_factory.mktemp("examples")
    scripts = {}
    for page in PAGES:
        (example,) = blocks(page, "python")
        scripts[page] = folder / f"{page}.py"
        scripts[page].write_text(example, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    words = [sys.executable, "-c", DRIVER, *map(str, scripts.values())]
    run = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.rpartition("RESULT")[2])
    return {page: found[str(script)] for page, script in scripts.items()}


@pytest.mark.parametrize("page", PAGES)
def test_the_example_runs(page, outcomes):
    if page == "captioner":
        pytest.importorskip("transformers")
    printed, error = outcomes[page]
    assert not error, error
    assert PAGES[page] in printed


@pytest.mark.parametrize("page", PAGES)
def test_the_example_would_run_alone(page):
    """The host is fixed before it is imported: in the shared process another page's import would hide that."""
    (example,) = blocks(page, "python")
    assert "fastreid" not in example.partition("import tvilfm_plugin")[0]


def test_every_page_is_listed_and_every_link_leads_somewhere():
    folder = ROOT / "docs" / "extending"
    assert {page.stem for page in folder.glob("*.md")} == {*PAGES, "README"}
    for page in folder.glob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert (folder / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ("captioner", "dataset")])
def test_the_commands_set_keys_that_exist(page):
    from tvilfm_plugin.config import read_config

    (command,) = blocks(page, "bash")
    words = re.sub(r"\\\n", " ", command)
    config = re.search(r"--config-file (\S+)", words).group(1)
    cfg = read_config(ROOT / config)
    pairs = re.findall(r"""([A-Z0-9_]+(?:\.[A-Z0-9_]+)+) ("[^"]*"|\S+)""", words)
    assert pairs
    cfg.merge_from_list([word.strip('"') for pair in pairs for word in pair])
