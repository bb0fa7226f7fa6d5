"""A training in an experiment tracker (TRACKING.KIND): what tensorboard gets, by fast-reid's writers."""

import importlib.util
import os
from collections.abc import Callable
from typing import Any

from fastreid.utils.events import EventWriter, get_event_storage
from yacs.config import CfgNode

from tvilfm_plugin.config.nodes import flat

WINDOW = 20  # iterations over which fast-reid's writers smooth
Log = Callable[[dict[str, float], int], None]
"""Takes the scalars of an iteration."""


class TrackingWriter(EventWriter):
    """Hands every scalar on once. The tracker's run begins with the first of them: stage 1's is then over."""

    def __init__(self, begin: Callable[[], tuple[Log, Callable[[], Any]]]) -> None:
        """`begin` opens the tracker's run; gives what takes its scalars and what ends it."""
        self._begin, self._last = begin, -1
        self._log: Log | None = None
        self._end: Callable[[], Any] = lambda: None

    def write(self) -> None:
        steps: dict[int, dict[str, float]] = {}
        for name, (value, step) in get_event_storage().latest_with_smoothing_hint(WINDOW).items():
            if step > self._last:
                steps.setdefault(step, {})[name] = float(value)
        for step in sorted(steps):
            if self._log is None:
                self._log, self._end = self._begin()
            self._log(steps[step], step)
            self._last = step

    def close(self) -> None:
        self._end()


def tracking_writer(cfg: CfgNode) -> list[EventWriter]:
    """What TRACKING.KIND names, if any (a ModuleNotFoundError without its package, which says where a run goes)."""
    kind = cfg.TRACKING.KIND
    if kind == "none":
        return []
    if importlib.util.find_spec(kind) is None:
        raise ModuleNotFoundError(f"TRACKING.KIND {kind} needs {kind}, which is not installed: pip install {kind}, or none.")
    return [TrackingWriter(lambda: _BEGIN[kind](cfg, os.path.basename(os.path.abspath(cfg.OUTPUT_DIR))))]


def _mlflow(cfg: CfgNode, name: str) -> tuple[Log, Callable[[], Any]]:
    import mlflow

    mlflow.start_run(run_name=name)
    mlflow.log_params({key: str(value) for key, value in flat(cfg).items()})
    return lambda values, step: mlflow.log_metrics(values, step=step), mlflow.end_run


def _wandb(cfg: CfgNode, name: str) -> tuple[Log, Callable[[], Any]]:
    import wandb

    run = wandb.init(project="tvilfm", name=name, dir=cfg.OUTPUT_DIR, config=dict(flat(cfg)))
    return lambda values, step: run.log(values, step=step), run.finish


_BEGIN = {"mlflow": _mlflow, "wandb": _wandb}
