"""Whether training trains: after its first step a trainer looks whether any weight has moved."""

import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn

from tvilfm_plugin.host.replacing import around

# Numbers of each tensor that are compared, and a learning rate that may leave float32 weights as they are.
_SAMPLE, _STANDSTILL = 4096, 1e-6


class FirstStep:
    """Watches the weights of a model until a step of its optimizer has moved one of them.

    A learning rate of (almost) zero, as a warm-up has it at its start, gradients that are exactly zero, a step that the
    scaler of mixed precision skipped, and iterations without a step (gradients being accumulated) prove nothing: the next
    one is looked at.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any = None) -> None:
        self.model, self.optimizer, self.scaler = model, optimizer, scaler
        self.weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.before = [self._sample(weight).clone() for weight in self.weights]
        self.stepped = self.reached = self.nonzero = False
        self.hook = optimizer.register_step_post_hook(self._after_optimizer)
        self.scale = self._scale()

    @staticmethod
    def _sample(weight: torch.Tensor) -> torch.Tensor:
        flat = weight.detach().reshape(-1)
        return flat[:: max(1, len(flat) // _SAMPLE)]

    def _scale(self) -> float:
        return self.scaler.get_scale() if self.scaler is not None else 1.0

    def _after_optimizer(self, *_: Any) -> None:
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.stepped, self.reached = True, self.reached or bool(gradients)
        self.nonzero = self.nonzero or any(bool(gradient.any()) for gradient in gradients)

    def settled(self) -> bool:
        """Whether a weight has moved (false: the next step has to tell); a RuntimeError where a step should have."""
        if any(not torch.equal(old, self._sample(weight)) for old, weight in zip(self.before, self.weights, strict=True)):
            self.hook.remove()
            return True
        skipped, self.scale = self._scale() < self.scale, self._scale()
        rate = max((float(group["lr"]) for group in self.optimizer.param_groups), default=0.0)
        if not self.stepped or skipped or rate < _STANDSTILL or (self.reached and not self.nonzero and self._held()):
            self.stepped = False
            return False
        self.hook.remove()
        raise RuntimeError(f"The first step moved none of {len(self.weights)} trainable tensors: {self._reason()}")

    def _held(self) -> int:
        """How many of the model's trainable tensors lie in the memory that the optimizer updates."""
        updated = {p.untyped_storage().data_ptr() for group in self.optimizer.param_groups for p in group["params"]}
        return sum(weight.untyped_storage().data_ptr() in updated for weight in self.weights)

    def _reason(self) -> str:
        if not self._held():
            return (
                "the optimizer updates none of the model's own tensors. Build it after the model is on its device and has "
                "its final parameters, and wrap or copy the model before, not after."
            )
        if not self.reached:
            return (
                "no gradient reached the optimizer. Call loss.backward() between zero_grad() and step(), and keep the "
                "gradients of flat buffers (zero_grad(set_to_none=False))."
            )
        return (
            "it had gradients and a learning rate, but the weights are as before. Look whether something restores or "
            "replaces them (a hook, an average, a second copy of the model), or whether step() of the optimizer is overridden."
        )


def watch_first_step(train_loop: types.ModuleType) -> None:
    """Every trainer that has a model and an optimizer is watched until its weights move.

    Why a patch: the loop is in the base class of all trainers; users replace single steps of it.
    """

    @around(train_loop.TrainerBase, "before_step")
    def begin(before_step: Callable[[Any], None], self: Any) -> None:
        before_step(self)
        if "_first_step" not in vars(self):
            model, optimizer = getattr(self, "model", None), getattr(self, "optimizer", None)
            self._first_step = None
            if isinstance(model, nn.Module) and isinstance(optimizer, torch.optim.Optimizer):
                trains = any(parameter.requires_grad for parameter in model.parameters())
                scaler = getattr(self, "grad_scaler", None)
                self._first_step = FirstStep(model, optimizer, scaler) if trains else None

    @around(train_loop.TrainerBase, "after_step")
    def end(after_step: Callable[[Any], None], self: Any) -> None:
        watch = vars(self).get("_first_step")
        if watch is not None and watch.settled():
            self._first_step = None
        after_step(self)
