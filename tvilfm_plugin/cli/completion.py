"""`tvilfm completion`: a script that completes commands and options in a shell without starting Python."""

import argparse
from collections.abc import Callable

from tvilfm_plugin.cli.command import Command, Parser

_BASH = """\
# Completion of tvilfm: eval "$(tvilfm completion {shell})"
{zsh}_tvilfm() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    local one="${{COMP_WORDS[1]}}" two="${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{first} --help --version"
    else
        case "$one" in
{groups}
        esac
        if [ "$COMP_CWORD" -gt 2 ] || [ -z "$words" ]; then
            case "$two" in
{inner}
            *) case "$one" in
{outer}
            esac ;;
            esac
        fi
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    case "$word" in
        -*) ;;
        *) [ "$COMP_CWORD" -gt 1 ] && COMPREPLY+=($(compgen -f -- "$word")) ;;
    esac
}}
complete -o filenames -F _tvilfm tvilfm
"""


def _options(parser: Parser) -> None:
    parser.positional("shell", choices=("bash", "zsh"), help="whose script is printed")


def script(shell: str, commands: dict[str, Command]) -> str:
    """The completion script of these commands."""
    flags = {name: _flags(command) for name, command in commands.items()}
    first = list(dict.fromkeys(name.split()[0] for name in commands))
    groups = {word: [name.split()[1] for name in commands if name.startswith(f"{word} ")] for word in first}
    case = lambda pattern, words: f'            {pattern}) words="{" ".join(words)}" ;;'
    return _BASH.format(
        shell=shell,
        zsh="autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else "",
        first=" ".join(first),
        groups="\n".join(case(word, inner) for word, inner in groups.items() if inner),
        inner="\n".join(case(f'"{name}"', words) for name, words in flags.items() if " " in name),
        outer="\n".join("    " + case(name, words) for name, words in flags.items() if " " not in name),
    )


def _flags(command: Command) -> list[str]:
    """Its options, and the choices of its first positional."""
    actions = command.parser("tvilfm")._actions
    positional = [action for action in actions if not action.option_strings]
    choices = list(positional[0].choices or ()) if positional else []
    return [*choices, *(flag for action in actions for flag in action.option_strings if flag.startswith("--"))]


def completion(commands: Callable[[], dict[str, Command]]) -> Command:
    """The command that prints the script of these commands."""

    def work(args: argparse.Namespace) -> int:
        print(script(args.shell, commands()), end="")
        return 0

    return Command(
        name="completion",
        help="print a script that completes commands and options in bash or zsh",
        options=_options,
        work=work,
        examples=('eval "$(tvilfm completion bash)"',),
    )
