"""`python -m tvilfm_plugin path/to/train_net.py ARGS...`: run a script written for fast-reid with the plugin loaded."""

import os
import sys

from tvilfm_plugin.host.scripts import run_script

USAGE = """usage: python -m tvilfm_plugin SCRIPT [ARGS...]

Runs SCRIPT, e.g. fast-reid's tools/train_net.py, unmodified, with ARGS as its command line. The compatibility fixes
are applied, our data sets, models and config keys are known, and DefaultTrainer is the plugin's trainer; also in the
processes that --num-gpus starts."""


def main(argv: list[str]) -> int:
    """Run the script that `argv` names; returns the exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    script, *args = argv
    if not os.path.isfile(script):
        print(f"{USAGE}\n\nThere is no script {script!r} (from {os.getcwd()}).", file=sys.stderr)
        return 2
    run_script(script, args)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
