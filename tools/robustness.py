"""What bad text does to a run's retrieval, and what a fall-back saves: curves (PNG), points (CSV, JSON) and a table.

`python tools/robustness.py RUN`. The texts of the queries are damaged: those of wrong people, colours swapped, attributes
dropped, nothing at all. Only new texts pass the text encoder of RUN/model_final.pth; images come from RUN/evaluation.
"""

import argparse
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import tvilfm_plugin  # noqa: F401  (fixes the host; before anything else of fast-reid)

# isort: split
import torch
from torch import Tensor
from tqdm import tqdm

from tvilfm_plugin.analysis.fallback import LOW
from tvilfm_plugin.analysis.robustness import (
    EVIDENCE,
    SHARES,
    Point,
    as_table,
    cost_and_gain,
    default_source,
    robustness_curves,
)
from tvilfm_plugin.data.tokenizer import tokenize
from tvilfm_plugin.engine import load_model
from tvilfm_plugin.evaluation.evaluator import encode_texts, load_evaluation
from tvilfm_plugin.files.writing import write_text
from tvilfm_plugin.visualization.figures import save_figure
from tvilfm_plugin.visualization.robustness_curves import build_robustness
from tvilfm_plugin.visualization.stored import evaluations


def check_same_weights(encoded: Tensor, stored: Tensor, run: Path) -> None:
    """The model must be the one that was evaluated."""
    largest, scale = float((encoded - stored).abs().max()), float(stored.abs().max())
    if largest > 1e-3 * scale:
        raise ValueError(
            f"{run}: the model's features of known texts differ from the stored ones by {largest:.2g} (of {scale:.2g}). The "
            "weights are not those of the evaluation: evaluate them again (tools/train_net.py --eval-only)."
        )


def as_csv(points: list[Point]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=Point._fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(as_table(points))
    return file.getvalue()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="output folder of a stage-2 run that was evaluated with TEST.STORE True")
    parser.add_argument("--setting", help="e.g. all (default: the first)")
    parser.add_argument("--source", help="text source that is damaged (default: witness, else human, oracle, self)")
    parser.add_argument("--weights", default="model_final.pth", help="file in the run's folder (default: model_final.pth)")
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES), help="damaged shares, 0 to 1")
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    parser.add_argument("--draws", type=int, help="gallery draws to use (default: all)")
    parser.add_argument("--evidence", nargs="+", default=list(EVIDENCE), choices=EVIDENCE, help="what the fall-back judges by")
    parser.add_argument("--low", type=float, default=LOW, help="agreement quantile below which a text is ignored")
    args = parser.parse_args(argv)

    model = load_model(args.run / "config.yaml", args.run / args.weights)[1]

    def encode(texts: Any) -> Tensor:
        with torch.no_grad():
            return encode_texts(model, tokenize, texts, quiet=False)

    for folder in evaluations(args.run):
        stored = load_evaluation(folder)
        setting, source, text_seed = default_source(stored)
        setting, source = args.setting or setting, args.source or source
        text_seed = next(iter(stored.seeds(setting, source)), text_seed)
        assert stored.parts.texts is not None
        check_same_weights(encode(stored.texts[:16]), stored.parts.texts[:16], args.run)
        points = robustness_curves(
            stored, encode, setting=setting, source=source, text_seed=text_seed, shares=args.shares, seed=args.seed,
            low=args.low, evidence=args.evidence, draws=range(len(stored.draws[setting]))[: args.draws],
            progress=lambda draws: tqdm(draws, desc="Ranking", unit="draw", disable=None, leave=False),
        )  # fmt: skip
        card = next(c for c in stored.cards.values() if (c.setting, c.text_source) == (setting, source))
        table = cost_and_gain(points, card)
        out = folder / f"robustness_{setting}_{source}"
        write_text(out.with_suffix(".csv"), as_csv(points))
        described = {"card": card.to_dict(), "seed": args.seed, "low": args.low, "evidence": args.evidence}
        described |= {"points": as_table(points)}
        write_text(out.with_suffix(".json"), json.dumps(described, indent=1) + "\n")
        write_text(out.with_suffix(".md"), table + "\n")
        picture = save_figure(build_robustness(described), out.with_suffix(".png"))
        print(f"## {card.dataset}, {setting}, text source {source}\n\n{table}\n\nCurves: {picture} (also .csv, .json, .md)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
