"""Fine-tune a captioner on image-text pairs (`tvilfm captions finetune`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.captions import FINETUNE
from tvilfm_plugin.cli.tool import finish, tool

main = tool(FINETUNE)

if __name__ == "__main__":
    finish(main)
