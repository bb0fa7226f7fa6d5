"""Align a small text tower on synthetic people (`tvilfm pretrain align-text`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.tool import finish, tool
from tvilfm_plugin.cli.weights import ALIGN_TEXT

main = tool(ALIGN_TEXT)

if __name__ == "__main__":
    finish(main)
