"""Caption the images of a data set.

`python tools/generate_captions.py --dataset sysu --modality rgb --captioner blip --weights captioner_rgb`

A stopped run goes on when it is started again. More GPUs: `torchrun --nproc_per_node N tools/generate_captions.py ...`; more
machines that share the folder: `--rank R --world-size N` on each. The process that finds everything done writes the files
that the loaders read (`caption_dict_*.json`, `id_caption_map_*.json`).
"""

import argparse
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tvilfm_plugin  # noqa: F401  (before transformers: it imports torchvision)
from tvilfm_plugin.captioning.captioner import Decoding, load_captioner
from tvilfm_plugin.captioning.engine import Shard, describe_images
from tvilfm_plugin.captioning.sources import SPLITS, find_sources
from tvilfm_plugin.modality import Modality


def main(argv: list[str] | None = None) -> int:
    here = Shard.from_environment()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, choices=("sysu", "regdb", "llcm", "table", "folder"))
    parser.add_argument("--root", default=os.environ.get("FASTREID_DATASETS", "datasets"))
    parser.add_argument("--folder", default="", help="the data set's folder below the root")
    parser.add_argument("--split", default="all", choices=SPLITS)
    parser.add_argument("--trial", type=int, default=1, help="RegDB's split")
    parser.add_argument("--modality", required=True, choices=("rgb", "ir"))
    parser.add_argument("--captioner", default="blip", help="blip, git, chat or attributes")
    parser.add_argument("--weights", required=True, help="folder or Hugging Face id (org/name[@revision])")
    parser.add_argument("--prompt", default="", help="beginning of the caption, or the question to a chat model")
    parser.add_argument("--max-new-tokens", type=int, default=0, help="default: 50; 300 for captioner attributes")
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 = greedy")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="of sampling")
    parser.add_argument("--batch-size", type=int, default=32, help="halved when the memory does not suffice")
    parser.add_argument("--device", default="", help="default: this process's GPU, else the CPU")
    parser.add_argument("--dtype", default="", help="float32, bfloat16 or float16 (default: bfloat16 on a GPU)")
    parser.add_argument("--workers", type=int, default=4, help="threads that decode")
    parser.add_argument("--out", type=Path, help="folder of the caption files (default: the data set's Text/Blip_RGB or _IR)")
    parser.add_argument("--limit", type=int, default=0, help="stop after so many images")
    parser.add_argument("--restart", action="store_true", help="put earlier rows aside instead of going on")
    parser.add_argument("--rank", type=int, default=here.rank)
    parser.add_argument("--world-size", type=int, default=here.world_size)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.restart and args.world_size > 1:
        parser.error("--restart moves rows that other processes may be writing: use it with one process.")
    modality = Modality(args.modality)
    images = find_sources(
        args.dataset, args.root, modality, folder=args.folder, split=args.split, trial=args.trial
    )
    device = args.device or default_device()
    captioner = load_captioner(
        args.captioner,
        args.weights,
        device=device,
        dtype=args.dtype or ("bfloat16" if device.startswith("cuda") else "float32"),
        modality=modality,
        prompt=args.prompt,
        decoding=Decoding(
            max_new_tokens=args.max_new_tokens or (300 if args.captioner == "attributes" else 50),
            num_beams=args.beams,
            temperature=args.temperature,
            top_p=args.top_p,
            seed=args.seed,
        ),
    )
    outcome = describe_images(
        captioner,
        images,
        args.out or images.text_folder,
        batch_size=args.batch_size,
        workers=args.workers,
        shard=Shard(args.rank, args.world_size),
        restart=args.restart,
        limit=args.limit,
    )
    print(f"{outcome.made} captions made now, {outcome.done} of {len(images.sources)} images done.")
    for key, reason in list(outcome.failed.items())[:20]:
        print(f"  no caption: {key} ({reason})")
    if len(outcome.failed) > 20:
        print(f"  ... and {len(outcome.failed) - 20} more")
    for file in outcome.files:
        print(f"  {file}")
    return 0


def default_device() -> str:
    """This process's GPU, or the CPU."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    try:
        status = main()
    except (ConnectionError, FileNotFoundError, FileExistsError) as error:
        sys.exit(f"{error}")  # the message says it all
    sys.exit(status)
