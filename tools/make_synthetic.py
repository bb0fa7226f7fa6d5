"""Draw a synthetic visible-infrared-text benchmark: `python tools/make_synthetic.py --layout sysu --out datasets/sysu`."""

import argparse
import json
import os
import time
from pathlib import Path

from tvilfm_plugin.synthetic.writer import Spec, is_made, make_synthetic


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--layout", required=True, choices=("sysu", "regdb", "llcm", "own"), help="which data set's layout")
    parser.add_argument("--out", required=True, help="folder of the data set itself")
    parser.add_argument("--ids", type=int, default=464, help="people, test people included")
    parser.add_argument("--test-ids", type=int, default=80, help="people of the test split")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files")
    parser.add_argument("--images-rgb", type=int, default=0, help="visible images per training person (0: the layout's)")
    parser.add_argument("--images-ir", type=int, default=0, help="infrared images per training person (0: the layout's)")
    parser.add_argument("--test-images-rgb", type=int, default=0, help="visible images per test person (0: the layout's)")
    parser.add_argument("--test-images-ir", type=int, default=0, help="infrared images per test person (0: the layout's)")
    parser.add_argument("--height", type=int, default=144, help="image height; the width is half of it")
    parser.add_argument("--wrong", type=float, default=0.12, help="probability that a caption names an attribute wrongly")
    parser.add_argument("--missing", type=float, default=0.12, help="probability that it leaves a visible one out")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes that draw")
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    out, workers = Path(args.pop("out")), args.pop("workers")
    spec = Spec(**args)
    if is_made(spec, out):
        print(f"{out} holds this benchmark already.")
        return
    start = time.perf_counter()
    make_synthetic(spec, out, workers=workers)
    facts = json.loads((out / "attributes.json").read_text(encoding="utf-8"))
    images, rates, limits = facts["images"], facts["rates"], facts["ceilings"]
    print(f"{out}: {spec.ids} people ({spec.test_ids} test), {len(images)} images, {time.perf_counter() - start:.0f} s")
    print(
        "caption errors: "
        + "; ".join(f"{kind} {r['wrong']:.1%} wrong, {r['missing']:.1%} missing" for kind, r in rates.items())
    )
    print("rank-1 of perfect matchers: " + ", ".join(f"{name} {value:.1%}" for name, value in limits.items()))


if __name__ == "__main__":
    main()
