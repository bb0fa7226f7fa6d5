"""Which keys decide about the weights of a run, and whether a stored run was made with the same."""

import os
from collections.abc import Iterable

from yacs.config import CfgNode

from tvilfm_plugin.config import get_cfg
from tvilfm_plugin.modeling.registration import uses_text

# Keys, or beginnings of keys, that may differ between two runs that compute the same weights.
_INCIDENTAL = (
    "OUTPUT_DIR",
    "MODEL.DEVICE",
    "DATALOADER.NUM_WORKERS",
    "DATASETS.CACHE",
    "DATASETS.TOKEN_CACHE",
    "DATASETS.GALLERY",
    "DATASETS.MODES",
    "DATASETS.RULES",
    "DATASETS.SHOTS",
    "DATASETS.TESTS",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.EPOCH_RULE",
    "SOLVER.KEEP_MEMORY",
    "SOLVER.LOG_PERIOD",
    "TEST.",
    "TVILFM.BANK.MAX_GB",
    "TVILFM.MEMBERS",
    "TVILFM.OVERRIDES",
    "TVILFM.STAGE1",
)
# What a model without text does not read: an ablation of stage 2 on the command line needs no new stage 1.
_TEXT_ONLY = ("TVILFM.", "MODEL.TEXT.", "SOLVER.TEXT_", "INPUT.REPHRASE_PROB")


def recipe(cfg: CfgNode) -> str:
    """What determines the weights of a stage, as sorted `KEY: value` lines."""
    skipped = _INCIDENTAL if uses_text(cfg) else _INCIDENTAL + _TEXT_ONLY

    def walk(node: CfgNode, prefix: str) -> Iterable[str]:
        for key, value in sorted(node.items()):
            if isinstance(value, CfgNode):
                yield from walk(value, f"{prefix}{key}.")
            elif not f"{prefix}{key}".startswith(skipped):
                yield f"{prefix}{key}: {list(value) if isinstance(value, tuple) else value}"

    lines = list(walk(cfg, ""))
    if cfg.SOLVER.EPOCH_RULE != "last":
        lines.append(f"SOLVER.EPOCH_RULE: {cfg.SOLVER.EPOCH_RULE}, every {cfg.TEST.EVAL_PERIOD} epochs")
    return "\n".join(lines) + "\n"


def changed_keys(cfg: CfgNode, request: str) -> list[str]:
    """Keys in which a stored recipe differs from that of `cfg`; empty if there is no stored recipe.

    A key that the stored recipe does not have came later: the run was made as its default says.
    """
    if not os.path.isfile(request):
        return []
    with open(request, encoding="utf-8") as file:
        stored = set(file.read().splitlines())
    known = {_key(line) for line in stored}
    defaults = set(recipe(get_cfg()).splitlines())
    now = {line for line in recipe(cfg).splitlines() if _key(line) in known or line not in defaults}
    return sorted({_key(line) for line in stored ^ now})


def _key(line: str) -> str:
    return line.split(":")[0]
