"""Caption the images of a data set (`tvilfm captions generate`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.captions import GENERATE
from tvilfm_plugin.cli.tool import finish, tool

main = tool(GENERATE)

if __name__ == "__main__":
    finish(main)
