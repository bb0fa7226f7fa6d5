"""`python -m benchmarks.people`: what drawing a synthetic person costs, CPU milliseconds of one thread (docs/synthetic.md)."""

import argparse
import random
import statistics
import time

from tabulate import tabulate

from tvilfm_plugin.synthetic.accessories import extras_of
from tvilfm_plugin.synthetic.body import build_body
from tvilfm_plugin.synthetic.people import draw_people
from tvilfm_plugin.synthetic.rendering import Camera, Studio, draw_look
from tvilfm_plugin.synthetic.wardrobe import assemble


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heights", type=int, nargs="+", default=[96, 144, 288])
    parser.add_argument("--images", type=int, default=60, help="of each size and modality")
    args = parser.parse_args()
    people = draw_people(30, seed=3)
    builds = []
    for person in people * 2:
        start = time.process_time()
        body = build_body(person.shape)
        assemble(person, body, extras_of(person, body))
        builds.append(time.process_time() - start)
    rows = []
    for height in args.heights:
        studio, row = Studio(height, seed=0), [f"{height} x {height // 2}"]
        for infrared in (False, True):
            spent = []
            for n in range(args.images):
                person = people[n * len(people) // args.images]
                look = draw_look(person, Camera(1 + n % 6, infrared), random.Random(n), 0.1)
                studio.take(person, look)  # the first picture dresses the person
                start = time.process_time()
                studio.take(person, look)
                spent.append(time.process_time() - start)
            row.append(f"{1e3 * statistics.median(spent):.1f}")
        rows.append(row)
    print(tabulate(rows, headers=["size", "visible, ms", "infrared, ms"], disable_numparse=True))
    print(f"dressing a person, once for all their pictures: {1e3 * statistics.median(builds[len(people) :]):.0f} ms")


if __name__ == "__main__":
    main()
