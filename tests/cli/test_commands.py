"""`tvilfm` as a program: its commands, what help says, what it costs to start, and how it answers mistakes."""

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tvilfm_plugin.cli import contract
from tvilfm_plugin.cli.command import split_overrides
from tvilfm_plugin.cli.main import COMMANDS, main, overview
from tvilfm_plugin.data.tokenizer import tokenize
from tvilfm_plugin.files.writing import locked
from tvilfm_plugin.host.devices import usable_device

ROOT = Path(__file__).parents[2]
# What the documents and the mission name, at the least.
WANTED = (
    "train", "eval", "run", "search", "web", "serve", "demo", "data make", "data check", "captions generate",
    "captions rephrase",
    "captions audit", "captions finetune", "captions pairs", "captions demo", "results show", "results compare",
    "results rules",
    "results thresholds", "results robustness", "results export", "results score", "results orbench",
    "results report", "results sheet", "results cmc", "export", "import",
    "reproduce", "config", "pretrain align-text", "pretrain vit",
)  # fmt: skip


def test_starting_costs_little():
    """Neither torch nor fast-reid, nor what they bring, is loaded for help, completion or a version."""
    code = """
import sys
from tvilfm_plugin.cli.main import COMMANDS, main
assert main(["--help"]) == main(["--version"]) == main(["completion", "bash"]) == 0
assert all(main([*name.split(), "--help"]) == 0 for name in COMMANDS)
heavy = {"torch", "fastreid", "yacs", "numpy", "PIL", "yaml", "open_clip", "faiss", "matplotlib", "transformers", "tqdm"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_command_is_there_and_in_the_overview():
    assert set(WANTED) <= set(COMMANDS)
    assert all(f"  {name} " in overview() for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_complete(name, capsys):
    assert main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert "examples:\n  " in text and f"tvilfm {name}" in text
    parser = COMMANDS[name].parser(f"tvilfm {name}")
    for action in parser._actions:
        assert action.help, f"{name} does not explain {action.dest}"
        untold = action.default in (None, "", False, argparse.SUPPRESS, ()) or action.default == []
        if action.option_strings and not untold:
            shown = parser._get_formatter()._get_help_string(action)
            assert "default" in shown, f"{name} does not say the default of {action.dest}"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_options(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    ask = """
complete_() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tvilfm; printf '%s\\n' "${COMPREPLY[*]}"; }
complete_ tvilfm resu; complete_ tvilfm results sho; complete_ tvilfm results show RUN --ver; complete_ tvilfm train x.yml --res
complete_ tvilfm reproduce tab
"""
    script = script.replace("autoload -U +X bashcompinit && bashcompinit\n", "")
    done = subprocess.run(["bash", "-c", script + ask], capture_output=True, text=True, timeout=20, cwd=ROOT / "configs")
    assert done.stdout.splitlines() == ["results", "show", "--verify", "--resume", "table1 table2 table3 table5"], done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_one_vocabulary_of_options(name):
    flags = {flag: action for action in COMMANDS[name].parser("x")._actions for flag in action.option_strings}
    for flag, action in flags.items():
        assert flag == flag.lower() and "_" not in flag
        if flag == "--out":
            assert "folder" not in action.help.split(" (")[0], f"{name}: a folder is --out-dir"
        if flag == "--out-dir":
            assert "file" not in action.help.split()
    assert not {"--output", "--output-dir", "--data-set", "--dir"} & set(flags)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reslts"], "Did you mean results?"),
        (["results", "sho"], "Did you mean show?"),
        (["train"], "required: config"),
        (["train", "syus.yml"], "Did you mean sysu"),
        (["eval", "nowhere"], "There is no folder nowhere"),
        (["results", "show", "nowhere"], "nowhere holds no evaluation"),
        (["search", "nowhere", "--gallery", "x"], "There is no folder nowhere"),
        (["search"], "give --gallery DIR, --index FILE, or both"),
        (["data", "check", "--dataset", "sysus"], "choose from"),
        (["reproduce", "table2", "--dataset", "llcm"], "table2 is about sysu"),
        (["train", "sysu.yml", "SOLVER.MAX_EPOCH"], "has no value"),
        (["run", "nowhere.py"], "nowhere.py"),
    ],
)
def test_mistakes_are_one_line_and_status_2(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert not out and said in err and "Traceback" not in err
    assert len(err.strip().splitlines()) == 1, err


@pytest.mark.parametrize("option", ["--out", "--out-dir"])
@pytest.mark.parametrize(
    ("place", "said"),
    [("", "it is empty; name a f"), ("file/x", "file is a file. Name another folder."), ("closed/x", "closed is read-only")],
)
def test_where_results_go_is_asked_before_the_work(option, place, said, capsys, tmp_path, monkeypatch):
    """Of every command that writes: no run, no data set and no network is looked for before."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "closed").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed")  # root may write everywhere
    writing = [name for name, command in COMMANDS.items() if option in command.parser("x")._option_string_actions]
    assert len(writing) > 5
    for name in writing:
        assert main([*name.split(), option, place]) == 2
        out, err = capsys.readouterr()
        assert not out and said in err and err.count("\n") == 1, err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["closed", "file"]


def test_a_missing_file_is_told_with_what_it_may_be(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.json").write_text("[]")
    assert main(["captions", "finetune", "--pairs", "pair.json", "--init", "small", "--out-dir", "x"]) == 2
    assert "Did you mean ./pairs.json?" in capsys.readouterr().err
    assert main(["captions", "finetune", "--pairs", "nowhere/pair.json", "--init", "small", "--out-dir", "x"]) == 2
    assert "there is no folder nowhere" in capsys.readouterr().err
    assert main(["results", "score", ".", "--dataset", "sysu", "--text-source", "none"]) == 2


def test_messages_name_commands_and_no_file_of_the_checkout():
    """Who installed the wheel has no tools/. What is said of fast-reid's own scripts may."""
    found = []
    for path in sorted((ROOT / "tvilfm_plugin").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        found += [f"{path.name}:{one.lineno}" for one in texts if re.search(r"\btools/(?!train_net)\w+\.py", one.value)]
        named = [name for one in texts for name in re.findall(r"`tvilfm ([a-z -]+)", one.value)]
        wrong = [one for one in named if not any(f"{one} ".startswith(f"{name} ") for name in COMMANDS)]
        found += [f"{path.name}: {one}" for one in wrong if one.split() and f"{one.split()[0]} " not in " ".join(COMMANDS)]
    assert not found
    said = [path for path in (ROOT / "tvilfm_plugin").rglob("*.py") if "tools/train_net" in path.read_text(encoding="utf-8")]
    assert {path.parent.name for path in said} <= {"cli", "host"}


def test_overrides_may_stand_anywhere_and_are_nobodys_list_items():
    parser = COMMANDS["train"].parser("x")
    words, pairs = split_overrides(["a.yml", "SOLVER.BASE_LR", "-1", "--resume", "STAGE1.SEED", "3"], parser)
    assert words == ["a.yml", "--resume"] and pairs == ["SOLVER.BASE_LR", "-1", "STAGE1.SEED", "3"]
    args = COMMANDS["search"].parse(["RUN", "--members", "ir", "text", "MODEL.DEVICE", "cpu", "--gallery", "g"], "x")
    assert args.members == ["ir", "text"] and args.opts == ["MODEL.DEVICE", "cpu"]


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("TEST.DRAWS is 0: give at least 1."), 2, "x: error: TEST.DRAWS is 0: give at least 1."),
        (KeyError("No caption for 'a'."), 2, "x: error: No caption for 'a'."),
        (FileNotFoundError(2, "No such file or directory", "a.json"), 2, "a.json: there is no such file or folder (seen from "),
        (PermissionError(13, "Permission denied", "a.json"), 2, "a.json: this user may not read or write it; change"),
        (ModuleNotFoundError("install it"), 2, "x: error: install it"),
        (KeyError("model"), 1, "KeyError: model (unexpected"),
        (TypeError("f() takes 1"), 1, "TypeError: f() takes 1 (unexpected"),
        (OSError(28, "No space left on device", "a.pth"), 2, "The disk is full (a.pth: No space left on device)"),
        (KeyboardInterrupt(), 130, "x: stopped. Go on."),
    ],
)
def test_the_error_contract(error, status, said, capsys):
    assert contract.run(raising(error), prog="x", goes_on="Go on.") == status
    err = capsys.readouterr().err
    assert said in err and len(err.strip().splitlines()) == 1
    if status != 130:
        assert contract.run(raising(error), prog="x", debug=True) == status
        assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_what_our_code_says_is_no_fault_of_the_program(tmp_path, capsys):
    """Its own `raise`, of whatever kind; the same kind from a library that it calls is one."""

    def held():
        with locked(tmp_path / "a.lock", "index"), locked(tmp_path / "a.lock", "index", wait=0):
            pass

    assert contract.run(held, prog="x") == 2 and contract.run(lambda: tokenize("a man"), prog="x") == 2
    assert "unexpected" not in capsys.readouterr().err
    assert contract.run(lambda: usable_device("xyz"), prog="x") == 1
    assert "unexpected: a fault" in capsys.readouterr().err


def test_a_full_disk_behind_another_error_is_called_so(capsys):
    try:
        try:
            raise OSError(28, "No space left on device")
        except OSError as full:
            raise RuntimeError("could not write") from full
    except RuntimeError as error:
        assert contract.run(raising(error), prog="x") == 2
    assert "The disk is full" in capsys.readouterr().err


def test_the_error_of_a_child_process_is_told_by_its_last_line(capsys):
    kind = type("ProcessRaisedException", (Exception,), {})
    text = "\n-- Process 1 terminated with the following error:\nTraceback (most recent call last):\n  File x\n"
    assert contract.run(raising(kind(text + "ValueError: SEED is -2.\n")), prog="x") == 2
    assert capsys.readouterr().err == "x: error: SEED is -2.\n"


def test_a_tool_answers_like_the_command(tmp_path):
    tool = str(ROOT / "tools" / "show_results.py")
    done = subprocess.run([sys.executable, tool, "nowhere"], capture_output=True, text=True, cwd=tmp_path, timeout=200)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("show_results.py: error: nowhere holds no evaluation") and done.stderr.count("\n") == 1


def test_the_default_of_an_option_is_that_of_its_function():
    from tvilfm_plugin.description.questions import NOISE

    assert COMMANDS["results dialogue"].parser("x").get_default("noise") == NOISE
