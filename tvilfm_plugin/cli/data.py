"""`tvilfm data`: draw a synthetic benchmark, check a data set on disk."""

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

from tvilfm_plugin.cli.command import Command, Parser
from tvilfm_plugin.files.places import datasets_root

BENCHMARKS = ("llcm", "regdb", "sysu")
OWN = ("folder", "table")
TEXT_PERSON = ("cuhk-pedes", "icfg-pedes", "rstpreid", "orbench")
RULES = ("SYSU-MM01", "RegDB", "LLCM", "Market-1501", "mip")
LAYOUTS = ("sysu", "regdb", "llcm", "own")


def root_option(parser: Parser) -> None:
    """Where data sets lie."""
    about = "folder that holds the data sets (default: $FASTREID_DATASETS or datasets)"
    parser.option("--root", default=datasets_root(), help=about)


def place_options(parser: Parser) -> None:
    """Where a data set lies, and which of its splits is meant."""
    root_option(parser)
    parser.option("--folder", default="", help="the data set's folder below the root (default: its own names)")
    parser.option("--trial", type=int, default=1, help="RegDB's train/test split, 1..10")


def dataset_options(parser: Parser, choices: tuple[str, ...]) -> None:
    """Which data set, and where it lies."""
    parser.option("--dataset", required=True, choices=choices, help="the data set")
    place_options(parser)


def _make_options(parser: Parser) -> None:
    parser.option("--layout", required=True, choices=LAYOUTS, help="which data set's layout")
    parser.option("--out-dir", old=("--out",), required=True, help="folder of the data set itself")
    parser.option("--ids", type=int, default=464, help="people, test people included")
    parser.option("--test-ids", type=int, default=80, help="people of the test split")
    parser.option("--seed", type=int, default=0, help="the same seed gives the same files")
    for split, people in (("", "training"), ("test-", "test")):
        for modality, images in (("rgb", "visible"), ("ir", "infrared")):
            about = f"{images} images per {people} person (0: the layout's)"
            parser.option(f"--{split}images-{modality}", type=int, default=0, help=about)
    parser.option("--height", type=int, default=144, help="image height; the width is half of it")
    parser.option("--wrong", type=float, default=0.12, help="probability that a caption names an attribute wrongly")
    parser.option("--missing", type=float, default=0.12, help="probability that it leaves a visible one out")
    about = "write what each pixel shows and from where it was seen, too (annotations/)"
    parser.option("--annotations", action="store_true", help=about)
    parser.option("--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes that draw")


def make(args: argparse.Namespace) -> int:
    """Draw the benchmark, unless it is there already."""
    from tvilfm_plugin.synthetic.writer import Spec, is_made, make_synthetic

    out = Path(args.out_dir)
    spec = Spec(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Spec)})
    if is_made(spec, out):
        print(f"{out} holds this benchmark already.")
        return 0
    start = time.perf_counter()
    make_synthetic(spec, out, workers=args.workers)
    facts = json.loads((out / "attributes.json").read_text(encoding="utf-8"))
    images, rates, limits = facts["images"], facts["rates"], facts["ceilings"]
    print(f"{out}: {spec.ids} people ({spec.test_ids} test), {len(images)} images, {time.perf_counter() - start:.0f} s")
    told = (f"{kind} {r['wrong']:.1%} wrong, {r['missing']:.1%} missing" for kind, r in rates.items())
    print("caption errors: " + "; ".join(told))
    print("rank-1 of perfect matchers: " + ", ".join(f"{name} {value:.1%}" for name, value in limits.items()))
    return 0


def _check_options(parser: Parser) -> None:
    choices = (*BENCHMARKS, *OWN, *TEXT_PERSON)
    if parser.legacy:
        parser.positional("dataset", choices=choices, help="the data set")
        place_options(parser)
    else:
        dataset_options(parser, choices)
    parser.option("--rules", default="LLCM", choices=RULES, help="own data: as DATASETS.RULES")
    about = "own data: the config that must be able to train (default: own_table.yml or own_folder.yml)"
    parser.option("--config-file", default="", help=about)
    about = "do not compare with the published counts; own data: do not ask whether the config can train"
    parser.option("--any-size", action="store_true", help=about)
    parser.option("--no-text", action="store_true", help="do not look for captions")
    parser.option("--decode", action="store_true", help="decode every image and name the unreadable ones")
    parser.option("--max", type=int, default=20, help="files named per list")
    parser.option("--out", help="write the report with all files to this file")


def check(args: argparse.Namespace) -> int:
    """Count, compare, name what is missing; 1 if something is."""
    from tvilfm_plugin.data.datasets.check import check_dataset
    from tvilfm_plugin.data.datasets.check_own import check_own
    from tvilfm_plugin.evaluation.protocols import PROTOCOLS
    from tvilfm_plugin.files.writing import make_folder, write_text

    text = not args.no_text
    if args.dataset in OWN:
        cfg = None if args.any_size else _training_config(args)
        report = check_own(args.dataset, args.root, args.folder, PROTOCOLS[args.rules], text, args.decode, cfg)
    elif args.dataset in TEXT_PERSON:
        from tvilfm_plugin.data.datasets.check_text import check_text_person

        report = check_text_person(args.dataset, args.root, args.folder, not args.any_size, args.decode)
    else:
        report = check_dataset(args.dataset, args.root, args.folder, args.trial, not args.any_size, text, args.decode)
    print(report.to_text(args.max))
    if args.out:
        make_folder(args.out.parent)
        write_text(args.out, report.to_text() + "\n")
        print(f"Full list: {args.out}")
    return 0 if report.ok else 1


def _training_config(args: argparse.Namespace) -> Any:
    """What training own data starts from: as docs/own_data.md names it, with the overrides of the command line."""
    from tvilfm_plugin.config import read_config
    from tvilfm_plugin.files.shipped import find_config

    shipped = f"own_{args.dataset}{'_stage1' if args.no_text else ''}.yml"
    return read_config(find_config(args.config_file or shipped), args.opts)


MAKE = Command(
    name="data make",
    help="draw a synthetic visible-infrared-text benchmark",
    options=_make_options,
    work=make,
    examples=("tvilfm data make --layout sysu --ids 464 --test-ids 80 --seed 0 --out-dir datasets/synthetic",),
)
CHECK = Command(
    name="data check",
    help="count a data set's identities, images and captions, compare with the published numbers, name what is missing",
    about="Own data (table, folder) has no published numbers: every row that is wrong is explained instead. Exit status 0 "
    "if everything is there and as published, and own data can be trained on, else 1.",
    options=_check_options,
    work=check,
    overrides=True,
    examples=("tvilfm data check --dataset sysu --decode", "tvilfm data check --dataset table --folder own --rules RegDB"),
)
COMMANDS = (MAKE, CHECK)
