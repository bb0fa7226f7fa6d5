"""Before a run starts: nothing is written where it cannot, and an evaluation leaves the description of a run as it is."""

import shutil

import pytest
from tiny_runs import TinyRuns

from tvilfm_plugin.cli.main import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["OUTPUT_DIR", ""], "OUTPUT_DIR is empty; name the folder of the run"),
        (["--out-dir", "file"], "file is a file. Name another folder."),
        (["--out-dir", "new", "DATASETS.ROOT", "nowhere"], "no folder nowhere in "),
        (["--out-dir", "new", "DATASETS.TESTS", "('TriRegDB',)", "DATASETS.ROOT", "SYSU-MM01"], "Missing id file"),
        (["--out-dir", "new", "SOLVER.BASE_LR", "-1"], "SOLVER.BASE_LR is -1"),
        (["--out-dir", "new", "SOLVER.MAX_EPOCH", "0"], "so nothing would be trained"),
        (["OUTPUT_DIR", "/proc/x"], "The folder /proc/x cannot be made"),
    ],
)
def test_nothing_is_written_before_everything_is_found(tiny, words, said, tmp_path, monkeypatch, capsys):
    """The data of the evaluation, which comes last, included."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    with tiny.environment():
        assert main(["train", str(tiny.config), *words]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_missing_captions_leave_nothing_behind(tmp_path, capsys):
    runs = TinyRuns(tmp_path / "runs")
    shutil.rmtree(runs.folder / "data" / "SYSU-MM01" / "Text")
    with runs.environment():
        assert main(["train", str(runs.config), "--out-dir", str(tmp_path / "out")]) == 2
    assert "caption" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_an_evaluation_leaves_the_config_of_the_run_as_it_is(tiny, trained, capsys):
    out = tiny.folder / "evaluated"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(trained, out)
    before = (out / "config.yaml").read_text()
    with tiny.environment():
        assert main(["eval", str(out), "TEST.DRAWS", "1", "TEST.TEXT_SOURCES", "('none',)", "DATASETS.MODES", "('all',)"]) == 0
    assert (out / "config.yaml").read_text() == before
    with tiny.environment():
        assert main(["eval", str(out), "--out-dir", str(out / "b"), "TEST.DRAWS", "1", "DATASETS.MODES", "('all',)"]) == 0
    assert "DRAWS: 1" in (out / "b" / "config.yaml").read_text()
