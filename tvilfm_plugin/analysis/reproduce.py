"""The trainings of a table: what is finished, what is missing, and doing that, each in a process of its own."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvilfm_plugin.analysis.tables import RUNS, STAGE1, Run, Table
from tvilfm_plugin.config import read_config, visual_part
from tvilfm_plugin.config.nodes import flat
from tvilfm_plugin.engine.finished import BEST, SCORES, finished_weights
from tvilfm_plugin.engine.run import RUN, what_differs
from tvilfm_plugin.files.json import read_json
from tvilfm_plugin.files.shipped import PACKAGE, find_config, homes
from tvilfm_plugin.files.writing import make_folder, write_text

# Keys, or beginnings of keys, that decide about an evaluation.
EVALUATED = (
    "DATASETS.DIRECTION", "DATASETS.GALLERY", "DATASETS.MODES", "DATASETS.SHOTS", "DATASETS.TESTS", "TEST.", "TVILFM.MEMBERS",
)  # fmt: skip
INCIDENTAL = ("TEST.EVAL_PERIOD", "TEST.IMS_PER_BATCH", "TEST.STORE")
FINISHED, EVALUATE, RESUME, TRAIN = "finished", "evaluate", "resume", "train"
# Of the checkout where there is one; the same program comes with the package.
TRAIN_NET = next(
    (str(path) for home in homes() if home != PACKAGE and (path := home / "tools" / "train_net.py").is_file()),
    "-mtvilfm_plugin.cli.train_net",
)
EVALUATION, LOG = "evaluated.json", "reproduce.log"


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

    def cfg(self) -> Any:
        return read_config(self.config, [*self.overrides, "OUTPUT_DIR", str(self.folder)])

    def evaluation(self, cfg: Any) -> Path:
        """Where its evaluation is stored."""
        name = cfg.DATASETS.TESTS[0] + ("" if cfg.TEST.SPLIT == "test" else f"-{cfg.TEST.SPLIT}")
        name += "" if cfg.TEST.PROTOCOL == "standard" else f"-{cfg.TEST.PROTOCOL}"
        return self.folder / "evaluation" / name

    def state(self) -> str:
        """What has to be done."""
        cfg = self.cfg()
        # Without run.json nobody knows what was trained there; `[]` is the only answer that lets it stand.
        if what_differs(cfg, self.stage1) != []:
            return TRAIN
        if not finished_weights(cfg):
            return RESUME if (self.folder / "last_checkpoint").is_file() else TRAIN
        known = self.folder / EVALUATION
        asked = known.is_file() and read_json(known) == _evaluation_keys(cfg)
        return FINISHED if asked and (self.evaluation(cfg) / "results.json").is_file() else EVALUATE

    def command(self, state: str) -> list[str]:
        """The command line of a training program of the shape of fast-reid's."""
        words = [sys.executable, TRAIN_NET, "--config-file", str(self.config)]
        words += {RESUME: ["--resume"], EVALUATE: ["--eval-only"]}.get(state, [])
        weights = finished_weights(self.cfg()) if state == EVALUATE else self.stage1
        words += [*self.overrides, "OUTPUT_DIR", str(self.folder)]
        return words + (["MODEL.WEIGHTS", weights] if weights else [])

    def execute(self, state: str, start: "Start") -> None:
        """Train or evaluate; the output goes to a file in the run's folder."""
        cfg = self.cfg()
        if state == TRAIN:
            make_folder(self.folder)
            # In this order: what is left of an older recipe must never be taken for this one's.
            for name in (EVALUATION, "model_final.pth", "last_checkpoint", BEST, SCORES, RUN):
                (self.folder / name).unlink(missing_ok=True)
        status = start(self.command(state), self.folder / LOG)
        if status or not (self.evaluation(cfg) / "results.json").is_file():
            tail = (self.folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
            raise RuntimeError("\n".join([f"{self.folder} failed (exit status {status}), {LOG} ends with:", *tail]))
        write_text(self.folder / EVALUATION, json.dumps(_evaluation_keys(cfg), indent=1) + "\n")

    def __str__(self) -> str:
        return str(self.folder)


Start = Callable[[list[str], Path], int]
"""Runs a command to its end, its output in a file; returns its exit status."""


def start(command: list[str], log: Path) -> int:
    """Run a command in a process of its own."""
    with open(log, "w", encoding="utf-8") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode


def _evaluation_keys(cfg: Any) -> dict[str, str]:
    return {key: str(value) for key, value in sorted(flat(cfg).items()) if key.startswith(EVALUATED) and key not in INCIDENTAL}


def plan(
    table: Table,
    dataset: str,
    out: Path,
    *,
    seeds: Sequence[int] = (0,),
    trials: Sequence[int] = (1,),
    only: Sequence[str] = (),
    config: Path | None = None,
    opts: Sequence[str] = (),
) -> list[Job]:
    """The trainings of a table, each after the one that it starts from.

    Args:
        dataset: "sysu", "regdb", "llcm" or "synthetic".
        seeds, trials: training seeds, and RegDB's splits.
        only: row names; empty: all.
        config: the stage-2 config; None = the data set's.
        opts: KEY VALUE pairs for every run, STAGE1.KEY VALUE for stage 1 only.
    """
    config = config or find_config(f"TVILFM/{dataset}.yml")
    chosen = {row.run for row in table.rows if not only or row.name in only}
    chosen |= {RUNS[name].start for name in chosen}
    stage1_config, both, first, schedule = _overrides(config, opts)
    jobs: list[Job] = []
    for trial in trials:
        for seed in seeds:
            made: dict[str, Job] = {}
            folder = out / (f"trial{trial}/seed{seed}" if dataset == "regdb" else f"seed{seed}")
            for run in (run for run in RUNS.values() if run.name in chosen):
                own = [*both, *(first if run is STAGE1 else _as_stage1(schedule) if run.scratch else []), *run.overrides]
                own += ["SEED", str(seed), "TEST.STORE", "True"]
                own += ["DATASETS.TRIAL", str(trial)] if dataset == "regdb" else []
                file = find_config(f"projects/{run.config.format(dataset)}") if run.config else config
                file = stage1_config if run is STAGE1 else file
                made[run.name] = Job(run, seed, trial, file, tuple(own), folder / run.name, made.get(run.start))
            jobs += made.values()
    return jobs


def _overrides(config: Path, opts: Sequence[str]) -> tuple[Path, list[str], list[str], Any]:
    """Stage 1's config file, the words for every run, those for stage 1 alone, and stage 1's config with both."""
    stage2 = read_config(config)
    stage1_config = Path(stage2.TVILFM.STAGE1)
    pairs = list(zip(opts[0::2], opts[1::2], strict=True))
    both = [word for key, value in pairs if not key.startswith("STAGE1.") for word in (key, value)]
    first = [word for key, value in pairs if key.startswith("STAGE1.") for word in (key.removeprefix("STAGE1."), value)]
    schedule = read_config(stage1_config)
    first = [*map(str, visual_part(stage2, schedule)), *first]
    schedule.merge_from_list([*both, *first])
    return stage1_config, both, first, schedule


def _as_stage1(cfg: Any) -> list[str]:
    """Training from scratch has stage 1's schedule, visual rates and pre-trained weights."""
    words = ["TEST.EVAL_PERIOD", str(cfg.TEST.EVAL_PERIOD)]
    for key in ("MAX_EPOCH", "STEPS", "GAMMA", "WARMUP_EPOCHS", "WARMUP_FACTOR", "BASE_LR"):
        words += [f"SOLVER.{key}", str(cfg.SOLVER[key])]
    for key in ("PRETRAIN", "PRETRAIN_PATH"):
        words += [f"MODEL.BACKBONE.{key}", repr(cfg.MODEL.BACKBONE[key])]
    if start := cfg.MODEL.DUAL_STREAM.WEIGHTS or cfg.MODEL.WEIGHTS:
        words += ["MODEL.DUAL_STREAM.WEIGHTS", start]
    return words


def missing_weights(jobs: Sequence[Job]) -> dict[str, int]:
    """Files named by MODEL.BACKBONE.PRETRAIN_PATH that are not there -> how many of the trainings begin with them."""
    backbones = [job.cfg().MODEL.BACKBONE for job in jobs if job.state() == TRAIN]
    named = [backbone.PRETRAIN_PATH for backbone in backbones if backbone.PRETRAIN and backbone.PRETRAIN_PATH]
    return {path: named.count(path) for path in named if not Path(path).is_file()}


def carry_out(jobs: Sequence[Job], parallel: int, begin: Start = start) -> list[str]:
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
        begun = time.monotonic()
        try:
            job.execute(state, begin)
        except RuntimeError as error:
            with lock:
                failed.append(str(error))
                broken.add(job.folder)
            print(f"{job}: FAILED", flush=True)
            return
        print(f"{job}: done in {time.monotonic() - begun:.0f} s", flush=True)

    with ThreadPoolExecutor(parallel) as pool:
        first = {pool.submit(do, job): job for job in jobs if job.parent is None}
        # A row waits for its own stage 1 only.
        rest = [pool.submit(do, job) for done in as_completed(first) for job in jobs if job.parent is first[done]]
    for future in (*first, *rest):
        future.result()
    return failed


def evaluations(jobs: Sequence[Job], trials: Sequence[int]) -> dict[str, dict[int, list[Path]]]:
    """What is finished; a seed of which a split is missing counts as missing."""
    found: dict[str, dict[int, list[Path]]] = {}
    for job in jobs:
        if job.state() == FINISHED:
            found.setdefault(job.run.name, {}).setdefault(job.seed, []).append(job.evaluation(job.cfg()))
    return {name: {seed: f for seed, f in seeds.items() if len(f) == len(trials)} for name, seeds in found.items()}
