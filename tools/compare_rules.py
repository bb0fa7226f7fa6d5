"""One ranking under every rule (`tvilfm results rules`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.results import RULES
from tvilfm_plugin.cli.tool import finish, tool

main = tool(RULES, said=(ValueError,))

if __name__ == "__main__":
    finish(main)
