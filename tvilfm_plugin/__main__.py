"""`python -m tvilfm_plugin path/to/train_net.py ARGS...`: run a script written for fast-reid with the plugin loaded."""

import sys

from tvilfm_plugin.host.scripts import run as main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
