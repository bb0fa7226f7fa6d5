"""Make one of the paper's tables (`tvilfm reproduce`): train and evaluate what is missing, then print it."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.analysis.reproduce import start
from tvilfm_plugin.analysis.tables import STAGE1
from tvilfm_plugin.cli.reproducing import REPRODUCE, checked, make_table, plan
from tvilfm_plugin.cli.tool import finish

__all__ = ["STAGE1", "main", "parse", "plan", "start"]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, checked."""
    words = sys.argv[1:] if argv is None else argv
    return checked(REPRODUCE.parse(words, os.path.basename(sys.argv[0]), legacy=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Trainings begin by this module's `start`, which a caller may replace."""
    return make_table(parse(argv), lambda command, log: start(command, log))


if __name__ == "__main__":
    finish(main, REPRODUCE.goes_on)
