"""`tvilfm results export|score|orbench`: rankings that leave, similarities that come, and query lists of others."""

import argparse
import json
from pathlib import Path
from typing import Any

from tvilfm_plugin.cli.command import Command, Parser
from tvilfm_plugin.cli.data import BENCHMARKS, OWN, RULES, place_options, root_option
from tvilfm_plugin.cli.results import run_option, stored_evaluations, write_report
from tvilfm_plugin.cli.run_folder import config_and_weights, model_options

SOURCES = ("none", "self", "witness", "oracle", "human", "wrong")


def _export_options(parser: Parser) -> None:
    run_option(parser)
    parser.option("--trec", action="store_true", required=True, help="TREC run and qrels files (the one form there is)")
    parser.option("--rows", nargs="+", help="rows of the result table, e.g. all/ensemble all/text@self (default: all)")
    parser.option("--out-dir", required=True, help="folder of the files: DATASET/ROW/seedS_drawD.run and .qrels")


def export(args: argparse.Namespace) -> int:
    """Write every trial of the rows, and say what was left out."""
    from tqdm import tqdm

    from tvilfm_plugin.analysis.trec import write_trec

    for folder, stored in stored_evaluations(args.run):
        for label in tqdm(args.rows or list(stored.cards), desc="Writing", unit="row", disable=None, leave=False):
            out = args.out_dir / folder.name / label.replace("/", "_")
            written = list(write_trec(stored, label, out))
            first = written[0]
            without = f", {first.left_out} without a right image left out" if first.left_out else ""
            print(f"{out}: {len(written)} runs with their qrels, {first.queries} queries each{without}")
    return 0


def _score_options(parser: Parser) -> None:
    parser.positional("file", type=Path, help=".npz or .csv with similarities and labels, see below")
    parser.option("--dataset", choices=(*BENCHMARKS, *OWN), help="take labels, draws and rules of this data set, by the paths")
    place_options(parser)
    parser.option("--rules", choices=RULES, help="without --dataset: the rules by which the file is ranked")
    parser.option("--shots", type=int, default=0, help="without --dataset: images per (person, camera); 0 = every image")
    parser.option("--draws", type=int, default=10, help="gallery draws, seeded 0, 1, ...")
    parser.option("--text-source", required=True, choices=SOURCES, help="where the queries' text came from")
    parser.option("--direction", default="infrared-to-visible", help="who searches whom, for the card")
    parser.option("--out", help="write the report to this file as well, and its values beside it as .json")


def score(args: argparse.Namespace) -> int:
    """Print table, intervals and card of each setting."""
    from tvilfm_plugin.analysis.foreign import galleries_of_dataset, galleries_of_file, read_similarities
    from tvilfm_plugin.analysis.foreign import score as score_file
    from tvilfm_plugin.evaluation.protocols import PROTOCOLS

    if bool(args.rules) == bool(args.dataset):
        args.parser.error("name either a data set by --dataset, or the rules by --rules")
    found = read_similarities(args.file)
    if args.dataset:
        from tvilfm_plugin.data.datasets.check import DATASETS
        from tvilfm_plugin.data.datasets.own import OWN as OWN_DATA
        from tvilfm_plugin.evaluation.fingerprint import data_sha256

        kind = {**DATASETS, **OWN_DATA}[args.dataset]
        options = {"direction": args.direction, "trial": args.trial, "draws": args.draws, "text": False}
        data = kind(root=args.root, folder=args.folder, verbose=False, **options)
        galleries, protocol = galleries_of_dataset(found, data), data.protocol
        card = {"dataset": data.name, "gallery_source": data.gallery_source, "data_sha256": data_sha256(data, False)}
    else:
        galleries, protocol = galleries_of_file(found, args.shots, args.draws), PROTOCOLS[args.rules]
        drawn = f"seeded draws 0..{args.draws - 1} of the file's images" if args.shots else "every image of the file"
        card = {"dataset": args.file.stem, "gallery_source": drawn}
    report, values = score_file(found, galleries, protocol, args.text_source, direction=args.direction, **card)
    return _tell(args.out, report, values)


def _orbench_options(parser: Parser) -> None:
    model_options(parser)
    root_option(parser)
    parser.option("--folder", default="", help="the data set's folder below the root (default: ORBench)")
    parser.option("--lists", nargs="+", help="e.g. NIR TEXT NIR+TEXT TEXT+NIR (default: all that the model can ask)")
    about = "visible: the published gallery; both: its infrared test images as well, for lists of words alone (text-to-both)"
    parser.option("--gallery", choices=("visible", "both"), default="visible", help=about)
    parser.option("--device", default="", help="cpu or cuda (default: as the config says)")
    parser.option("--out", help="write the report to this file as well, and its values beside it as .json")


def orbench(args: argparse.Namespace) -> int:
    """Embed the gallery and every query once, rank each list, print table, intervals and card of each."""
    from tvilfm_plugin.data.text_person import read_query_lists
    from tvilfm_plugin.retrieval.query_lists import rank_lists
    from tvilfm_plugin.retrieval.retriever import Retriever

    lists = read_query_lists(args.root, args.folder)
    retriever = Retriever.from_checkpoint(*config_and_weights(args), device=args.device, opts=args.opts)
    report, values, notes = rank_lists(retriever, lists, args.lists, both=args.gallery == "both")
    report = "\n\n".join([report, *(f"- {note}" for note in notes)])
    return _tell(args.out, report, values)


def _tell(out: Path | None, report: str, values: Any) -> int:
    """Print the report; with `out`, write it there, and its values beside it."""
    print(report)
    write_report(out, report)
    write_report(out and out.with_suffix(".json"), json.dumps(values, indent=1))
    return 0


def both(args: argparse.Namespace) -> int:
    """Print and write the table of each stored evaluation."""
    from tvilfm_plugin.analysis.both import both_report, search_both

    for folder, stored in stored_evaluations(args.run):
        report = both_report(stored, search_both(stored))
        print(report)
        write_report(folder / "both.md", report)
    return 0


EXPORT = Command(
    name="results export",
    help="write the rankings of a run as TREC run and qrels files, for ranx, pytrec_eval and trec_eval",
    about="What the protocol ignores is in no file. A CMC over identities is nothing that TREC counts: R-1, mAP and, under "
    "rules that count images, R-k are the same numbers.",
    options=_export_options,
    work=export,
    examples=("tvilfm results export logs/tvilfm/synthetic --trec --rows all/ensemble --out-dir trec",),
)
SCORE = Command(
    name="results score",
    help="score the similarities of another program by our protocols: table, intervals, protocol card",
    about="An .npz holds similarity or distance (Q, G), or query_features and gallery_features, beside query_pids, "
    "query_camids, gallery_pids and gallery_camids; with --dataset query_paths and gallery_paths, whose ends name the images. "
    "A .csv has two rows of gallery labels (person, camera), each behind two empty cells, then per query: person, camera, its "
    "similarities.",
    options=_score_options,
    work=score,
    examples=(
        "tvilfm results score theirs.npz --dataset sysu --text-source none",
        "tvilfm results score theirs.csv --rules RegDB --text-source oracle --out theirs.md",
    ),
)
ORBENCH = Command(
    name="results orbench",
    help="rank ORBench's query lists (NIR, TEXT, NIR+TEXT, TEXT+NIR) with a model: table, intervals, protocol card",
    about="The lists are explicit: no camera rule, no draws, every right image counts (rules of RegDB). A list that asks by "
    "sketch or colour pencil is left out and named.",
    options=_orbench_options,
    work=orbench,
    overrides=True,
    examples=("tvilfm results orbench logs/tvilfm/sysu --lists NIR TEXT NIR+TEXT",),
)
BOTH = Command(
    name="results both",
    help="rank a run's queries (infrared, words, both) in a gallery of visible and infrared images",
    about="To every gallery draw come all infrared test images. Ignored is what the data set's rules say, and the same person "
    "by the query's own camera, so also the query's own picture. Needs no network: features come from RUN/evaluation.",
    options=run_option,
    work=both,
    examples=("tvilfm results both logs/tvilfm/synthetic",),
)
COMMANDS = (EXPORT, SCORE, ORBENCH, BOTH)
