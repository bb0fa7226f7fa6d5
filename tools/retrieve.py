"""Search a gallery of visible images with an infrared image, words, or both (`tvilfm search`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.searching import SEARCH
from tvilfm_plugin.cli.tool import finish, tool

main = tool(SEARCH)

if __name__ == "__main__":
    finish(main)
