"""Count a data set and name what is missing (`tvilfm data check`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.data import CHECK
from tvilfm_plugin.cli.tool import finish, tool

main = tool(CHECK)

if __name__ == "__main__":
    finish(main)
