"""Pre-train MIP's small transformer on synthetic people of its own: `python tools/pretrain_vit.py --out tiny_vit.pth`."""

import argparse
import time
from pathlib import Path

import tvilfm_plugin  # noqa: F401  (fixes the host; before anything else of fast-reid)

# isort: split
from tvilfm_plugin.config import get_cfg
from tvilfm_plugin.synthetic.strangers import add_stranger_options, benchmark_looks
from tvilfm_plugin.synthetic.vit_pretraining import PretrainingSpec, pretrain_vit

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--config-file",
        default=str(ROOT / "projects" / "MIP" / "configs" / "synthetic.yml"),
        help="whose transformer (MODEL.MIP) and image size (INPUT.SIZE_TRAIN) it is made for",
    )
    parser.add_argument("--out", required=True, help="file of the weights in timm's names; facts go beside it as .json")
    parser.add_argument("--infrared", type=int, default=PretrainingSpec.infrared, help="infrared pictures of each; 0 = none")
    add_stranger_options(parser, people=PretrainingSpec.people, seed=PretrainingSpec.seed, steps=PretrainingSpec.steps)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    start = time.perf_counter()
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    mip = cfg.MODEL.MIP
    height, width = cfg.INPUT.SIZE_TRAIN
    spec = PretrainingSpec(
        width=mip.WIDTH,
        depth=mip.DEPTH,
        heads=mip.HEADS,
        mlp_ratio=mip.MLP_RATIO,
        patch=mip.PATCH,
        stride=mip.STRIDE,
        parts=mip.PARTS,
        shift=mip.SHIFT,
        groups=mip.GROUPS,
        image_size=(height, width),
        people=args.people,
        infrared=args.infrared,
        seed=args.seed,
        steps=args.steps,
    )
    result = pretrain_vit(spec, args.out, avoid=benchmark_looks(args.benchmark), workers=args.workers)
    print(
        f"{args.out}: of {result.people} people never seen, {result.shape:.1%} of what shapes them (guessing "
        f"{result.shape_guess:.1%}) and {result.colours:.1%} of their colours ({result.colours_guess:.1%}) are named right; "
        f"{time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
