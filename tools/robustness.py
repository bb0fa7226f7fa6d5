"""What bad text does to a run's retrieval (`tvilfm results robustness`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.results import ROBUSTNESS
from tvilfm_plugin.cli.tool import finish, tool

main = tool(ROBUSTNESS)

if __name__ == "__main__":
    finish(main)
