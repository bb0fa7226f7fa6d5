"""`tvilfm results`: tables, tests and curves from what an evaluation stored; only `robustness` runs a network."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tvilfm_plugin.cli.command import Command, Parser

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
RATES = (1e-2, 1e-3)


def run_option(parser: Parser) -> None:
    """The run that it is about."""
    parser.positional("run", type=Path, help="output folder of a run, e.g. logs/tvilfm/synthetic")


def stored_evaluations(run: Path) -> Iterator[tuple[Path, Any]]:
    """Folder and content of every evaluation that a run stored."""
    from tvilfm_plugin.evaluation.evaluator import load_evaluation
    from tvilfm_plugin.visualization.stored import evaluations

    return ((folder, load_evaluation(folder)) for folder in evaluations(run))


def _show_options(parser: Parser) -> None:
    run_option(parser)
    parser.option("--queries", type=int, default=6, help="queries in the picture, spread evenly over all queries")
    parser.option("--type", default="ensemble", help="query type of the ranking that is drawn")
    parser.option("--verify", action="store_true", help="recompute mAP and R-1 with scikit-learn")
    parser.option("--intervals", action="store_true", help="95 %% intervals by bootstrap over identities")


def show(args: argparse.Namespace) -> int:
    """Print the tables and draw some queries; 1 if the verification fails."""
    from tqdm import tqdm

    from tvilfm_plugin.analysis.intervals import intervals_table, row_intervals
    from tvilfm_plugin.analysis.verify import verification_table, verified, verify
    from tvilfm_plugin.files.text import read_text
    from tvilfm_plugin.visualization.stored import draw_queries

    sound, bar = True, {"unit": "row", "leave": False, "disable": None}
    for folder, stored in stored_evaluations(args.run):
        print(read_text(folder / "table.md"))
        if args.intervals:
            rows = row_intervals(stored, folder, progress=lambda labels: tqdm(labels, desc="Resampling", **bar))
            print(f"\n{intervals_table(rows)}")
        if args.verify:
            checks = verify(stored, lambda labels: tqdm(labels, desc="Verifying", **bar))
            sound = sound and verified(checks)
            print(f"\n{verification_table(checks)}")
        print(f"\nPicture: {draw_queries(folder, args.type, args.queries)}")
    return 0 if sound else 1


def _compare_options(parser: Parser) -> None:
    parser.positional("run_a", help="output folder(s) of system A")
    parser.positional("run_b", help="output folder(s) of system B")
    queries = "TYPE, TYPE@SOURCE, TYPE_A:TYPE_B (e.g. fusion:ensemble) or all"
    parser.option("--query", nargs="+", default=["ensemble"], help=queries)
    parser.option("--metric", nargs="+", default=["mAP"], help="mAP, mINP, R-1, R-5 ...")
    parser.option("--despite", nargs="+", default=[], metavar="COLUMN", help="card columns that may differ")
    parser.option("--resamples", type=int, default=10_000, help="of the paired tests and intervals")
    parser.option("--seed", type=int, default=0, help="of the random sign patterns and bootstrap samples")
    parser.option("--out", help="write the report to this file as well")


def compare(args: argparse.Namespace) -> int:
    """Print the report on two systems."""
    from tvilfm_plugin.analysis.run_comparison import compare_runs, find_runs
    from tvilfm_plugin.evaluation.evaluator import load_evaluation
    from tvilfm_plugin.visualization.stored import evaluations

    a, b = ({run: {f.name: f for f in evaluations(run)} for run in find_runs(p)} for p in (args.run_a, args.run_b))
    report = compare_runs(
        a, b, load_evaluation, queries=args.query, metrics=args.metric, despite=args.despite, resamples=args.resamples,
        seed=args.seed,
    )  # fmt: skip
    print(report)
    write_report(args.out, report)
    return 0


def write_report(out: Path | None, text: str) -> None:
    from tvilfm_plugin.files.writing import make_folder, write_text

    if out is not None:
        make_folder(out.parent)
        write_text(out, text + "\n")


def _rules_options(parser: Parser) -> None:
    run_option(parser)
    parser.option("--query", nargs="+", default=["infrared", "ensemble"], help="TYPE or TYPE@SOURCE, or all")


def rules(args: argparse.Namespace) -> int:
    """Print and write a table of the differences for each query type."""
    from tvilfm_plugin.analysis.rules import rules_table, stored_rules

    for folder, stored in stored_evaluations(args.run):
        labels = [label for label in stored.cards if "all" in args.query or label.split("/", 1)[1] in args.query]
        if not labels:
            known = ", ".join(sorted({label.split("/", 1)[1] for label in stored.cards}))
            raise ValueError(f"{folder} has none of the query types {', '.join(args.query)}; choices are {known}.")
        sections = []
        for label in labels:
            card = stored.card(label)
            table = rules_table(stored_rules(stored, label))
            sections.append(f"## {card.dataset}, {label}, text source {card.text_source}\n\n{table}")
            print(f"{sections[-1]}\n")
        write_report(folder / "rules.md", "\n\n".join(sections))
        print(f"Table: {folder / 'rules.md'}")
    return 0


def _thresholds_options(parser: Parser) -> None:
    run_option(parser)
    parser.option("--rows", nargs="+", help="rows of the result table, e.g. all/ensemble all/text@self (default: all)")
    parser.option("--rates", type=float, nargs="+", default=list(RATES), help="false positive rates, as fractions")
    parser.option("--seed", type=int, default=0, help="of the halves of the identities")
    parser.option("--out", help="write the tables to this file as well")


def thresholds(args: argparse.Namespace) -> int:
    """Print a table of operating points for each row."""
    from tqdm import tqdm

    from tvilfm_plugin.analysis.thresholds import held_out, operating_points, stored_pairs, thresholds_table

    report = []
    for _, stored in stored_evaluations(args.run):
        for label in tqdm(args.rows or list(stored.cards), desc="Calibrating", unit="row", disable=None, leave=False):
            pairs = stored_pairs(stored, label)
            table = thresholds_table(operating_points(pairs, args.rates), held_out(pairs, args.rates, args.seed))
            card = stored.card(label)
            report.append(f"## {card.dataset}, {label}, text source {card.text_source}\n\n{table}")
    print("\n\n".join(report))
    write_report(args.out, "\n\n".join(report))
    return 0


def _runs_options(parser: Parser, about: str) -> None:
    """One or more trainings, and where their joint result goes."""
    parser.positional("run", help=f"{about}; a quoted glob or a comma-separated list for several training seeds")
    about = "folder of what is written (default: the evaluation's; several runs need it)"
    parser.option("--out-dir", old=("--out",), dest="out", metavar="OUT_DIR", help=about)


def _runs(args: argparse.Namespace) -> list[Path]:
    from tvilfm_plugin.analysis.run_comparison import find_runs

    runs = find_runs(args.run)
    if len(runs) > 1 and args.out is None:
        raise ValueError(f"{len(runs)} runs: name a folder for what they give together, --out-dir FOLDER.")
    return runs


def _robustness_options(parser: Parser) -> None:
    _runs_options(parser, "output folder of a stage-2 run that was evaluated with TEST.STORE True")
    parser.option("--setting", default="", help="e.g. all (default: the first)")
    parser.option("--source", default="", help="text source that is damaged (default: witness, else human, oracle, self)")
    parser.option("--weights", default="model_final.pth", help="file in the run's folder")
    parser.option("--shares", type=float, nargs="+", default=list(SHARES), help="damaged shares, 0 to 1")
    parser.option("--seed", type=int, default=0, help="of the damage")
    parser.option("--draws", type=int, help="gallery draws to use (default: all)")
    parser.option("--pictures", action="store_true", help="damaged pictures as well, which pass the network")
    parser.option("--trust", choices=("single", "joint"), default="single", help="see TEST.TEXT_TRUST")
    parser.option("--stakes", type=float, help="how much more right words bring than wrong ones cost (default: as calibrated)")


def robustness(args: argparse.Namespace) -> int:
    """Measure the curves, write their points, draw them."""
    from dataclasses import replace
    from functools import partial

    import torch

    from tvilfm_plugin.analysis.picture_noise import DAMAGES
    from tvilfm_plugin.analysis.robustness_run import Measured, RobustnessOptions, measure_robustness, write_robustness
    from tvilfm_plugin.engine import load_model
    from tvilfm_plugin.engine.text_trust import calibration, encode_pictures
    from tvilfm_plugin.evaluation.features import encode_texts
    from tvilfm_plugin.visualization.figures import save_figure
    from tvilfm_plugin.visualization.robustness_curves import build_robustness

    options = RobustnessOptions(setting=args.setting, source=args.source, shares=args.shares, seed=args.seed, draws=args.draws)
    found: dict[str, list[Measured]] = {}
    for run in (runs := _runs(args)):
        evaluated = stored_evaluations(run)
        cfg, model = load_model(run / "config.yaml", run / args.weights, opts=["OUTPUT_DIR", str(run)])
        trust = replace(calibration(cfg, model), how=args.trust, **({"stakes": args.stakes} if args.stakes else {}))
        encode = torch.no_grad()(partial(encode_texts, model, quiet=False))
        for folder, stored in evaluated:
            stored = replace(stored, text_trust=trust)
            damaged = partial(encode_pictures, cfg, model, stored.query_paths, stored.query.camids.tolist())
            pictures = {name: damaged(change) for name, change in (DAMAGES if args.pictures else {}).items()}
            found.setdefault(folder.name, []).append(measure_robustness(stored, encode, options, run, pictures))
    for name, measured in found.items():
        described, table, out = write_robustness(measured, args.seed, args.out or runs[0] / "evaluation" / name)
        picture = save_figure(build_robustness(described), out.with_suffix(".png"))
        print(f"{table}\n\nCurves: {picture} (also .csv, .json, .md)")
    return 0


def _dialogue_options(parser: Parser) -> None:
    _runs_options(parser, "output folder of a run")
    parser.option("--row", default="", help="row of the result table that is searched first (default: the row without text)")
    known = "how it is known what an image would answer"
    parser.option("--by", choices=("captions", "model"), nargs="+", default=["captions"], help=known)
    parser.option("--noise", type=float, default=0.3, help="how often answer and caption of a person are taken to differ")
    parser.option("--steps", type=int, default=5, help="questions")
    parser.option("--draws", type=int, default=2, help="gallery draws to use")
    parser.option("--seed", type=int, default=0, help="of wrong and missing answers")


def dialogue(args: argparse.Namespace) -> int:
    """Print, write and draw R-1 after every answer."""
    from tqdm import tqdm

    from tvilfm_plugin.analysis.dialogue import Curves, dialogue_table
    from tvilfm_plugin.analysis.dialogue_run import dialogue_draws
    from tvilfm_plugin.engine.trained import load_run
    from tvilfm_plugin.visualization.curves import build_curves, of_intervals
    from tvilfm_plugin.visualization.figures import save_figure, shown_people

    found: dict[str, dict[str, Curves]] = {}
    titles = {}
    for run in (runs := _runs(args)):
        cfg, model = load_run(run)
        for folder, stored in stored_evaluations(run):
            label = args.row or next(iter(stored.cards))
            several = f", {len(runs)} trainings" if len(runs) > 1 else ""
            titles[folder.name] = f"{shown_people(stored.card(label).dataset)}, {label}{several}"
            for by in args.by:
                curves = found.setdefault(folder.name, {}).setdefault(f"answers by {by}", Curves(args.steps, args.seed))
                draws = dialogue_draws(cfg, model, stored, label, by_model=by == "model", draws=args.draws, noise=args.noise)
                for draw in tqdm(draws, total=args.draws, desc="Asking", unit="draw", disable=None, leave=False):
                    curves.add(*draw)
    for name, kinds in found.items():
        measured = {kind: curves.curves() for kind, curves in kinds.items()}
        report = "\n\n".join(f"## {titles[name]}, {kind}\n\n{dialogue_table(curves)}" for kind, curves in measured.items())
        out = (args.out or runs[0] / "evaluation" / name) / f"dialogue_{label.replace('/', '_')}.md"
        write_report(out, report)
        panels = {
            kind: {one.witness: of_intervals(range(args.steps + 1), one.steps) for one in curves}
            for kind, curves in measured.items()
        }
        figure = build_curves(panels, title=f"A witness asked: {titles[name]}", x_label="answers", y_label="R-1, %")
        print(f"{report}\n\nCurves: {save_figure(figure, out.with_suffix('.png'))}")
    return 0


SHOW = Command(
    name="results show",
    help="print the result tables of a run and draw some of its queries with their five best gallery images",
    about="Neither --verify nor --intervals needs the network: both work on what the evaluation stored. Exit status 1 if "
    "the verification fails.",
    options=_show_options,
    work=show,
    examples=("tvilfm results show logs/tvilfm/synthetic --verify --intervals",),
)
COMPARE = Command(
    name="results compare",
    help="compare two systems on the same queries: paired randomisation test over identities, interval, effect size, Holm",
    about="Several training seeds per side: a quoted glob or a comma-separated list. Runs whose protocol cards differ are "
    "refused, with the columns that differ.",
    options=_compare_options,
    work=compare,
    examples=("tvilfm results compare logs/baseline logs/full", "tvilfm results compare 'logs/b/seed*' 'logs/full/seed*'"),
)
RULES = Command(
    name="results rules",
    help="one ranking under every rule: what the conventions of published code alone change in a run's numbers",
    about="CMC over identities or images, which gallery images a query ignores, order of ties, arithmetic, a single gallery "
    "draw.",
    options=_rules_options,
    work=rules,
    examples=("tvilfm results rules logs/tvilfm/synthetic --query all",),
)
THRESHOLDS = Command(
    name="results thresholds",
    help="same person or not: TPR at FPR 1 % and 0.1 %, with the calibrated thresholds, overall and per camera pair",
    options=_thresholds_options,
    work=thresholds,
    examples=("tvilfm results thresholds logs/tvilfm/synthetic --rows all/ensemble",),
)
ROBUSTNESS = Command(
    name="results robustness",
    help="what bad words and pictures do to a run's retrieval, and what trust in words saves: curves, points and tables",
    about="The texts of the queries are damaged: those of wrong people, colours swapped, attributes dropped, nothing at "
    "all; with --pictures the query pictures, too: blurred, dark, occluded. Only what is damaged passes RUN/model_final.pth; "
    "the rest comes from RUN/evaluation. Trust is learned on training people (RUN/text_trust.json).",
    options=_robustness_options,
    work=robustness,
    examples=("tvilfm results robustness logs/tvilfm/synthetic --shares 0 0.5 1 --pictures",),
)
DIALOGUE = Command(
    name="results dialogue",
    help="what questions to a witness bring: R-1 after 0 to N answers, true, wrong or missing, and in a fixed order",
    about="The questions are those of `tvilfm search --ask`. The witness answers what most captions of the person's visible "
    "images outside the gallery say. Images come from RUN/evaluation, captions from the data set.",
    options=_dialogue_options,
    work=dialogue,
    examples=("tvilfm results dialogue logs/tvilfm/synthetic --row all/ensemble --by model",),
)
COMMANDS = (SHOW, COMPARE, RULES, THRESHOLDS, ROBUSTNESS, DIALOGUE)
