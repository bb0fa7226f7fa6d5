import pytest
from run_scripts import load_tool
from stored_runs import add_images, tiny_run

compare = load_tool("compare")
compare_rules = load_tool("compare_rules")
show_results = load_tool("show_results")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools")
    for seed in range(2):
        tiny_run(folder / f"bad{seed}", noise=2.5, seed=seed)
        tiny_run(folder / f"good{seed}", noise=1.3, seed=10 + seed)
    tiny_run(folder / "other", TVILFM__PRESET="released")
    return folder


def test_two_systems_with_two_trainings_each(runs, capsys, tmp_path):
    out = tmp_path / "new" / "report.md"
    arguments = [str(runs / "bad*"), f"{runs}/good0,{runs}/good1", "--metric", "mAP", "R-1", "--out", str(out)]
    assert compare.main(arguments) == 0
    text = capsys.readouterr().out
    assert out.read_text() == text
    assert text.count("all/ensemble (oracle)") == text.count("all/ensemble (self)") == 2 + 4
    assert "p (seeds, Holm)" in text and "4 compared rows" in text


def test_different_protocols_are_refused(runs, capsys):
    assert compare.main([str(runs / "bad0"), str(runs / "other")]) == 2
    assert "preset is 'paper' or 'released'" in capsys.readouterr().err
    assert compare.main([str(runs / "bad0"), str(runs / "other"), "--despite", "preset"]) == 0
    assert "WARNING: the protocol differs in preset" in capsys.readouterr().out


def test_a_run_that_was_not_evaluated_is_named(runs, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no evaluation"):
        compare.main([str(runs / "bad0"), str(tmp_path)])


def test_results_are_shown_with_intervals_and_verified(runs, capsys):
    add_images(runs / "good0")
    assert show_results.main([str(runs / "good0"), "--verify", "--intervals", "--queries", "1"]) == 0
    text = capsys.readouterr().out
    assert "[95 % interval]" in text and ": verified" in text and "Picture: " in text


def test_rules_are_compared(runs, capsys):
    assert compare_rules.main([str(runs / "good0")]) == 0
    text = capsys.readouterr().out
    assert "all/infrared" in text and "all/ensemble" in text and "best single draw (of 3" in text
    table = next((runs / "good0").glob("evaluation/*/rules.md")).read_text()
    assert table.splitlines()[2] in text
    assert compare_rules.main([str(runs / "good0"), "--query", "nonsense"]) == 2
    assert "ensemble@self" in capsys.readouterr().err
