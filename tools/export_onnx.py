"""Write a trained model as ONNX graphs (`tvilfm export`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.tool import finish, tool
from tvilfm_plugin.cli.weights import EXPORT

main = tool(EXPORT)

if __name__ == "__main__":
    finish(main)
