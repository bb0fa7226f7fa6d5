"""Compare two systems on the same queries (`tvilfm results compare`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.results import COMPARE
from tvilfm_plugin.cli.tool import finish, tool

main = tool(COMPARE, said=(ValueError,))

if __name__ == "__main__":
    finish(main)
