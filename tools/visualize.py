"""Pictures of a run from what its evaluation stored, and MIP's from its weights (`tvilfm results report|sheet|cmc|...`)."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.cli.pictures import ATTENTION, COMMANDS, attention
from tvilfm_plugin.cli.tool import finish, tool
from tvilfm_plugin.visualization.mip_pictures import build_attention

# `robustness` draws what tools/robustness.py measured; `build_attention` is looked up here, so that a caller may replace it.
OWN = {
    "results curves": lambda command: replace(command, name="results robustness"),
    ATTENTION.name: lambda command: replace(command, work=lambda args: attention(args, lambda *given: build_attention(*given))),
}
main = tool(*(OWN.get(command.name, lambda same: same)(command) for command in COMMANDS))

if __name__ == "__main__":
    finish(main)
