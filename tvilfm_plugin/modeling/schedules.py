"""The schedule of the short pre-trainings on synthetic people."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(optimizer: Optimizer, steps: int) -> LambdaLR:
    """A linear warm-up over a twentieth of the steps, under a cosine that falls to zero at the last one."""
    warmup = max(1, steps // 20)
    return LambdaLR(optimizer, lambda s: min((s + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * min(1.0, s / max(1, steps)))))
