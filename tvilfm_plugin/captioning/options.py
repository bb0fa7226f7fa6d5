"""Command-line options of the tools that work through the images of a data set, captioning or rephrasing."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tvilfm_plugin.files.places import datasets_root

if TYPE_CHECKING:
    from tvilfm_plugin.captioning.sources import SourceSet

SPLITS = ("train", "test", "all")


def add_source_options(parser: argparse.ArgumentParser, *, split: str = "all", why: str = "") -> None:
    """Which images; `split` is the default of --split, `why` its help text."""
    choices = ("sysu", "regdb", "llcm", "table", "folder")
    parser.add_argument("--dataset", required=True, choices=choices, help="the data set")
    root = "folder that holds the data sets (default: $FASTREID_DATASETS or datasets)"
    parser.add_argument("--root", default=datasets_root(), help=root)
    parser.add_argument("--folder", default="", help="the data set's folder below the root (default: its own names)")
    parser.add_argument("--split", default=split, choices=SPLITS, help=f"whose images{why and '; '}{why}")
    parser.add_argument("--trial", type=int, default=1, help="RegDB's train/test split, 1..10")
    parser.add_argument("--modality", required=True, choices=("rgb", "ir"), help="visible or infrared images")
    add_scaling_option(parser)


def add_scaling_option(parser: argparse.ArgumentParser) -> None:
    """What infrared pictures of more than 8 bits become."""
    about = "counts of an infrared camera of more than 8 bits that become black and white, as INPUT.IR_SCALING"
    parser.add_argument("--ir-scaling", nargs=2, type=float, default=(), metavar=("LOW", "HIGH"), help=about)


def add_work_options(parser: argparse.ArgumentParser, *, what: str) -> None:
    """Where the work (on `what`, a plural) is done, where it goes, and which share of it this process takes."""
    rank, world_size = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    # A tool of tools/ (and a plain parser) takes the folder by its older name as well.
    older = ("--out",) if getattr(parser, "legacy", True) else ()
    parser.add_argument("--batch-size", type=int, default=32, help="halved when the memory does not suffice")
    parser.add_argument("--device", default="", help="default: this process's GPU, else the CPU")
    parser.add_argument("--dtype", default="", help="float32, bfloat16 or float16 (default: bfloat16 on a GPU)")
    folder = "folder of the caption files (default: the data set's Text/Blip_RGB or _IR)"
    parser.add_argument("--out-dir", *older, dest="out", type=Path, metavar="OUT_DIR", help=folder)
    parser.add_argument("--limit", type=int, default=0, help=f"stop after so many {what}")
    parser.add_argument("--restart", action="store_true", help="put earlier rows aside instead of going on")
    parser.add_argument("--rank", type=int, default=rank, help="which of the processes that share the work (torchrun sets it)")
    parser.add_argument("--world-size", type=int, default=world_size, help="how many they are (torchrun sets it)")


def completed(parser: argparse.ArgumentParser, args: argparse.Namespace) -> argparse.Namespace:
    """--device (this process's GPU, or the CPU) and --dtype filled in; ends the process where options contradict each other."""
    if args.restart and args.world_size > 1:
        parser.error("--restart moves rows that other processes may be writing: use it with one process.")
    if not args.device:
        import torch

        args.device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    args.dtype = args.dtype or ("bfloat16" if args.device.startswith("cuda") else "float32")
    return args


def sources_of(args: argparse.Namespace) -> SourceSet:
    """The images that the options name."""
    from tvilfm_plugin.captioning.sources import find_sources
    from tvilfm_plugin.files.pictures import Window
    from tvilfm_plugin.modality import Modality

    found = find_sources(
        args.dataset, args.root, Modality(args.modality), folder=args.folder, split=args.split, trial=args.trial
    )
    return replace(found, window=Window.of(args.ir_scaling) if found.modality is Modality.IR else None)


def print_failures(failed: dict[str, str], what: str, most: int = 20) -> None:
    """List what got no result, and why."""
    for key, reason in list(failed.items())[:most]:
        print(f"  {what}: {key} ({reason})")
    if len(failed) > most:
        print(f"  ... and {len(failed) - most} more")
