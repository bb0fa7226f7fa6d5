"""tools/web.py as a command: it serves what was trained, says what is missing, and ends on Ctrl-C."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from run_scripts import load_tool

pytest.importorskip("starlette")
pytest.importorskip("fastreid")
from web_server import ask, search

from tvilfm_plugin.config import read_config
from tvilfm_plugin.data.loaders import build_dataset
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.web_examples import examples, first_gallery

web = load_tool("web")


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def dataset(tiny):
    cfg = read_config(tiny.config)
    with tiny.environment():
        return build_dataset(cfg, cfg.DATASETS.TESTS[0], text=True)


@contextlib.contextmanager
def served(*command, **environment):
    """The port of a page that a command serves; Ctrl-C must end it well."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        line = next((line for line in process.stdout if line.startswith("The page: ")), "")
        assert line, process.communicate()[1]
        yield int(re.search(r"http://127\.0\.0\.1:(\d+) ", line).group(1))
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in errors, errors


def test_it_serves_what_was_trained(tiny, trained, dataset):
    options = ["--config-file", tiny.config, "--weights", trained / "model_final.pth", "--port", "0", "--examples", "3"]
    data = str(tiny.folder / "data")
    with served(ROOT / "tools" / "web.py", *options, "MODEL.DEVICE", "cpu", FASTREID_DATASETS=data) as port:
        about = ask(port, "/about").json
        assert about["gallery"] == len(first_gallery(dataset)) and len(about["examples"]) == 3
        assert about["title"] == f"The gallery: {about['gallery']} visible pictures of 3 people (SYSU-MM01, first draw)."
        one = about["examples"][0]
        found = search(port, ask(port, "/examples/0").body, text=one["text"], infrared_text=one["infrared_text"]).json
        assert set(found["hits"][0]["shares"]) == {"ir", "text", "fusion"}
        assert {hit["person"] for hit in found["hits"]} <= {item.pid for item in dataset.gallery}
        # Only this machine can reach it.
        if Path("/proc/net/tcp").exists():
            rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            # State 0A listens; the address is in the machine's byte order.
            assert [local for _, local, _, state, *_ in rows if local.endswith(f":{port:04X}") and state == "0A"] == [
                f"{int.from_bytes(socket.inet_aton('127.0.0.1'), sys.byteorder):08X}:{port:04X}"
            ]


def test_it_serves_what_comes_with_the_plugin():
    with served("-m", "tvilfm_plugin.cli", "web", "--example", "--port", "0", "MODEL.DEVICE", "cpu") as port:
        about = ask(port, "/about").json
        assert about["gallery"] == 60 and len(about["examples"]) == 12 and "synthetic people" in about["title"]
        one = about["examples"][0]
        found = search(port, ask(port, "/examples/0").body, text=one["text"], infrared_text=one["infrared_text"]).json
        assert len(found["hits"]) > 1 and set(found["hits"][0]["shares"]) == {"ir", "text", "fusion"}


def test_missing_weights_name_the_command(tmp_path, capsys):
    assert web.main(["--weights", str(tmp_path / "none.pth")]) == 2
    assert f"No weights {tmp_path / 'none.pth'}. `make demo` trains them" in capsys.readouterr().err


def test_a_missing_gallery_is_named(tiny, trained, tmp_path, capsys):
    arguments = ["--config-file", tiny.config, "--weights", trained / "model_final.pth", "--port", "0"]
    assert web.main([*map(str, arguments), "--gallery", str(tmp_path / "none")]) == 2
    assert f"There is no folder {tmp_path / 'none'}" in capsys.readouterr().err


def test_make_web_is_the_tool_alone():
    if shutil.which("make") is None:
        pytest.skip("no make")
    command = ["make", "-n", "--no-print-directory", "web"]
    planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert planned.splitlines()[-1] == ".venv/bin/python tools/web.py"


def test_examples_are_the_queries_and_texts_of_the_evaluation(dataset):
    found = examples(dataset, 4)
    assert len(found) == 4 and found[0].path == dataset.query[0].path and found[-1].path == dataset.query[-1].path
    queries = {item.path: item for item in dataset.query}
    described = dataset.captions[Modality.IR]
    for one in found:
        assert one.person == queries[one.path].pid
        assert one.infrared_text == described[dataset.relative(one.path)].text
        own = [dataset.relative(item.path) for item in dataset.visible_pool if item.pid == one.person]
        assert one.text in {dataset.captions[Modality.RGB][path].text for path in own}
    assert len(examples(dataset, 10_000)) == len(dataset.query)
    assert {(one.text, one.infrared_text) for one in examples(dataset, 4, "none")} == {("", "")}


def test_visible_queries_are_refused(tiny):
    cfg = read_config(tiny.config, ["DATASETS.TESTS", ("TriRegDB",), "DATASETS.DIRECTION", "visible-to-infrared"])
    with tiny.environment():
        reverse = build_dataset(cfg, "TriRegDB", text=False)
    with pytest.raises(ValueError, match="Set DATASETS.DIRECTION infrared-to-visible"):
        first_gallery(reverse)
