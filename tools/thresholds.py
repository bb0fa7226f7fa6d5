"""Same person or not: TPR at FPR 1 % and 0.1 %, with the calibrated thresholds, overall and per camera pair.

`python tools/thresholds.py RUN`. Works on what the evaluation stored; the network is not needed.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from tvilfm_plugin.analysis.thresholds import RATES, held_out, operating_points, stored_pairs, thresholds_table
from tvilfm_plugin.evaluation.evaluator import load_evaluation
from tvilfm_plugin.files.writing import write_text
from tvilfm_plugin.visualization.stored import evaluations


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="output folder of a run, e.g. logs/tvilfm/synthetic")
    parser.add_argument("--rows", nargs="+", help="rows of the result table, e.g. all/ensemble all/text@self (default: all)")
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES), help="false positive rates, as fractions")
    parser.add_argument("--seed", type=int, default=0, help="of the halves of the identities")
    parser.add_argument("--out", type=Path, help="write the tables to this file as well")
    args = parser.parse_args(argv)
    report = []
    for folder in evaluations(args.run):
        stored = load_evaluation(folder)
        for label in tqdm(args.rows or list(stored.cards), desc="Calibrating", unit="row", disable=None, leave=False):
            pairs = stored_pairs(stored, label)
            table = thresholds_table(operating_points(pairs, args.rates), held_out(pairs, args.rates, args.seed))
            card = stored.card(label)
            report.append(f"## {card.dataset}, {label}, text source {card.text_source}\n\n{table}")
    print("\n\n".join(report))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(args.out, "\n\n".join(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
