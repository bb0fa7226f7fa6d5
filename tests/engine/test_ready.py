"""Before a run starts: nothing is written where it cannot, and an evaluation leaves the description of a run as it is."""

import shutil

import pytest
from fastreid.engine import default_argument_parser, default_setup
from tiny_runs import TinyRuns, forget_logging

from tvilfm_plugin.cli.main import main
from tvilfm_plugin.config import read_config


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
    """Of the command, of tools/train_net.py, and of a script that knows fast-reid alone."""
    runs, out = TinyRuns(tmp_path / "runs"), tmp_path / "out"
    shutil.rmtree(runs.folder / "data" / "SYSU-MM01" / "Text")
    with runs.environment():
        assert main(["train", str(runs.config), "--out-dir", str(out)]) == 2
    assert "caption" in capsys.readouterr().err and not out.exists()
    args = default_argument_parser().parse_args(["--config-file", str(runs.config), "OUTPUT_DIR", str(out)])
    for start in (runs.tool.main, lambda args: default_setup(read_config(args.config_file, args.opts), args)):
        with runs.environment(), pytest.raises(FileNotFoundError, match="no caption_dict"):
            start(args)
        assert not out.exists()


def test_a_script_may_register_its_data_set_after_the_set_up(tmp_path):
    """As under plain fast-reid: only what is known to be ours is asked for first."""
    words = ["OUTPUT_DIR", str(tmp_path), "DATASETS.NAMES", "('Late',)", "DATASETS.TESTS", "('Late',)"]
    default_setup(read_config(opts=words), default_argument_parser().parse_args([]))
    forget_logging()
    assert (tmp_path / "config.yaml").is_file()


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
