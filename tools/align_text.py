"""Align a small text tower on synthetic people: `python tools/align_text.py --arch configs/text/tiny.json --out tiny.pt`."""

import argparse
import time

from tvilfm_plugin.synthetic.strangers import add_stranger_options, benchmark_looks
from tvilfm_plugin.synthetic.text_alignment import AlignmentSpec, align_text


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--arch", default="configs/text/tiny.json", help="text tower, in open_clip's model-config format")
    parser.add_argument("--out", required=True, help="file of the weights; facts are written beside it as .json")
    add_stranger_options(parser, people=AlignmentSpec.people, seed=AlignmentSpec.seed, steps=AlignmentSpec.steps)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    start = time.perf_counter()
    spec = AlignmentSpec(args.arch, people=args.people, seed=args.seed, steps=args.steps)
    result = align_text(spec, args.out, avoid=benchmark_looks(args.benchmark), workers=args.workers)
    print(
        f"{args.out}: captions of {result.people} people never seen find the right person first in {result.person:.1%} "
        f"(chance {result.chance:.1%}), one in the same colours in {result.colours:.1%}; {time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
