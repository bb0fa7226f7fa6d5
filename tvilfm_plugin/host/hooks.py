"""Evaluation, checkpoints and writers as they were meant."""

import sys
import types
from collections.abc import Callable
from typing import Any

from tvilfm_plugin.host.replacing import around


def act_as_meant(hooks: types.ModuleType) -> None:
    """Mend the three hooks that every training has, in their own classes, so that subclasses and own trainers get it."""
    _mend_evaluation(hooks.EvalHook)
    _mend_checkpoints(hooks.PeriodicCheckpointer)
    _mend_writer(hooks.PeriodicWriter)


def _mend_evaluation(kind: Any) -> None:
    """Evaluates every `period` epochs (0: never in between), and always at the end of a training that reached it.

    The original divides by the period, evaluates after a crash in the last epoch, and does not evaluate (but dies) when a
    finished run is resumed.
    """
    kind._evaluated_epoch = None

    @around(kind, "_do_eval")
    def remembering(evaluate: Callable[[Any], None], self: Any) -> None:
        self._evaluated_epoch = self.trainer.epoch
        evaluate(self)

    @around(kind, "after_train")
    def at_the_end(original: Callable[[Any], None], self: Any) -> None:
        finished = self.trainer.iter >= self.trainer.max_iter
        if finished and self._evaluated_epoch != self.trainer.epoch:
            self._do_eval()
        del self._func


def _mend_checkpoints(kind: Any) -> None:
    """Saves every `period` epochs (0: only at the end) and remembers the best metric across `--resume`.

    The original divides by the period, needs a test set, and lets the first evaluation after a resume replace the best.
    """

    @around(kind, "__init__")
    def any_period(init: Callable[..., None], self: Any, checkpointer: Any, period: int, *args: Any, **options: Any) -> None:
        init(self, checkpointer, period if period > 0 else sys.maxsize, *args, **options)

    @around(kind, "before_train")
    def without_tests(original: Callable[[Any], None], self: Any) -> None:
        self.metric_name, self.max_epoch = "metric", self.trainer.max_epoch
        if self.trainer.cfg.DATASETS.TESTS:
            original(self)

    def state_dict(self: Any) -> dict[str, float]:
        return {"best_metric": self.best_metric}

    def load_state_dict(self: Any, state: dict[str, float]) -> None:
        self.best_metric = state["best_metric"]

    kind.state_dict, kind.load_state_dict = state_dict, load_state_dict


def _mend_writer(kind: Any) -> None:
    """Writes every `period` iterations, after each epoch, and what the last evaluation found.

    The original writes the last iteration of an epoch twice, before the evaluation and after: the writers skip an iteration
    they have seen, so the evaluation never reaches metrics.json and TensorBoard, and the printer divides by the zero
    iterations in between when a training is shorter than three.
    """

    @around(kind, "after_step")
    def once(original: Callable[[Any], None], self: Any) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 and done % self.trainer.iters_per_epoch != 0:
            for writer in self._writers:
                writer.write()

    @around(kind, "after_train")
    def and_the_last(close: Callable[[Any], None], self: Any) -> None:
        from fastreid.utils.events import CommonMetricPrinter

        for writer in self._writers:
            if not isinstance(writer, CommonMetricPrinter):
                writer.write()
        close(self)
