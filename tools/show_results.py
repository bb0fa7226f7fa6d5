"""Print the result tables of a run and draw some of its queries with their five best gallery images.

`--verify` recomputes mAP and R-1 with scikit-learn; `--intervals` adds 95 % intervals over identities. Neither needs the
network: both work on what the evaluation stored. Exit status 1 if the verification fails.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from tvilfm_plugin.analysis.intervals import intervals_table, row_intervals
from tvilfm_plugin.analysis.verify import verification_table, verified, verify
from tvilfm_plugin.evaluation.evaluator import load_evaluation
from tvilfm_plugin.visualization.stored import draw_queries, evaluations


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="output folder of a run, e.g. logs/tvilfm/synthetic")
    parser.add_argument("--queries", type=int, default=6, help="queries in the picture, spread evenly over all queries")
    parser.add_argument("--type", default="ensemble", help="query type of the ranking that is drawn")
    parser.add_argument("--verify", action="store_true", help="recompute mAP and R-1 with scikit-learn")
    parser.add_argument("--intervals", action="store_true", help="95 %% intervals by bootstrap over identities")
    args = parser.parse_args(argv)
    sound = True
    for folder in evaluations(args.run):
        print((folder / "table.md").read_text(encoding="utf-8"))
        stored = load_evaluation(folder)
        if args.intervals:
            print(f"\n{intervals_table(row_intervals(stored, folder))}")
        if args.verify:
            checks = verify(stored, lambda labels: tqdm(labels, desc="Verifying", unit="row", leave=False, disable=None))
            sound = sound and verified(checks)
            print(f"\n{verification_table(checks)}")
        print(f"\nPicture: {draw_queries(folder, args.type, args.queries)}")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
