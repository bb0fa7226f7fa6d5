"""Draw a synthetic visible-infrared-text benchmark (`tvilfm data make`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.data import MAKE
from tvilfm_plugin.cli.tool import finish, tool

main = tool(MAKE)

if __name__ == "__main__":
    finish(main)
