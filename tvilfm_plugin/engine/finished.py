"""Whether a run is finished, and which of its files holds the weights that count."""

import os

from yacs.config import CfgNode

from tvilfm_plugin.files.json import checked, read_json

BEST, SCORES = "model_best.pth", "epochs.json"


def finished_weights(cfg: CfgNode) -> str:
    """The file with the weights that count of a finished run in OUTPUT_DIR, or "" if it is not finished."""
    final, best = (os.path.join(cfg.OUTPUT_DIR, name) for name in ("model_final.pth", BEST))
    if not os.path.isfile(final):
        return ""
    if cfg.SOLVER.EPOCH_RULE == "last":
        return final
    complete = str(cfg.SOLVER.MAX_EPOCH - 1) in read_scores(cfg.OUTPUT_DIR)
    return best if complete and os.path.isfile(best) else ""


def read_scores(folder: str) -> dict[str, float]:
    """Epoch (counted from 0, as text) -> Rank-1 in percent, of a run that compares epochs."""
    path = os.path.join(folder, SCORES)
    return checked(read_json(path), dict[str, float], path) if os.path.isfile(path) else {}
