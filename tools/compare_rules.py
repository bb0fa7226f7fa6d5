"""One ranking under every rule: what the conventions of published code alone change in a run's numbers.

CMC over identities or images, which gallery images a query ignores, order of ties, arithmetic, a single gallery draw: a
table of the differences for each query type, from the stored evaluation.
"""

import argparse
import sys
from pathlib import Path

from tvilfm_plugin.analysis.rules import rules_table, stored_rules
from tvilfm_plugin.evaluation.evaluator import load_evaluation
from tvilfm_plugin.files.writing import write_text
from tvilfm_plugin.visualization.stored import evaluations


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="output folder of a run")
    parser.add_argument("--query", nargs="+", default=["infrared", "ensemble"], help="TYPE or TYPE@SOURCE, or all")
    args = parser.parse_args(argv)
    for folder in evaluations(args.run):
        stored = load_evaluation(folder)
        labels = [label for label in stored.cards if "all" in args.query or label.split("/", 1)[1] in args.query]
        if not labels:
            known = ", ".join(sorted({label.split("/", 1)[1] for label in stored.cards}))
            print(f"{folder} has none of the query types {', '.join(args.query)}; choices are {known}.", file=sys.stderr)
            return 2
        sections = []
        for label in labels:
            card = stored.card(label)
            table = rules_table(stored_rules(stored, label))
            sections.append(f"## {card.dataset}, {label}, text source {card.text_source}\n\n{table}")
            print(f"{sections[-1]}\n")
        write_text(folder / "rules.md", "\n\n".join(sections) + "\n")
        print(f"Table: {folder / 'rules.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
