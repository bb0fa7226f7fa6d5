"""`python -m benchmarks.backbones`: the table of backbones in projects/TVILFM/README.md.

Sizes are those of the ready configs. The synthetic figures are of the smallest variant of each family (`backbones.json`),
trained from scratch by one short recipe, the same for all; `--train OUT` does what is missing there, one after the other.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tabulate import tabulate
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tvilfm_plugin  # noqa: F401  (registers the models)
from tvilfm_plugin.config import read_config, visual_part
from tvilfm_plugin.files.writing import write_text
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.backbones import build_visual_encoder
from tvilfm_plugin.modeling.visual_encoder import DualStreamEncoder, VisualEncoder

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "projects" / "TVILFM" / "configs"
README = CONFIGS.parent / "README.md"
MARKS = ("<!-- backbones:begin -->", "<!-- backbones:end -->")
SMALLEST: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_suffix(".json").read_text())
# Two thirds of the synthetic configs' image size and of their epochs: minutes on one thread.
RECIPE = [
    "STAGE1.MODEL.WEIGHTS", "",  # every backbone starts at random
    "INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32], "INPUT.PADDING.SIZE", 2,
    "STAGE1.SOLVER.BASE_LR", 0.003, "STAGE1.SOLVER.HEADS_LR_FACTOR", 0.3,
    "STAGE1.SOLVER.MAX_EPOCH", 8, "STAGE1.SOLVER.STEPS", [6], "SOLVER.MAX_EPOCH", 4, "SOLVER.STEPS", [3],
    "TEST.TEXT_SOURCES", ("witness",),
]  # fmt: skip


class Size(NamedTuple):
    """Of a visual encoder: the names of its stem modules, D, parameters, and multiplications per image."""

    stem: str
    dim: int
    parameters: int
    macs: int


def size(name: str, *overrides: Any) -> Size:
    """Of a config in projects/TVILFM/configs; weights are random."""
    cfg = read_config(CONFIGS / f"{name}.yml", ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAIN", False, *overrides])
    visual = build_visual_encoder(cfg).eval().requires_grad_(False)
    dual = isinstance(visual, DualStreamEncoder)
    stem = ", ".join(cfg.MODEL.DUAL_STREAM.STEM) if dual else "none: cameras, prompts"
    return Size(stem, visual.dim, sum(p.numel() for p in visual.parameters()), macs(visual))


@torch.no_grad()
def macs(visual: VisualEncoder) -> int:
    """Multiplications of convolutions, linear layers and attention for one visible image, counted by torch."""
    image = {Modality.RGB: torch.zeros(1, 3, *visual.image_size)}
    # The counter has no formula for the CPU's fused attention; its plain form is two matrix products.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        visual(image, {Modality.RGB: torch.ones(1, dtype=torch.int64)})
    return counter.get_total_flops() // 2


def command(name: str, out: Path) -> list[str]:
    """Both stages on the synthetic benchmark, with the visual part of a config in its smallest variant."""
    first = read_config(CONFIGS / "synthetic_stage1.yml")
    small = read_config(CONFIGS / f"{name}.yml", [word for pair in SMALLEST[name].items() for word in pair])
    words = [*visual_part(small, first), *RECIPE, "OUTPUT_DIR", out / name, "DATASETS.CACHE", out / "cache"]
    return [sys.executable, "tools/train_net.py", "--config-file", str(CONFIGS / "synthetic.yml"), *map(str, words)]


def train(name: str, out: Path) -> None:
    """A run that is missing. Its CPU seconds are written beside it."""
    if (out / name / "seconds.json").is_file():
        print(f"{name}: finished", flush=True)
        return
    (out / name).mkdir(parents=True, exist_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(out / name / "run.log", "w", encoding="utf-8") as log:
        code = subprocess.run(command(name, out), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{name}: {f'{seconds:.0f} CPU seconds' if code == 0 else f'FAILED, see {log.name}'}", flush=True)
    if code == 0:
        (out / name / "seconds.json").write_text(f"{seconds:.0f}\n")


def scores(name: str, out: Path) -> list[str]:
    """Of the smallest variant: its million parameters, CPU seconds, and R-1 of the infrared and the ensemble query."""
    if not (out / name / "seconds.json").is_file():
        return ["", "not run", "", ""]
    last = json.loads((out / name / "metrics.json").read_text().splitlines()[-1])
    rank1 = [f"{last[f'all/{query}/R-1']:.1f}" for query in ("infrared", "ensemble")]
    smallest = size(name, *(word for pair in SMALLEST[name].items() for word in pair), *RECIPE[:4])
    return [f"{smallest.parameters / 1e6:.2f}", (out / name / "seconds.json").read_text().strip(), *rank1]


def rows(names: list[str], out: Path | None) -> str:
    """The table, in Markdown."""
    headers = ["config", "stem modules", "D", "parameters (M)", "GMAC"]
    headers += ["smallest (M)", "CPU s", "infrared", "ensemble"] if out else []
    lines = []
    for name in names:
        real = size(name)
        line = [f"`{name}.yml`", real.stem, str(real.dim), f"{real.parameters / 1e6:.1f}", f"{real.macs / 1e9:.2f}"]
        lines.append(line + (scores(name, out) if out else []))
    return tabulate(lines, headers, tablefmt="pipe", disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backbones", description=__doc__)
    parser.add_argument("--train", type=Path, metavar="OUT", help="train what is missing in this folder, and do no more")
    parser.add_argument("--runs", type=Path, metavar="OUT", help="put the figures of such a folder into the table")
    parser.add_argument("--only", nargs="+", choices=SMALLEST, help="these configs instead of all")
    parser.add_argument("--write", action="store_true", help="put the table between the marks in projects/TVILFM/README.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.train:
        for name in args.only or SMALLEST:
            train(name, args.train)
        return
    table = rows(args.only or [*SMALLEST, "sysu_mip"], args.runs)
    print(table)
    if args.write:
        before, rest = README.read_text(encoding="utf-8").split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        write_text(README, f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
