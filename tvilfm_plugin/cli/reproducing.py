"""`tvilfm reproduce`: one of the paper's tables, from training to our numbers beside the published ones."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tvilfm_plugin.cli.command import Command, Parser

TABLE_NAMES = ("table1", "table2", "table3", "table5", "mip")
DATASETS = ("sysu", "regdb", "llcm", "synthetic")
KINDS = ("k-reciprocal", "constrained", "divided", "extended", "gallery-only")
# What the command decides for every run.
OURS = ("MODEL.WEIGHTS", "OUTPUT_DIR", "SEED", "DATASETS.TRIAL", "TEST.STORE")


def _options(parser: Parser) -> None:
    parser.positional("table", choices=TABLE_NAMES, help="which table")
    parser.option("--dataset", required=True, choices=DATASETS, help="the data set")
    parser.option("--seeds", type=int, nargs="+", default=[0], help="training seeds")
    parser.option("--trials", type=int, nargs="+", help="RegDB's splits (default: 1 to 10)")
    folder = "folder of runs and tables (default: logs/reproduce/DATASET)"
    parser.option("--out-dir", old=("--out",), dest="out", metavar="OUT_DIR", help=folder)
    parser.option("--only", nargs="+", default=[], metavar="ROW", help="rows by name, e.g. B +SFF")
    config = "stage-2 config file (default: the data set's of preset paper)"
    parser.option("--config-file", old=("--config",), dest="config", metavar="FILE", type=Path, help=config)
    parser.option("--jobs", type=int, default=1, help="trainings at the same time")
    parser.option("--resamples", type=int, default=10_000, help="of the paired tests")
    kinds = "also print the rows re-ranked, marked RR, with every kind that is named (gallery-only uses no other query)"
    parser.option("--rerank", nargs="+", default=[], choices=KINDS, metavar="KIND", help=kinds)
    parser.option("--check", action="store_true", help="say of every row whether --expected has it so; status 1 if not")
    parser.option("--write", action="store_true", help="store the table in --expected, for --check")
    expected = "means and deviations over training seeds (default: those of docs/numbers.md)"
    parser.option("--expected", type=Path, metavar="FILE", help=expected)
    parser.option("--dry-run", action="store_true", help="list what would run")


def checked(args: argparse.Namespace) -> argparse.Namespace:
    """The options with their defaults filled in; ends the process where they contradict each other."""
    from tvilfm_plugin.analysis.expected import EXPECTED, expected_of
    from tvilfm_plugin.analysis.tables import RUNS, TABLES

    error, table = args.parser.error, TABLES[args.table]
    if args.dataset not in table.datasets:
        error(f"{args.table} is about {', '.join(table.datasets)}, not {args.dataset}.")
    names = [row.name for row in table.rows]
    if unknown := [name for name in args.only if name not in names]:
        error(f"{args.table} has no row {', '.join(unknown)}; it has {', '.join(map(repr, names))}.")
    if args.config and any(RUNS[row.run].config for row in table.rows if not args.only or row.name in args.only):
        error(f"{args.table} has config files of its own: use KEY VALUE instead, or --only for other rows.")
    if taken := [key for key in args.opts[0::2] if key.removeprefix("STAGE1.") in OURS]:
        error(f"{', '.join(taken)} is what this tool sets for every run; use --seeds, --trials, --out-dir or --config-file.")
    args.seeds = list(dict.fromkeys(args.seeds))
    if args.trials and args.dataset != "regdb":
        error("--trials are RegDB's splits")
    args.trials = list(dict.fromkeys(args.trials or range(1, 11))) if args.dataset == "regdb" else [1]
    args.out = args.out or Path("logs/reproduce") / args.dataset
    if args.write and (args.check or args.expected is None):
        error("--write stores what --check compares with: use one of them, and name the file by --expected FILE.")
    if args.check:  # known before anything is trained
        args.wanted = expected_of(args.expected or EXPECTED, args.dataset, args.table)
    return args


def plan(table: Any, args: argparse.Namespace) -> list[Any]:
    """The trainings that the options ask for."""
    from tvilfm_plugin.analysis import reproduce
    from tvilfm_plugin.files.shipped import find_config

    config = find_config(args.config) if args.config else None
    return reproduce.plan(
        table, args.dataset, args.out, seeds=args.seeds, trials=args.trials, only=args.only, config=config, opts=args.opts
    )


def reproduce(args: argparse.Namespace) -> int:
    """Train and evaluate what is missing, print the table; 1 if a run failed."""
    return make_table(checked(args))


def make_table(args: argparse.Namespace, begin: Callable[[list[str], Path], int] | None = None) -> int:
    """The same with checked options; `begin` runs the command of a training (None: in a process of its own)."""
    from tvilfm_plugin.analysis.reproduce import FINISHED, carry_out, evaluations, missing_weights, start
    from tvilfm_plugin.analysis.tables import TABLES, collect
    from tvilfm_plugin.evaluation.evaluator import load_evaluation

    table = TABLES[args.table]
    jobs = plan(table, args)
    if args.dry_run:
        for job in jobs:
            state = job.state()
            print(f"{job}: {state}")
            if state != FINISHED:
                print(f"    {shlex.join(job.command(state))}")
        return 0
    for path, count in missing_weights(jobs).items():
        make = f"make it by: tvilfm pretrain vit --benchmark datasets/synthetic --out {path}"
        remedy = make if args.dataset == "synthetic" else "name the file by MODEL.BACKBONE.PRETRAIN_PATH"
        raise FileNotFoundError(f"{path} is missing, and {count} of the trainings begin with it; {remedy}")
    failed = carry_out(jobs, args.jobs, begin or start)
    found = evaluations(jobs, args.trials)
    result = collect(table, args.dataset, found, load_evaluation, only=args.only, expected=args.seeds, resamples=args.resamples)
    for failure in failed:
        print(failure, file=sys.stderr)
    if not result.lines:
        print("\n".join(["No row is complete: there is nothing to print.", *result.notes]), file=sys.stderr)
        return 1
    _write(result, args.out, args.table, _reranked(table, found, args) if args.rerank else "")
    return 1 if failed or not _expected(result, args) else 0


def _expected(result: Any, args: argparse.Namespace) -> bool:
    """Store what --check compares with, or compare; whether the table is as expected."""
    from tvilfm_plugin.analysis.expected import check, write_expected

    if args.write:
        write_expected(args.expected, result, args.table)
    if not args.check:
        return True
    text, holds = check(result, args.wanted, args.only)
    print(f"\n{text}")
    return holds


def _reranked(table: Any, found: Any, args: argparse.Namespace) -> str:
    """The rows again with re-ranking."""
    from tvilfm_plugin.analysis.reranked import as_markdown, rerank_rows
    from tvilfm_plugin.evaluation.evaluator import distance_function, load_evaluation

    return "\n" + as_markdown(rerank_rows(table, found, load_evaluation, distance_function, args.rerank, args.only))


def _write(result: Any, folder: Path, name: str, reranked: str) -> None:
    from tvilfm_plugin.analysis.tables import as_csv, latex, markdown
    from tvilfm_plugin.files.writing import write_text
    from tvilfm_plugin.visualization.figures import save_figure
    from tvilfm_plugin.visualization.table_picture import build_table_picture

    text = markdown(result) + reranked
    for suffix, content in ((".md", text), (".csv", as_csv(result)), (".tex", latex(result))):
        write_text(folder / f"{name}{suffix}", content)
    save_figure(build_table_picture(result.lines, result.dataset, result.table.title), folder / f"{name}.png")
    print(f"\n{text}\nAlso in {folder}/{name}.md, .csv and .tex; picture: {name}.png")


REPRODUCE = Command(
    name="reproduce",
    help="make one of the paper's tables: train and evaluate what is missing, then print our numbers beside the paper's",
    about="All rows of a training seed share one stage 1, and tables with the same --out-dir share runs. A finished run "
    "with the same recipe is used again, an interrupted one goes on. KEY VALUE reaches every run, STAGE1.KEY VALUE "
    "stage 1 only.",
    options=_options,
    work=reproduce,
    overrides=True,
    goes_on="The same command goes on where it was.",
    examples=(
        "tvilfm reproduce table1 --dataset sysu --seeds 0 1 2",
        "tvilfm reproduce table2 --dataset synthetic --rerank gallery-only",
    ),
)
COMMANDS: Sequence[Command] = (REPRODUCE,)
