"""Peak memory of a stage-2 step, each side in a process of its own."""

from benchmarks import steps
from benchmarks.harness import Elsewhere, Figure, Machine, ratio


def run(smoke: bool, machine: Machine, pairs: int = 0) -> list[Figure]:
    if smoke:  # two processes with all their imports: too long
        return []
    pairs = pairs or 32
    peaks, before = [], 0.0
    for side in (steps.ours, steps.theirs):
        with Elsewhere(side, 2, False, pairs) as process:
            before = process.peak()
            process.timed("float32")
            process.timed("float32")
            peaks.append((process.peak(),) * 2)
    note = f"MiB instead of seconds, the whole process; {before:.0f} before the first step; target: ours at most 0.7 of it"
    return [ratio(f"peak memory of stage-2 steps, {pairs} pairs", [(peaks[0], peaks[1])], target=1.43, note=note)]
