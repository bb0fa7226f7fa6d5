"""What each of two processes does in test_method_processes.py; in a module of its own, which a spawned process can import."""

import os

import torch
from two_processes import SYNC, config, steps

from tvilfm_plugin.engine import TriTrainer


class WithoutDropout(TriTrainer):
    """Two processes and one draw other numbers there."""

    @classmethod
    def build_model(cls, cfg):
        model = super().build_model(cfg)
        for part in model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        return model


def work(folder: str, configs: dict[str, str]) -> None:
    """One gathered step of every config."""
    made = {}
    for name, file in configs.items():
        out = os.path.join(folder, name)
        os.makedirs(out, exist_ok=True)
        made[name] = steps(config(file, out, *SYNC), 1, WithoutDropout)
    torch.save(made, os.path.join(folder, f"rank{torch.distributed.get_rank()}.pt"))
