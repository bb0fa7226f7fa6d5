"""The table of `docs/extending/README.md` finds what it says it finds."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = re.findall(
    r"^\| ([^|]+) \| `([\w/]+\.py)` \| `([\w.]+)` \| `([^`]+)` \|$",
    (ROOT / "docs/extending/README.md").read_text(encoding="utf-8"),
    flags=re.M,
)


def test_the_equations_are_all_there():
    assert {number for what, *_ in TABLE for number in re.findall(r"Eq\. (\d+)", what)} == {"3", "7", "8", "10", "11"}


@pytest.mark.parametrize(("what", "file", "name", "phrase"), TABLE)
def test_it_is_where_the_table_says(what, file, name, phrase):
    text = (ROOT / "tvilfm_plugin" / file).read_text(encoding="utf-8")
    node = ast.parse(text)
    for part in name.split("."):
        found = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.ClassDef) and one.name == part]
        assert found, f"{file} has no {name}"
        node = found[0]
    assert phrase in ast.get_source_segment(text, node)
