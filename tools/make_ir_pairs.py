"""Pairs for the infrared captioner: infrared images with visible captions of the same person, without their colours.

`python tools/make_ir_pairs.py --dataset sysu --captions rgb.jsonl --out ir_pairs.json`, then
`python tools/finetune_captioner.py --pairs ir_pairs.json --images DATASET_FOLDER --init captioner_rgb --out captioner_ir`.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.captioning.pairs import make_ir_pairs
from tvilfm_plugin.captioning.rows import read_descriptions, write_json
from tvilfm_plugin.captioning.sources import find_sources
from tvilfm_plugin.modality import Modality


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, choices=("sysu", "regdb", "llcm"))
    parser.add_argument("--root", default=os.environ.get("FASTREID_DATASETS", "datasets"))
    parser.add_argument("--folder", default="", help="the data set's folder below the root")
    parser.add_argument("--trial", type=int, default=1, help="RegDB's split")
    parser.add_argument(
        "--captions", type=Path, help="visible captions: JSON, JSONL, or a folder of rows (default: those of the data set)"
    )
    parser.add_argument("--filter", default="strict", choices=("strict", "released", "none"))
    parser.add_argument("--per-image", type=int, default=4, help="visible captions per infrared image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    rgb, ir = (
        find_sources(args.dataset, args.root, modality, folder=args.folder, split="train", trial=args.trial)
        for modality in (Modality.RGB, Modality.IR)
    )
    file = args.captions or rgb.text_folder / f"caption_dict_{rgb.text_name}.json"
    captions = {rgb.relative(path): text for path, text in read_descriptions(file).items()}
    pairs = make_ir_pairs(
        rgb, ir, captions, colour_filter=args.filter, per_image=args.per_image, seed=args.seed
    )
    write_json(args.out, pairs)
    print(f"{args.out}: {len(pairs)} infrared images with {sum(len(pair['caption']) for pair in pairs)} captions")
    print(f"Next: python tools/finetune_captioner.py --pairs {args.out} --images {ir.folder} --init CAPTIONER_RGB --out ...")
    return 0


if __name__ == "__main__":
    sys.exit(main())
