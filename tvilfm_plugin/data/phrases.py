"""People's phrases by identity: lines "identity<TAB>phrase", or the Python file that YYDS's authors keep theirs in."""

import ast
from collections.abc import Sequence
from pathlib import Path

from tvilfm_plugin.files.json import shorten
from tvilfm_plugin.files.text import is_number, read_lines, read_text

Phrases = dict[int, list[str]]
LINE = "identity<TAB>phrase"


def read_phrases(file: str, dataset: str, pids: Sequence[int]) -> Phrases:
    """Identity -> its phrases, one or more.

    Args:
        file: lines of an identity's number, a tab and a phrase; or, ending in .py, assignments SYSU_Refer, RegDB_Refer and
            LLCM_Refer of {identity: phrase}, which are read as literals: nothing of the file is run.
        dataset: key of the data set, for a file with those of several.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f"There is no file {file} of people's phrases; expected lines {LINE!r}.")
    phrases = _assigned(file, dataset) if file.endswith(".py") else _lines(file)
    missing = [pid for pid in pids if pid not in phrases]
    if missing:
        raise ValueError(
            f"{file} has no phrase for {len(missing)} of {len(pids)} identities "
            f"({', '.join(map(str, missing[:5]))}). Add a line for each."
        )
    return phrases


def _lines(file: str) -> Phrases:
    phrases: Phrases = {}
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        identity, tab, phrase = line.partition("\t")
        if not tab or not is_number(identity.strip()) or not phrase.strip():
            raise ValueError(f"{file}, line {number}: expected {LINE!r}, found {shorten(line)}.")
        phrases.setdefault(int(identity), []).append(phrase.strip())
    return phrases


def _assigned(file: str, dataset: str) -> Phrases:
    wanted = f"{dataset}_refer"
    try:
        tree = ast.parse(read_text(file))
    except SyntaxError as error:
        raise ValueError(f"{file}, line {error.lineno}: this is not Python ({error.msg}).") from None
    except (ValueError, RecursionError, MemoryError) as error:  # zero bytes, endless numbers, deep nesting
        raise ValueError(f"{file} is not Python that can be read ({type(error).__name__}: {error}).") from None
    names = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names.append(node.targets[0].id)
            if names[-1].lower() == wanted:
                return _literal(node.value, file)
    found = [name for name in names if name.lower().endswith("_refer")]
    raise ValueError(f"{file} assigns no {wanted.upper()} ({', '.join(found) or 'nothing of that kind'}).")


def _literal(node: ast.expr, file: str) -> Phrases:
    try:
        said = ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        said = None
    if not isinstance(said, dict) or not all(type(k) is int and isinstance(v, str) and v.strip() for k, v in said.items()):
        raise ValueError(f"{file}, line {node.lineno}: expected {{identity: phrase}} as a literal.")
    return {pid: [phrase.strip()] for pid, phrase in said.items()}
