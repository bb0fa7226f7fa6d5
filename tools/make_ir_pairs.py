"""Pairs for the infrared captioner (`tvilfm captions pairs`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.captions import PAIRS
from tvilfm_plugin.cli.tool import finish, tool

main = tool(PAIRS)

if __name__ == "__main__":
    finish(main)
