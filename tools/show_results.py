"""Print the tables of a run and draw some of its queries (`tvilfm results show`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.results import SHOW
from tvilfm_plugin.cli.tool import finish, tool

main = tool(SHOW)

if __name__ == "__main__":
    finish(main)
