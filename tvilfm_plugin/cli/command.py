"""What a command is: a name, options, and a function that does it. Nothing here loads torch or fast-reid."""

import argparse
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tvilfm_plugin.files.writing import FolderError, check_file, check_folder

# A key of fast-reid's config, of ours, or of stage 1 alone: what it is followed by is its value.
KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)+|SEED|OUTPUT_DIR|CUDNN_BENCHMARK|VERSION")
DEBUG = "--debug"


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Text as it is written; defaults behind every option that has one and does not explain it itself."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        untold = action.default in (None, "", False) or isinstance(action.default, (list, tuple)) and not action.default
        if untold or action.default is argparse.SUPPRESS or "default" in (action.help or ""):
            return action.help
        if isinstance(action.default, (list, tuple)):
            return f"{action.help or ''} (default: {' '.join(map(str, action.default))})".strip()
        return super()._get_help_string(action) or "(default: %(default)s)"


def _place(check: Callable[..., Path]) -> Callable[[str], Path]:
    """The type of an option that says where results go: asked before the work, not after it."""

    def place(text: str) -> Path:
        try:
            return check(text, "it")
        except FolderError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return place


PLACES = {"--out": _place(check_file), "--out-dir": _place(check_folder)}


class Parser(argparse.ArgumentParser):
    """Options in the one vocabulary; a tool of `tools/` (`legacy`) takes its older names as well."""

    def __init__(self, *, legacy: bool = False, **settings: Any) -> None:
        super().__init__(formatter_class=Formatter, allow_abbrev=legacy, **settings)
        self.legacy = legacy

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:  # type: ignore[override]
        """As argparse's; `--out` and `--out-dir` must be places that can be written to."""
        if names and names[0] in PLACES:
            settings["type"] = PLACES[names[0]]
        return super().add_argument(*names, **settings)

    def option(self, *names: str, old: Sequence[str] = (), **settings: Any) -> None:
        """An option; `old` are the names that a tool gave it before there was `tvilfm`."""
        settings.setdefault("dest", names[0].lstrip("-").replace("-", "_"))
        settings.setdefault("help", "")
        self.add_argument(*names, *(old if self.legacy else ()), **settings)

    def positional(self, name: str, **settings: Any) -> None:
        """A run, a config file, a script: what the command is about."""
        self.add_argument(name, **settings)

    def error(self, message: str) -> NoReturn:
        """One line: what is wrong, and where the choices are listed."""
        print(f"{self.prog}: error: {message.rstrip('.')}. `{self.prog} --help` lists the options.", file=sys.stderr)
        raise SystemExit(2)


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command of `tvilfm`.

    Attributes:
        name: the words that choose it, e.g. "data make".
        help: what it does, one line.
        work: does it; returns the exit status.
        options: adds its options to a parser.
        about: further paragraphs of its help.
        examples: command lines as they are typed.
        overrides: whether it takes KEY VALUE pairs of the config.
        goes_on: what an interrupted run is told.
        rest: whether its words belong to somebody else: they are handed on in `words`.
    """

    name: str
    help: str
    work: Callable[[argparse.Namespace], int]
    options: Callable[[Parser], None] = lambda parser: None
    about: str = ""
    examples: Sequence[str] = ()
    overrides: bool = False
    goes_on: str = ""
    rest: bool = False

    def parser(self, prog: str, legacy: bool = False) -> Parser:
        """Its command line."""
        paragraphs = [self.help[0].upper() + self.help[1:] + ".", self.about]
        if self.overrides:
            paragraphs.append("KEY VALUE pairs, anywhere on the line, override the config, e.g. MODEL.DEVICE cpu.")
        ending = "\n".join(["examples:", *(f"  {line}" for line in self.examples)]) if self.examples else ""
        usage = f"{prog} [options] ..." if self.rest else None
        description = "\n\n".join(textwrap.fill(text, 100) for text in paragraphs if text)
        parser = Parser(prog=prog, legacy=legacy, description=description, epilog=ending, usage=usage)
        self.options(parser)
        parser.option(DEBUG, action="store_true", help="show the traceback of an error")
        return parser

    def parse(self, words: Sequence[str], prog: str, legacy: bool = False) -> argparse.Namespace:
        """The command line, with the KEY VALUE pairs in `opts`; ends the process where it is wrong."""
        parser = self.parser(prog, legacy)
        if self.rest and words and words[0] not in ("-h", "--help", DEBUG):
            return argparse.Namespace(words=list(words), debug=False, parser=parser)
        others, pairs = split_overrides(words, parser) if self.overrides else (list(words), [])
        args = parser.parse_args(others)
        args.opts = pairs
        args.parser = parser
        return args


def split_overrides(words: Sequence[str], parser: argparse.ArgumentParser) -> tuple[list[str], list[str]]:
    """(other words, KEY VALUE pairs): an option that takes a list would swallow the overrides behind it."""
    others: list[str] = []
    pairs: list[str] = []
    left = iter(words)
    for word in left:
        if KEY.fullmatch(word):
            value = next(left, None)
            if value is None:
                parser.error(f"{word} has no value: overrides come as KEY VALUE pairs")
            pairs += [word, value]
        else:
            others.append(word)
    return others, pairs
