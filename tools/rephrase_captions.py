"""Rephrase captions with a language model (`tvilfm captions rephrase`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.captions import REPHRASE
from tvilfm_plugin.cli.tool import finish, tool

main = tool(REPHRASE)

if __name__ == "__main__":
    finish(main)
