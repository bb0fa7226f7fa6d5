"""Run a captioner over many images: in shards, resumably, and in the batches that fit."""

import logging
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from tvilfm_plugin.captioning.base import Captioner
from tvilfm_plugin.captioning.rows import Row, RowStore, merge, natural_order, write_text
from tvilfm_plugin.captioning.sources import SourceSet
from tvilfm_plugin.files.pictures import open_picture

logger = logging.getLogger(__name__)

_AHEAD = 3  # batches that are decoded while one is described


class Shard(NamedTuple):
    """One of `world_size` processes that share the work."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def from_environment(cls) -> "Shard":
        """As torchrun sets it; one process without torchrun."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


class Job(NamedTuple):
    """One image to work on: its key, and what `prepare` made of it."""

    key: str
    prepared: Any


class Outcome(NamedTuple):
    """What this process made and all have done, keys without a result -> why, files merged (none while others still work)."""

    made: int
    done: int
    failed: dict[str, str]
    files: list[Path]


def describe_images(
    captioner: Captioner,
    images: SourceSet,
    out: Path,
    *,
    batch_size: int = 32,
    workers: int = 4,
    shard: Shard | None = None,
    restart: bool = False,
    limit: int = 0,
) -> Outcome:
    """Caption the images of a data set into files that the loaders read.

    Rows go to `out/rows/captions`. The process that finds every image done merges them into the released format.

    Args:
        workers: threads that decode.
        restart: put rows of earlier runs aside instead of going on.
        limit: stop after so many images (0 = all), e.g. to look at some captions first.
    """
    shard = shard or Shard.from_environment()
    store = RowStore(out / "rows" / "captions", captioner.provenance())
    begin(store, shard, restart, out.glob(f"*{images.text_name}.json"))
    paths = {source.key: source.path for source in images.sources}

    def prepare(key: str) -> Any:
        return captioner.prepare(open_picture(paths[key], images.window))

    keys = [source.key for source in images.sources]
    made = run_jobs(
        keys, store, prepare, lambda jobs: _described(captioner, jobs), batch_size=batch_size, workers=workers, shard=shard,
        limit=limit, label=f"captioning {images.modality.value}",
    )  # fmt: skip
    rows = store.read()
    failed = {key: str(rows[key]["error"]) for key in keys if "error" in rows.get(key, {})}
    done = sum("text" in rows.get(key, {}) for key in keys)
    files: list[Path] = []
    if len(failed) + done == len(keys):
        texts = {key: str(row["text"]) for key, row in rows.items() if "text" in row}
        files = merge(out, images.text_name, images.known or images.sources, texts)
        files.append(write_failures(out / "rows" / "captions_failed.txt", failed))
    return Outcome(made, done, failed, files)


def _described(captioner: Captioner, jobs: Sequence[Job]) -> list[Row]:
    # The seed follows from the first image, so that a resumed run with the same batches samples the same text.
    seed = zlib.crc32(f"{captioner.decoding.seed}/{jobs[0].key}".encode())
    rows: list[Row] = []
    for job, said in zip(jobs, captioner.describe([job.prepared for job in jobs], seed), strict=True):
        if said.error or not said.text:
            rows.append({"image": job.key, "error": said.error or "empty caption"})
        else:
            attributes = {} if said.attributes is None else {"attributes": said.attributes}
            rows.append({"image": job.key, "text": said.text, **attributes})
    return rows


def begin(store: RowStore, shard: Shard, restart: bool, files: Iterable[Path]) -> None:
    """Put unwanted earlier rows aside; refuse to overwrite `files` where no rows show that this tool made them."""
    if restart and shard.rank == 0 and (aside := store.restart()):
        logger.info(f"Earlier rows were moved to {aside}.")
    existing = sorted(str(file) for file in files if file.is_file())
    if existing and not any(store.folder.parent.glob(f"{store.folder.name}*")):
        raise FileExistsError(
            f"{', '.join(existing)}: of another origin, and would be overwritten. Give another --out, or move them away."
        )


def write_failures(file: Path, failed: dict[str, str]) -> Path:
    """List what has no result and why."""
    return write_text(file, "".join(f"{key}\t{failed[key]}\n" for key in sorted(failed, key=natural_order)))


def run_jobs(
    keys: Sequence[str],
    store: RowStore,
    prepare: Callable[[str], Any],
    work: Callable[[Sequence[Job]], list[Row]],
    *,
    batch_size: int,
    workers: int = 4,
    shard: Shard = Shard(),  # noqa: B008  (a tuple)
    limit: int = 0,
    label: str = "",
    holds: Callable[[Row], bool] | None = None,
) -> int:
    """Do what is not done yet of this process's share, batch by batch.

    Args:
        keys: everything, the same in every process.
        prepare: key -> what `work` wants; runs in threads. If it fails, the image is listed with the error and skipped.
        work: a row (without provenance) for each job. Out of memory, the batch is halved, for good.
        holds: whether the result of an earlier run still holds; without it every result does.

    Returns:
        number of results that were made.
    """
    if batch_size < 1:
        raise ValueError(f"Batch size {batch_size}: give at least 1.")
    if not 0 <= shard.rank < shard.world_size:
        raise ValueError(f"Rank {shard.rank} of {shard.world_size} processes: ranks are 0 to {shard.world_size - 1}.")
    rows = store.read(holds)
    share = [key for n, key in enumerate(keys) if n % shard.world_size == shard.rank]
    todo = [key for key in share if key not in rows or "error" in rows[key]]
    finished = len(share) - len(todo)
    todo = todo[:limit] if limit else todo
    made = 0
    bar = tqdm(
        total=len(share), initial=finished, unit="img", desc=f"{label} [{shard.rank + 1}/{shard.world_size}]",
        position=shard.rank, mininterval=1.0, smoothing=0.05,
    )  # fmt: skip
    with store.writer(shard.rank) as append, bar:
        for jobs, failures in _prepared_batches(todo, prepare, batch_size, workers):
            append(failures)
            bar.update(len(failures))
            while jobs:
                jobs, batch = jobs[batch_size:], jobs[:batch_size]
                results, batch_size = _within_memory(work, batch, batch_size, append, bar)
                made += results
    return made


def _within_memory(
    work: Callable[[Sequence[Job]], list[Row]], batch: Sequence[Job], batch_size: int, append: Any, bar: Any
) -> tuple[int, int]:
    """Work on a batch in as many parts as the memory asks for; returns results made and the batch size from now on."""
    made, waiting = 0, [batch]
    while waiting:
        part = waiting.pop(0)
        try:
            rows = work(part)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            if len(part) == 1:
                raise RuntimeError(
                    f"Out of memory with a single image ({part[0].key}). Use --dtype bfloat16, a smaller model, or "
                    "another device."
                ) from error
            batch_size = (len(part) + 1) // 2
            logger.warning(f"Out of memory with {len(part)} images: going on with {batch_size} at a time.")
            waiting[:0] = [part[:batch_size], part[batch_size:]]
            # The exception's traceback holds the tensors that do not fit.
            del error
            _free_memory()
            continue
        append(rows)
        bar.update(len(rows))
        made += sum("error" not in row for row in rows)
    return made, batch_size


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _free_memory() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _prepared_batches(
    keys: Sequence[str], prepare: Callable[[str], Any], batch_size: int, workers: int
) -> Iterator[tuple[list[Job], list[Row]]]:
    """Batches in order, a few decoded ahead; what cannot be prepared comes as rows with an error."""
    pending: deque[list[tuple[str, Future[Any]]]] = deque()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        try:
            for n in range(0, len(keys), batch_size):
                pending.append([(key, pool.submit(prepare, key)) for key in keys[n : n + batch_size]])
                if len(pending) > _AHEAD:
                    yield _collect(pending.popleft())
            while pending:
                yield _collect(pending.popleft())
        finally:
            for chunk in pending:
                for _, future in chunk:
                    future.cancel()


def _collect(chunk: Sequence[tuple[str, "Future[Any]"]]) -> tuple[list[Job], list[Row]]:
    jobs: list[Job] = []
    failures: list[Row] = []
    for key, future in chunk:
        try:
            jobs.append(Job(key, future.result()))
        except (OSError, ValueError) as error:
            logger.warning(f"{key} cannot be read: {error}")
            failures.append({"image": key, "error": f"unreadable: {error}"})
    return jobs, failures
