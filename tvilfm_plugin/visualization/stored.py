"""Pictures from what an evaluation stored: the ranking that gave the numbers is the one that is drawn."""

import json
from pathlib import Path

import numpy as np

from tvilfm_plugin.visualization.rank_sheet import Hit, QueryRow, draw_rank_sheet

BEST = 5


def evaluations(run: Path) -> list[Path]:
    """The stored evaluations of a run's output folder, one folder per data set."""
    found = sorted(path.parent for path in run.glob("evaluation/*/results.json"))
    if not found:
        raise FileNotFoundError(
            f"{run} holds no evaluation: expected {run}/evaluation/DATASET/results.json. Evaluate it with tools/train_net.py "
            "and TEST.STORE True."
        )
    return found


def draw_queries(folder: Path, query_type: str, count: int) -> Path:
    """Draw queries, evenly spread, with the five best gallery images of the first gallery draw.

    Args:
        folder: one stored evaluation.
        query_type: "infrared", "text", "fusion" or "ensemble" of the first text source, or "TYPE@SOURCE".
        count: queries to draw.

    Returns:
        The PNG in `folder`.
    """
    described = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    known = sorted({label.split("/", 1)[1] for label in described["cards"]})
    setting = next(iter(described["cards"])).split("/", 1)[0]
    label = f"{setting}/{query_type}"
    if label not in described["cards"]:
        raise KeyError(f"{folder} has no query type {query_type!r}; it has {', '.join(known)}.")
    card = described["cards"][label]
    with np.load(folder / "rankings.npz", allow_pickle=False) as stored:
        top = stored[f"{label}/top"]
        score = stored[f"{label}/top_similarity"]
        pids, gallery_pids = stored["query_pids"], stored["gallery_pids"]
        valid = np.isfinite(stored[f"{label}/ap"][0, 0])
        texts = None
        if card["text_source"] != "none":
            drawn = f"{setting}/{card['text_source']}/{card['text_seeds'][0]}"
            texts = stored[f"{drawn}/rgb"][0], stored[f"{drawn}/ir"]
    chosen = np.flatnonzero(valid)
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(count, len(chosen))).astype(int)]
    rows = [
        QueryRow(
            described["query_paths"][q],
            ("", "") if texts is None else (described["texts"][texts[0][q]], described["texts"][texts[1][q]]),
            [
                Hit(described["gallery_paths"][g], bool(gallery_pids[g] == pids[q]), float(s))
                for g, s in zip(top[q][:BEST], score[q][:BEST], strict=True)
                if g >= 0
            ],
            f"person {pids[q]}",
        )
        for q in chosen
    ]
    title = f"{card['dataset']} ({setting}): {query_type} query, text source {card['text_source']}"
    return draw_rank_sheet(rows, folder / f"queries_{query_type.replace('@', '_')}.png", title)
