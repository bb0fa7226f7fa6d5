"""`python -m tvilfm_plugin path/to/train_net.py ARGS...`: run a script written for fast-reid with the plugin loaded."""

import sys

from tvilfm_plugin.cli import contract
from tvilfm_plugin.cli.command import DEBUG
from tvilfm_plugin.host.scripts import run as main

if __name__ == "__main__":
    debug = sys.argv[1:2] == [DEBUG]
    words = sys.argv[1 + debug :]
    sys.exit(contract.run_script(lambda: main(words), prog="python -m tvilfm_plugin", debug=debug))
