"""Command-line options of the tools that work through the images of a data set, captioning or rephrasing."""

import argparse
import os
from pathlib import Path

from tvilfm_plugin.captioning.engine import Shard
from tvilfm_plugin.captioning.sources import SPLITS, SourceSet, find_sources
from tvilfm_plugin.modality import Modality


def add_source_options(parser: argparse.ArgumentParser, *, split: str = "all", why: str = "") -> None:
    """Which images.

    Args:
        split: default of --split; `why` is its help text.
    """
    parser.add_argument("--dataset", required=True, choices=("sysu", "regdb", "llcm", "table", "folder"))
    parser.add_argument("--root", default=os.environ.get("FASTREID_DATASETS", "datasets"))
    parser.add_argument("--folder", default="", help="the data set's folder below the root")
    parser.add_argument("--split", default=split, choices=SPLITS, help=why or None)
    parser.add_argument("--trial", type=int, default=1, help="RegDB's split")
    parser.add_argument("--modality", required=True, choices=("rgb", "ir"))


def add_work_options(parser: argparse.ArgumentParser, *, what: str) -> None:
    """Where the work is done, where it goes, and which share of it this process takes.

    Args:
        what: what one piece of work is, in the plural.
    """
    here = Shard.from_environment()
    parser.add_argument("--batch-size", type=int, default=32, help="halved when the memory does not suffice")
    parser.add_argument("--device", default="", help="default: this process's GPU, else the CPU")
    parser.add_argument("--dtype", default="", help="float32, bfloat16 or float16 (default: bfloat16 on a GPU)")
    parser.add_argument("--out", type=Path, help="folder of the caption files (default: the data set's Text/Blip_RGB or _IR)")
    parser.add_argument("--limit", type=int, default=0, help=f"stop after so many {what}")
    parser.add_argument("--restart", action="store_true", help="put earlier rows aside instead of going on")
    parser.add_argument("--rank", type=int, default=here.rank)
    parser.add_argument("--world-size", type=int, default=here.world_size)


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Read the options, the defaults of --device and --dtype filled in; ends the process where they contradict each other."""
    args = parser.parse_args(argv)
    if args.restart and args.world_size > 1:
        parser.error("--restart moves rows that other processes may be writing: use it with one process.")
    args.device = args.device or default_device()
    args.dtype = args.dtype or ("bfloat16" if args.device.startswith("cuda") else "float32")
    return args


def sources_of(args: argparse.Namespace) -> SourceSet:
    """The images that the options name."""
    return find_sources(
        args.dataset, args.root, Modality(args.modality), folder=args.folder, split=args.split, trial=args.trial
    )


def default_device() -> str:
    """This process's GPU, or the CPU."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def print_failures(failed: dict[str, str], what: str, most: int = 20) -> None:
    """List what got no result, and why.

    Args:
        failed: key -> reason.
        what: what is missing of each, e.g. "no caption".
    """
    for key, reason in list(failed.items())[:most]:
        print(f"  {what}: {key} ({reason})")
    if len(failed) > most:
        print(f"  ... and {len(failed) - most} more")
