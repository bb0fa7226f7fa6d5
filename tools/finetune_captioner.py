"""Fine-tune a captioner on image-text pairs: `python tools/finetune_captioner.py --pairs pairs.json --init small --out out`.

`--init` is a folder, a Hugging Face id, or "small": a BLIP that is built from its configuration, without a download.
Several GPUs: `torchrun --nproc_per_node N tools/finetune_captioner.py ...`. A run that was stopped goes on when it is
started again.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.captioning.finetune import TrainingOptions, build_captioner, finetune
from tvilfm_plugin.captioning.pairs import read_pairs, split_pairs


def main(argv: list[str] | None = None) -> int:
    default = TrainingOptions()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help=".json, .jsonl or .csv")
    parser.add_argument("--images", type=Path, help="what relative paths are relative to (default: the file's folder)")
    parser.add_argument("--image-key", default="image", help="key or column of the path")
    parser.add_argument("--text-key", default="caption", help="key or column of the caption, or of a list of captions")
    parser.add_argument("--validation", default="0.05", help="share of the pairs' folders, or a file of pairs")
    parser.add_argument("--captioner", default="blip", help="blip or git")
    parser.add_argument("--init", required=True, help="folder, hub id, or 'small'")
    parser.add_argument("--out", type=Path, required=True, help="folder of the fine-tuned captioner")
    parser.add_argument("--epochs", type=float, default=default.epochs)
    parser.add_argument("--steps", type=int, default=0, help="instead of --epochs")
    parser.add_argument("--batch-size", type=int, default=default.batch_size, help="per device")
    parser.add_argument("--lr", type=float, default=default.learning_rate)
    parser.add_argument("--weight-decay", type=float, default=default.weight_decay)
    parser.add_argument("--warmup", type=float, default=default.warmup, help="share of the steps")
    parser.add_argument("--amp", default="none", choices=("none", "bf16", "fp16"))
    parser.add_argument("--augment", action="store_true", help="flip, shift and change the brightness of training images")
    parser.add_argument("--save-every", type=int, default=0, help="checkpoint period in steps (default: a quarter)")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images")
    parser.add_argument("--device", default="", choices=("", "cpu"), help="cpu: do not use a GPU that is there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from-scratch", action="store_true", help="do not go on with a stopped run")
    parser.add_argument("--small-image", type=int, default=64, help="image size of --init small")
    parser.add_argument("--small-patch", type=int, default=8, help="patch size of --init small")
    parser.add_argument("--small-width", type=int, default=128, help="width of --init small")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    pairs = read_pairs(args.pairs, image_key=args.image_key, text_key=args.text_key, root=args.images)
    if args.validation.replace(".", "", 1).isdigit():
        train, validation = split_pairs(pairs, float(args.validation), args.seed)
    else:
        train = pairs
        validation = read_pairs(
            Path(args.validation), image_key=args.image_key, text_key=args.text_key, root=args.images
        )
    captioner = build_captioner(
        args.captioner,
        args.init,
        train,
        image_size=args.small_image,
        patch_size=args.small_patch,
        width=args.small_width,
        seed=args.seed,
    )
    options = TrainingOptions(
        epochs=args.epochs,
        steps=args.steps,
        batch_size=args.batch_size,
        learning_rate=args.lr,
        weight_decay=args.weight_decay,
        warmup=args.warmup,
        amp=args.amp,
        augment=args.augment,
        save_every=args.save_every,
        workers=args.workers,
        seed=args.seed,
        device=args.device,
    )
    report = finetune(captioner, train, validation, args.out, options, resume=not args.from_scratch)
    if os.environ.get("RANK", "0") != "0":
        return 0
    losses = ", ".join(f"{loss:.3f}" for loss in report["validation_losses"]) or "none"
    print(f"{args.out}: {report['steps']} steps on {len(train)} pairs in {report['seconds']} s; validation loss {losses}")
    return 0


if __name__ == "__main__":
    try:
        status = main()
    except (ConnectionError, FileNotFoundError, FileExistsError) as error:
        sys.exit(f"{error}")  # the message says it all
    sys.exit(status)
