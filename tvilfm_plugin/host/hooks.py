"""Evaluation, checkpoints and writers as they were meant."""

import sys

from fastreid.engine import hooks
from fastreid.utils.checkpoint import Checkpointer
from fastreid.utils.events import CommonMetricPrinter


class LastEvalHook(hooks.EvalHook):
    """Evaluates every `period` epochs (0: never in between), and always at the end of a training that reached it.

    The original divides by the period, evaluates after a crash in the last epoch, and does not evaluate (but dies)
    when a finished run is resumed.
    """

    _evaluated_epoch: int | None = None

    def _do_eval(self) -> None:
        self._evaluated_epoch = self.trainer.epoch
        super()._do_eval()

    def after_train(self) -> None:
        finished = self.trainer.iter >= self.trainer.max_iter
        if finished and self._evaluated_epoch != self.trainer.epoch:
            self._do_eval()
        del self._func


class BestKeepingCheckpointer(hooks.PeriodicCheckpointer):
    """Saves every `period` epochs (0: only at the end) and remembers the best metric across `--resume`.

    The original divides by the period, needs a test set, and lets the first evaluation after a resume replace the best.
    """

    def __init__(self, checkpointer: Checkpointer, period: int) -> None:
        super().__init__(checkpointer, period if period > 0 else sys.maxsize)

    def before_train(self) -> None:
        self.metric_name = "metric"
        if self.trainer.cfg.DATASETS.TESTS:
            super().before_train()
        self.max_epoch = self.trainer.max_epoch

    def state_dict(self) -> dict[str, float]:
        return {"best_metric": self.best_metric}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.best_metric = state["best_metric"]


class EpochWriter(hooks.PeriodicWriter):
    """Writes every `period` iterations, after each epoch, and what the last evaluation found.

    The original writes the last iteration of an epoch twice, before the evaluation and after: the writers skip an
    iteration they have seen, so the evaluation never reaches metrics.json and TensorBoard, and the printer divides by
    the zero iterations in between when a training is shorter than three.
    """

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 and done % self.trainer.iters_per_epoch != 0:
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        for writer in self._writers:
            if not isinstance(writer, CommonMetricPrinter):
                writer.write()
        super().after_train()
