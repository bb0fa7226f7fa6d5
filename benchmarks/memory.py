"""Peak memory of a stage-2 step, each side in a process of its own."""

import json
import subprocess
import sys

from benchmarks.harness import Figure, Machine, ratio

# `ru_maxrss` is the largest resident size of the process's life; what the imports and the model hold is in "before".
CODE = """
import json, resource, sys
import torch
import tvilfm_plugin
from benchmarks import models, reference
from tvilfm_plugin.engine import param_groups
from tvilfm_plugin.host import contiguous_optimizer

side, pairs, smoke = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
torch.set_num_threads(1)
cfg, model = models.build(2, smoke)
batch = {name: models.images(cfg, pairs, seed) for seed, name in enumerate(("rgb", "rgb_aug", "ir"))}
rgb, ir = models.tokens(pairs, 1), models.tokens(pairs, 2)
targets = torch.arange(pairs) // 4
length = int(torch.cat([rgb, ir]).argmax(dim=1).max()) + 1
if side == "ours":
    optimizer, _ = contiguous_optimizer(cfg, param_groups(cfg, model))
    batch |= {"targets": targets, "rgb_tokens": rgb[:, :length], "ir_tokens": ir[:, :length]}
    loss = lambda: sum(model(batch).values())
else:
    optimizer = reference.optimizer(model, cfg.SOLVER.BASE_LR)
    pixels = models.normalise(model, torch.cat([batch["rgb"], batch["rgb_aug"]])), models.normalise(model, batch["ir"])
    loss = lambda: reference.stage2_loss(model, *pixels, rgb, ir, targets)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
for _ in range(2):
    total = loss()
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
json.dump((before, peak()), sys.stderr)
"""


def run(smoke: bool, machine: Machine, pairs: int = 0) -> list[Figure]:
    if smoke:  # two processes with all their imports: too long
        return []
    pairs = pairs or 32
    (_, ours), (before, reference) = (_peak(side, pairs) for side in ("ours", "reference"))
    note = f"MiB instead of seconds, the whole process; {before:.0f} before the first step; target: ours at most 0.7 of it"
    return [
        ratio(f"peak memory of stage-2 steps, {pairs} pairs", [((ours, ours), (reference, reference))], target=1.43, note=note)
    ]


def _peak(side: str, pairs: int) -> tuple[float, float]:
    """MiB before the first step, and at the peak."""
    command = [sys.executable, "-c", CODE, side, str(pairs), "False"]
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    before, peak = json.loads(ended.stderr[ended.stderr.rindex("[") :])
    return before, peak
