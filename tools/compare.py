"""Compare two systems on the same queries: paired randomisation test over identities, interval, effect size, Holm.

`python tools/compare.py RUN_A RUN_B`. Several training seeds per side: a quoted glob or a comma-separated list. Runs whose
protocol cards differ are refused, with the columns that differ.
"""

import argparse
import glob
import sys
from pathlib import Path

from tvilfm_plugin.analysis.comparison import (
    Comparison,
    ProtocolMismatch,
    check_comparable,
    check_seeds,
    compare,
    comparison_table,
    matching_rows,
    measured,
    rows,
)
from tvilfm_plugin.evaluation.evaluator import load_evaluation
from tvilfm_plugin.files.writing import write_text
from tvilfm_plugin.visualization.stored import evaluations


def find_runs(pattern: str) -> list[Path]:
    """Run folders of a comma-separated list of folders or globs."""
    found = [Path(name) for part in pattern.split(",") for name in (sorted(glob.glob(part)) or [part])]
    return list(dict.fromkeys(found))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_a", help="output folder(s) of system A")
    parser.add_argument("run_b", help="output folder(s) of system B")
    parser.add_argument(
        "--query", nargs="+", default=["ensemble"], help="TYPE, TYPE@SOURCE, TYPE_A:TYPE_B (e.g. fusion:ensemble) or all"
    )
    parser.add_argument("--metric", nargs="+", default=["mAP"], help="mAP, mINP, R-1, R-5 ...")
    parser.add_argument("--despite", nargs="+", default=[], metavar="COLUMN", help="card columns that may differ")
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the random sign patterns and bootstrap samples")
    parser.add_argument("--out", type=Path, help="write the report to this file as well")
    args = parser.parse_args(argv)

    sides = [{run: {f.name: f for f in evaluations(run)} for run in find_runs(p)} for p in (args.run_a, args.run_b)]
    common = set.intersection(*(set(folders) for side in sides for folders in side.values()))
    if not common:
        print("The runs were evaluated on different data sets: nothing to compare.", file=sys.stderr)
        return 2
    comparisons: list[Comparison] = []
    differing: dict[str, list[object]] = {}
    try:
        for name in sorted(common):
            loaded = [[(folders[name], load_evaluation(folders[name])) for folders in side.values()] for side in sides]
            a, b = ([one for _, one in side] for side in loaded)
            for query in args.query:
                for pair in matching_rows(a, b, query):
                    for metric in args.metric:
                        first, second = (
                            [measured(one, folder, rows(one)[row], metric, str(folder.parents[1])) for folder, one in side]
                            for side, row in zip(loaded, pair, strict=True)
                        )
                        check_seeds(first)
                        check_seeds(second)
                        differing |= check_comparable([*first, *second], args.despite)
                        label = str(pair[1]) if pair[0] == pair[1] else f"{pair[0]} -> {pair[1]}"
                        label = label if len(common) == 1 else f"{name}: {label}"
                        comparisons.append(compare(first, second, label, metric, resamples=args.resamples, seed=args.seed))
    except ProtocolMismatch as error:
        print(f"Not comparable: {error}", file=sys.stderr)
        return 2
    names = (", ".join(map(str, sides[0])), ", ".join(map(str, sides[1])))
    report = comparison_table(comparisons, names, differing)
    print(report)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(args.out, report + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
