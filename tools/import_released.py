"""Turn a checkpoint of the authors into one of ours (`tvilfm import`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.tool import finish, tool
from tvilfm_plugin.cli.weights import IMPORT

main = tool(IMPORT, said=(ValueError, FileNotFoundError), status=1)

if __name__ == "__main__":
    finish(main)
