"""Open the web page (`tvilfm web`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.searching import WEB
from tvilfm_plugin.cli.tool import finish, tool

main = tool(WEB, said=(OSError, ValueError, ImportError))

if __name__ == "__main__":
    finish(main)
