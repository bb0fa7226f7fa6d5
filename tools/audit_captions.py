"""Measure the text of a data set (`tvilfm captions audit`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.captions import AUDIT
from tvilfm_plugin.cli.tool import finish, tool

main = tool(AUDIT)

if __name__ == "__main__":
    finish(main)
