"""Pre-train MIP's small transformer on synthetic people (`tvilfm pretrain vit`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.tool import finish, tool
from tvilfm_plugin.cli.weights import VIT

main = tool(VIT)

if __name__ == "__main__":
    finish(main)
