"""`tvilfm`: the commands, found by their words."""

import difflib
import sys
from collections.abc import Sequence

from tvilfm_plugin import __version__
from tvilfm_plugin.cli import captions, completion, contract, data, exchange, pictures, reproducing, results, searching
from tvilfm_plugin.cli import training as training
from tvilfm_plugin.cli import weights as weights
from tvilfm_plugin.cli.command import DEBUG, Command

GROUPS = {
    "train and evaluate": (*training.COMMANDS, training.demo(lambda words: main(words))),
    "results": (*results.COMMANDS, *exchange.COMMANDS, *pictures.COMMANDS, *reproducing.COMMANDS),
    "search": searching.COMMANDS,
    "data and text": (*data.COMMANDS, *captions.COMMANDS),
    "weights": weights.COMMANDS,
    "shell": (completion.completion(lambda: COMMANDS),),
}
COMMANDS: dict[str, Command] = {command.name: command for group in GROUPS.values() for command in group}
HELP = ("-h", "--help", "help")
ABOUT = "Text-enhanced visible-infrared person re-identification (TVI-LFM) on fast-reid."


def overview(prefix: str = "") -> str:
    """The commands whose names begin with these words, by group."""
    lines = [f"usage: tvilfm {prefix}COMMAND [options]", ""]
    lines += [ABOUT, ""] if not prefix else []
    for group, commands in GROUPS.items():
        shown = [command for command in commands if command.name.startswith(prefix)]
        lines += [f"{group}:", *(f"  {one.name:22} {one.help}" for one in shown), ""] if shown else []
    lines.append(f"tvilfm {prefix}COMMAND --help explains one. tvilfm --version prints the version.")
    if not prefix:
        lines.append("Configs are found by name (tvilfm train sysu.yml), data sets below $FASTREID_DATASETS or ./datasets.")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what a command line says; returns the exit status. Nothing is raised but what --debug asks for."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = bool(words) and words[0] == DEBUG
    words = words[1:] if debug else words
    if not words or words[0] in HELP and len(words) == 1:
        print(overview(), file=sys.stdout if words else sys.stderr)
        return 0 if words else contract.MEND
    if words[0] == "--version":
        print(f"tvilfm {__version__}")
        return 0
    if words[0] == "help":
        words = [*words[1:], "--help"]
    command = next((COMMANDS[name] for n in (2, 1) if (name := " ".join(words[:n])) in COMMANDS), None)
    if command is None:
        return _no_command(words)
    prog = f"tvilfm {command.name}"
    try:
        args = command.parse(words[len(command.name.split()) :], prog)
        run = contract.run_script if command.rest else contract.run
        return run(lambda: command.work(args), prog=prog, debug=debug or args.debug, goes_on=command.goes_on)
    except SystemExit as leaving:  # --help, a wrong option, or a script that leaves
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
            return contract.FAILED
        return leaving.code or 0


def _no_command(words: Sequence[str]) -> int:
    group = f"{words[0]} "
    inner = [name.removeprefix(group) for name in COMMANDS if name.startswith(group)]
    if inner and (len(words) == 1 or words[1] in HELP):
        print(overview(group), file=sys.stdout if len(words) > 1 else sys.stderr)
        return 0 if len(words) > 1 else contract.MEND
    asked, known = (words[1], inner) if inner else (words[0], list(dict.fromkeys(name.split()[0] for name in COMMANDS)))
    close = difflib.get_close_matches(asked, known, n=2)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    prefix = group if inner else ""
    print(f"tvilfm: error: there is no command {prefix + asked!r}.{hint} Choices are {', '.join(known)}.", file=sys.stderr)
    return contract.MEND


def entry() -> None:
    """The console script."""
    sys.exit(main())
