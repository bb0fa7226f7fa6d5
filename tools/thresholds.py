"""Same person or not: operating points with their thresholds (`tvilfm results thresholds`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.results import THRESHOLDS
from tvilfm_plugin.cli.tool import finish, tool

main = tool(THRESHOLDS)

if __name__ == "__main__":
    finish(main)
