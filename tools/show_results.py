"""Print the result tables of a run and draw some of its queries with their five best gallery images."""

import argparse
from pathlib import Path

from tvilfm_plugin.visualization.stored import draw_queries, evaluations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="output folder of a run, e.g. logs/tvilfm/synthetic")
    parser.add_argument("--queries", type=int, default=6, help="queries in the picture, spread evenly over all queries")
    parser.add_argument("--type", default="ensemble", help="query type of the ranking that is drawn")
    args = parser.parse_args()
    for folder in evaluations(args.run):
        print((folder / "table.md").read_text(encoding="utf-8"))
        print(f"\nPicture: {draw_queries(folder, args.type, args.queries)}")


if __name__ == "__main__":
    main()
