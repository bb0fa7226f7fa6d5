"""The programs of `tools/`: the commands of `tvilfm` under the names and options that they had before."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from tvilfm_plugin.cli import contract
from tvilfm_plugin.cli.command import DEBUG, Command


def tool(
    *commands: Command, said: tuple[type[Exception], ...] = (), status: int = contract.MEND
) -> Callable[[Sequence[str] | None], int]:
    """The `main(argv)` of a program: does its command and returns the exit status.

    Args:
        commands: one, or several that the first word chooses between by the last word of their names.
        said: errors that `main` prints and turns into `status`; others it raises, for who calls it as a function.
    """

    def main(argv: Sequence[str] | None = None) -> int:
        words = list(sys.argv[1:] if argv is None else argv)
        prog = os.path.basename(sys.argv[0])
        if len(commands) == 1:
            command = commands[0]
        else:
            command = _chosen(commands, words, prog)
            prog = f"{prog} {words.pop(0)}"
        args = command.parse(words, prog, legacy=True)
        try:
            return int(command.work(args) or 0)
        except said as error:
            print(contract.sentence(error), file=sys.stderr)
            return status

    main.goes_on = commands[0].goes_on  # type: ignore[attr-defined]
    return main


def _chosen(commands: Sequence[Command], words: Sequence[str], prog: str) -> Command:
    known = {command.name.split()[-1]: command for command in commands}
    if words and words[0] in known:
        return known[words[0]]
    lines = [f"usage: {prog} COMMAND ...", "", *(f"  {name:12} {command.help}" for name, command in known.items())]
    asked = bool(words) and words[0] in ("-h", "--help")
    what = f"{words[0]!r} is no command" if words else "a command is missing"
    print("\n".join(lines) if asked else f"{prog}: error: {what}; choices are {', '.join(known)}.",
          file=sys.stdout if asked else sys.stderr)  # fmt: skip
    raise SystemExit(0 if asked else contract.MEND)


def finish(main: Callable[..., Any], goes_on: str = "") -> None | NoReturn:
    """Run a program's `main()` under the error contract; leaves with its exit status unless that is 0."""
    debug = DEBUG in sys.argv
    sys.argv = [word for word in sys.argv if word != DEBUG]
    prog = os.path.basename(sys.argv[0])
    status = contract.run(main, prog=prog, debug=debug, goes_on=goes_on or getattr(main, "goes_on", ""))
    if status:
        sys.exit(status)
    return None
