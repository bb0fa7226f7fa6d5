"""The captioning chain on the synthetic benchmark (`tvilfm captions demo`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.captions import DEMO
from tvilfm_plugin.cli.tool import finish, tool

main = tool(DEMO)

if __name__ == "__main__":
    finish(main)
