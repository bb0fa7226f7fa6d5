"""What each of two processes does in test_method_processes.py; in a module of its own, which a spawned process can import."""

import os

import torch
from two_processes import SYNC, config, steps

from tvilfm_plugin.engine import TriTrainer


class WithoutDropout(TriTrainer):
    """Two processes and one draw other numbers there.

    In float64: in float32, rounding that differs with the CPU moves a unit across the kink of its ReLU in one case of 27,
    and a gradient by up to 5 % (YYDS, 40 random weights, 4 batches, weights changed by 1e-7 of themselves).
    """

    @classmethod
    def build_model(cls, cfg):
        model = super().build_model(cfg).double()
        for part in model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        return model


def work(folder: str, configs: dict[str, str]) -> None:
    """One gathered step of every config."""
    torch.set_default_dtype(torch.float64)
    made = {}
    for name, file in configs.items():
        out = os.path.join(folder, name)
        os.makedirs(out, exist_ok=True)
        made[name] = steps(config(file, out, *SYNC), 1, WithoutDropout)
    torch.save(made, os.path.join(folder, f"rank{torch.distributed.get_rank()}.pt"))
