"""`python -m benchmarks`: our code against the reference, as a table and as JSON."""

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from benchmarks import evaluation, memory, pipeline, ranking, startup, steps
from benchmarks.harness import Figure, Machine, table

WORK: dict[str, Callable[..., list[Figure]]] = {
    "ranking": ranking.run,
    "pipeline": pipeline.run,
    "stage1": partial(steps.run, stages=(1,)),
    "stage2": partial(steps.run, stages=(2,)),
    "evaluation": evaluation.run,
    "memory": memory.run,
    "startup": startup.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="small sizes: under a minute; ratios mean little")
    parser.add_argument("--only", choices=WORK, nargs="+", help="measure only these")
    parser.add_argument("--pairs", type=int, default=0, help="pairs of a training step, instead of 32 (a multiple of 4)")
    parser.add_argument("--runs", type=int, default=3, help="of a step and of a start (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    machine = Machine.measure()
    what = f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {machine.threads} thread(s)"
    print(f"{what}: {machine.float32:.0f} GMAC/s float32, {machine.bfloat16:.0f} bfloat16 (matrix products)", flush=True)
    figures: list[Figure] = []
    for name in args.only or WORK:
        options = {"pairs": args.pairs} if name.startswith("stage") or name == "memory" else {}
        if name.startswith("sta"):
            options["runs"] = args.runs
        figures += WORK[name](args.smoke, machine, **options)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    print(f"\n{table(figures)}")
    if args.out:
        content = {"smoke": args.smoke, "machine": asdict(machine), "torch": torch.__version__}
        args.out.write_text(json.dumps(content | {"figures": [asdict(f) for f in figures]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
