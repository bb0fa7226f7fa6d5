"""Make one of the paper's tables: train and evaluate what is missing, then print our numbers beside the paper's.

`python tools/reproduce.py table1|table2|table3|table5|mip --dataset sysu|regdb|llcm|synthetic [KEY VALUE ...]`. All rows of a
training seed share one stage 1, and tables with the same --out share runs. A finished run with the same recipe is used
again, an interrupted one goes on. KEY VALUE reaches every run, STAGE1.KEY VALUE stage 1 only.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import tvilfm_plugin  # noqa: F401  (fixes the host; before anything else of fast-reid)

# isort: split
from fastreid.config import CfgNode

from tvilfm_plugin.analysis.tables import RUNS, STAGE1, TABLES, Run, Table, as_csv, collect, latex, markdown
from tvilfm_plugin.config import get_cfg, visual_part
from tvilfm_plugin.engine import changed_keys, recipe
from tvilfm_plugin.engine.epoch_rule import BEST, SCORES, finished_weights
from tvilfm_plugin.evaluation.evaluator import load_evaluation
from tvilfm_plugin.files.writing import sha256_of, write_text

ROOT = Path(__file__).resolve().parents[1]
# What this tool decides for every run.
OURS = ("MODEL.WEIGHTS", "OUTPUT_DIR", "SEED", "DATASETS.TRIAL", "TEST.STORE")
# Keys, or beginnings of keys, that decide about an evaluation.
EVALUATED = (
    "DATASETS.DIRECTION", "DATASETS.GALLERY", "DATASETS.MODES", "DATASETS.SHOTS", "DATASETS.TESTS", "TEST.", "TVILFM.MEMBERS",
)  # fmt: skip
INCIDENTAL = ("TEST.EVAL_PERIOD", "TEST.IMS_PER_BATCH", "TEST.STORE")
KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)+|SEED|OUTPUT_DIR|CUDNN_BENCHMARK")
FINISHED, EVALUATE, RESUME, TRAIN = "finished", "evaluate", "resume", "train"
RECIPE, INPUTS, EVALUATION, LOG = "recipe.yaml", "inputs.json", "evaluated.json", "reproduce.log"


@dataclass(frozen=True)
class Job:
    """One training of one seed (and, on RegDB, of one split)."""

    run: Run
    seed: int
    trial: int
    config: Path
    overrides: tuple[str, ...]
    folder: Path
    parent: "Job | None" = None

    @property
    def stage1(self) -> str:
        """The weights of the stage 1 that this run starts from; before it is finished, where they will probably lie."""
        return "" if self.parent is None else finished_weights(self.parent.cfg()) or str(self.parent.folder / "model_final.pth")

    def cfg(self) -> CfgNode:
        cfg = get_cfg()
        cfg.merge_from_file(str(self.config))
        cfg.merge_from_list([*self.overrides, "OUTPUT_DIR", str(self.folder)])
        return cfg

    def evaluation(self, cfg: CfgNode) -> Path:
        """Where its evaluation is stored."""
        name = cfg.DATASETS.TESTS[0] + ("" if cfg.TEST.SPLIT == "test" else f"-{cfg.TEST.SPLIT}")
        name += "" if cfg.TEST.PROTOCOL == "standard" else f"-{cfg.TEST.PROTOCOL}"
        return self.folder / "evaluation" / name

    def state(self) -> str:
        """What has to be done."""
        cfg = self.cfg()
        if not (self.folder / RECIPE).is_file() or self._read(INPUTS) != self._inputs(cfg):
            return TRAIN
        if changed_keys(cfg, str(self.folder / RECIPE)):
            return TRAIN
        if not finished_weights(cfg):
            return RESUME if (self.folder / "last_checkpoint").is_file() else TRAIN
        asked = self._read(EVALUATION) == _evaluation_keys(cfg)
        return FINISHED if asked and (self.evaluation(cfg) / "results.json").is_file() else EVALUATE

    def command(self, state: str) -> list[str]:
        """The command line of tools/train_net.py."""
        words = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--config-file", str(self.config)]
        words += {RESUME: ["--resume"], EVALUATE: ["--eval-only"]}.get(state, [])
        weights = finished_weights(self.cfg()) if state == EVALUATE else self.stage1
        words += [*self.overrides, "OUTPUT_DIR", str(self.folder)]
        return words + (["MODEL.WEIGHTS", weights] if weights else [])

    def execute(self, state: str) -> None:
        """Train or evaluate in a process of its own; its output goes to a file in the run's folder."""
        cfg = self.cfg()
        if state == TRAIN:
            self.folder.mkdir(parents=True, exist_ok=True)
            # In this order: what is left of an older recipe must never be taken for this one's.
            for name in (EVALUATION, "model_final.pth", "last_checkpoint", BEST, SCORES, RECIPE):
                (self.folder / name).unlink(missing_ok=True)
            write_text(self.folder / INPUTS, json.dumps(self._inputs(cfg), indent=1) + "\n")
            write_text(self.folder / RECIPE, recipe(cfg))
        status = start(self.command(state), self.folder / LOG)
        if status or not (self.evaluation(cfg) / "results.json").is_file():
            tail = (self.folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
            raise RuntimeError("\n".join([f"{self.folder} failed (exit status {status}), {LOG} ends with:", *tail]))
        write_text(self.folder / EVALUATION, json.dumps(_evaluation_keys(cfg), indent=1) + "\n")

    def _read(self, name: str) -> object:
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def _inputs(self, cfg: CfgNode) -> dict[str, str]:
        """Hashes of the weights that it starts from: a name alone does not say that they are the same."""
        files = {"MODEL.TEXT.WEIGHTS": cfg.MODEL.TEXT.WEIGHTS if self.run is not STAGE1 else ""}
        files["MODEL.BACKBONE.PRETRAIN_PATH"] = cfg.MODEL.BACKBONE.PRETRAIN_PATH if cfg.MODEL.BACKBONE.PRETRAIN else ""
        files["stage 1"] = self.stage1
        return {key: _sha256(path) for key, path in files.items() if path and os.path.isfile(path)}

    def __str__(self) -> str:
        return str(self.folder)


def start(command: list[str], log: Path) -> int:
    """Run a command to its end; returns its exit status."""
    with open(log, "w", encoding="utf-8") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode


_HASHES: dict[tuple[str, int, int], str] = {}


def _sha256(path: str) -> str:
    status = os.stat(path)
    key = path, status.st_size, status.st_mtime_ns
    if key not in _HASHES:
        _HASHES[key] = sha256_of(path)
    return _HASHES[key]


def _evaluation_keys(cfg: CfgNode) -> dict[str, str]:
    found = {}
    for section in ("DATASETS", "TEST", "TVILFM"):
        stack = [(section, cfg[section])]
        while stack:
            name, value = stack.pop()
            if isinstance(value, CfgNode):
                stack += [(f"{name}.{key}", inner) for key, inner in value.items()]
            elif name.startswith(EVALUATED) and name not in INCIDENTAL:
                found[name] = str(value)
    return dict(sorted(found.items()))


# --- planning ---------------------------------------------------------------------------------------------------------


def plan(table: Table, args: argparse.Namespace) -> list[Job]:
    """The trainings of a table, each after the one that it starts from."""
    config = args.config or ROOT / "projects" / "TVILFM" / "configs" / f"{args.dataset}.yml"
    stage2 = get_cfg()
    stage2.merge_from_file(str(config))
    stage1_config = Path(stage2.TVILFM.STAGE1)
    chosen = {row.run for row in table.rows if not args.only or row.name in args.only}
    chosen |= {RUNS[name].start for name in chosen}
    pairs = list(zip(args.opts[0::2], args.opts[1::2], strict=True))
    both = [word for key, value in pairs if not key.startswith("STAGE1.") for word in (key, value)]
    first = [word for key, value in pairs if key.startswith("STAGE1.") for word in (key.removeprefix("STAGE1."), value)]
    schedule = get_cfg()
    schedule.merge_from_file(str(stage1_config))
    first = [*map(str, visual_part(stage2, schedule)), *first]
    schedule.merge_from_list([*both, *first])
    jobs: list[Job] = []
    for trial in args.trials:
        for seed in args.seeds:
            made: dict[str, Job] = {}
            folder = args.out / (f"trial{trial}/seed{seed}" if args.dataset == "regdb" else f"seed{seed}")
            for run in (run for run in RUNS.values() if run.name in chosen):
                own = [*both, *(first if run is STAGE1 else _as_stage1(schedule) if run.scratch else []), *run.overrides]
                own += ["SEED", str(seed), "TEST.STORE", "True"]
                own += ["DATASETS.TRIAL", str(trial)] if args.dataset == "regdb" else []
                file = ROOT / "projects" / run.config.format(args.dataset) if run.config else config
                file = stage1_config if run is STAGE1 else file
                made[run.name] = Job(run, seed, trial, file, tuple(own), folder / run.name, made.get(run.start))
            jobs += made.values()
    return jobs


def _as_stage1(cfg: CfgNode) -> list[str]:
    """Training from scratch has stage 1's schedule, visual rates and pre-trained weights."""
    words = []
    words += ["TEST.EVAL_PERIOD", str(cfg.TEST.EVAL_PERIOD)]
    for key in ("MAX_EPOCH", "STEPS", "GAMMA", "WARMUP_EPOCHS", "WARMUP_FACTOR", "BASE_LR"):
        words += [f"SOLVER.{key}", str(cfg.SOLVER[key])]
    for key in ("PRETRAIN", "PRETRAIN_PATH"):
        words += [f"MODEL.BACKBONE.{key}", repr(cfg.MODEL.BACKBONE[key])]
    return words


def carry_out(jobs: list[Job], parallel: int) -> list[str]:
    """Do what is missing, what others start from first; returns what failed."""
    failed: list[str] = []
    lock = threading.Lock()
    broken: set[Path] = set()

    def do(job: Job) -> None:
        state = job.state()
        if state == FINISHED:
            print(f"{job}: finished", flush=True)
            return
        if job.parent is not None and job.parent.folder in broken:
            print(f"{job}: left out, its stage 1 failed", flush=True)
            return
        print(f"{job}: {state} ...", flush=True)
        start = time.monotonic()
        try:
            job.execute(state)
        except RuntimeError as error:
            with lock:
                failed.append(str(error))
                broken.add(job.folder)
            print(f"{job}: FAILED", flush=True)
            return
        print(f"{job}: done in {time.monotonic() - start:.0f} s", flush=True)

    with ThreadPoolExecutor(parallel) as pool:
        first = {pool.submit(do, job): job for job in jobs if job.parent is None}
        # A row waits for its own stage 1 only.
        rest = [pool.submit(do, job) for done in as_completed(first) for job in jobs if job.parent is first[done]]
    for future in (*first, *rest):
        future.result()
    return failed


def evaluations(jobs: list[Job], trials: list[int]) -> dict[str, dict[int, list[Path]]]:
    """What is finished; a seed of which a split is missing counts as missing."""
    found: dict[str, dict[int, list[Path]]] = {}
    for job in jobs:
        if job.state() == FINISHED:
            found.setdefault(job.run.name, {}).setdefault(job.seed, []).append(job.evaluation(job.cfg()))
    return {name: {seed: f for seed, f in seeds.items() if len(f) == len(trials)} for name, seeds in found.items()}


def split_overrides(words: list[str]) -> tuple[list[str], list[str]]:
    """(other words, KEY VALUE pairs): an option that takes a list would swallow the overrides behind it."""
    others: list[str] = []
    pairs: list[str] = []
    left = iter(words)
    for word in left:
        if KEY.fullmatch(word):
            value = next(left, None)
            if value is None:
                raise SystemExit(f"{word} has no value: overrides come as KEY VALUE pairs.")
            pairs += [word, value]
        else:
            others.append(word)
    return others, pairs


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--dataset", required=True, choices=["sysu", "regdb", "llcm", "synthetic"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="training seeds (default: 0)")
    parser.add_argument("--trials", type=int, nargs="+", help="RegDB's splits (default: 1 to 10)")
    parser.add_argument("--out", type=Path, help="folder of runs and tables (default: logs/reproduce/DATASET)")
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help="rows by name, e.g. B +SFF")
    parser.add_argument("--config", type=Path, help="stage-2 config file (default: the data set's of preset paper)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at the same time")
    parser.add_argument("--resamples", type=int, default=10_000, help="of the paired tests")
    parser.add_argument("--dry-run", action="store_true", help="list what would run")
    words, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
    args: argparse.Namespace = parser.parse_args(words)
    args.opts = overrides
    table = TABLES[args.table]
    if args.dataset not in table.datasets:
        parser.error(f"{args.table} is about {', '.join(table.datasets)}, not {args.dataset}.")
    names = [row.name for row in table.rows]
    if unknown := [name for name in args.only if name not in names]:
        parser.error(f"{args.table} has no row {', '.join(unknown)}; it has {', '.join(map(repr, names))}.")
    if args.config and any(RUNS[row.run].config for row in table.rows):
        parser.error(f"{args.table} has config files of its own; change them by KEY VALUE, not by --config.")
    if taken := [key for key in args.opts[0::2] if key.removeprefix("STAGE1.") in OURS]:
        parser.error(f"{', '.join(taken)} is what this tool sets for every run; use --seeds, --trials, --out or --config.")
    args.seeds = list(dict.fromkeys(args.seeds))
    if args.trials and args.dataset != "regdb":
        parser.error("--trials are RegDB's splits")
    args.trials = list(dict.fromkeys(args.trials or range(1, 11))) if args.dataset == "regdb" else [1]
    args.out = args.out or Path("logs/reproduce") / args.dataset
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    table = TABLES[args.table]
    jobs = plan(table, args)
    if args.dry_run:
        for job in jobs:
            state = job.state()
            print(f"{job}: {state}")
            if state != FINISHED:
                print(f"    {shlex.join(job.command(state))}")
        return 0
    failed = carry_out(jobs, args.jobs)
    found = evaluations(jobs, args.trials)
    result = collect(table, args.dataset, found, load_evaluation, only=args.only, expected=args.seeds, resamples=args.resamples)
    for failure in failed:
        print(failure, file=sys.stderr)
    if not result.lines:
        print("\n".join(["No row is complete: there is nothing to print.", *result.notes]), file=sys.stderr)
        return 1
    text = markdown(result)
    for suffix, content in ((".md", text), (".csv", as_csv(result)), (".tex", latex(result))):
        write_text(args.out / f"{args.table}{suffix}", content)
    print(f"\n{text}\nAlso in {args.out}/{args.table}.md, .csv and .tex")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
