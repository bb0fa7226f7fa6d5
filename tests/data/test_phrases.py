"""People's phrases: lines, and the literals of a Python file."""

import pytest

from tvilfm_plugin.data.phrases import read_phrases

SOURCE = """import os
os.nothing_of_this_is_run()
SYSU_Refer = {
    1: 'a man with a gray coat', 7: "a woman in blue",
}
RegDB_Refer = {1: 'a person with a red top'}
"""


def test_literals_by_data_set(tmp_path):
    file = tmp_path / "utils_new.py"
    file.write_text(SOURCE)
    assert read_phrases(str(file), "sysu", [7]) == {1: ["a man with a gray coat"], 7: ["a woman in blue"]}
    assert read_phrases(str(file), "regdb", [1]) == {1: ["a person with a red top"]}
    with pytest.raises(ValueError, match=r"assigns no LLCM_REFER \(SYSU_Refer, RegDB_Refer\)"):
        read_phrases(str(file), "llcm", [1])
    with pytest.raises(ValueError, match=r"no phrase for 1 of 1 identities \(2\)"):
        read_phrases(str(file), "sysu", [2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SYSU_Refer = {1: print()}", "a literal"),
        ("SYSU_Refer = {1: ' '}", "a literal"),
        ("SYSU_Refer = {[]: 'x'}", "a literal"),
        ("SYSU_Refer = {True: 'x'}", "a literal"),
        ("x = (", "line 1: this is not"),
        ("x = '\0'", "x.py.* not Python"),
        ("SYSU_Refer = " + "-" * 20_000 + "1", "x.py"),
    ],
)
def test_what_is_no_literal_is_refused(tmp_path, text, message):
    file = tmp_path / "x.py"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_phrases(str(file), "sysu", [1])


@pytest.mark.parametrize("line", ["1 x", "1\t ", "²\tx", "-1\tx", "9" * 5000 + "\tx"])
def test_a_line_is_a_number_a_tab_and_a_phrase(tmp_path, line):
    file = tmp_path / "phrases.txt"
    file.write_text(f"# people\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="phrases.txt, line 2: expected 'identity<TAB>phrase', found '.{2,70}$"):
        read_phrases(str(file), "sysu", [1])
