"""Timing in pairs: the two sides take turns, so that what slows the machine slows both."""

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import torch
from tabulate import tabulate


@dataclass(frozen=True)
class Figure:
    """One line of the table. Times are medians, in seconds of one run.

    `ratio` is the median of the pairwise quotients reference / ours in CPU seconds. `gemm_fraction` is the counted
    arithmetic of our side by its CPU time, as a fraction of the matrix products' rate in the same run.
    """

    name: str
    target: float | None
    ratio: float
    ours_cpu: float
    reference_cpu: float
    ours_wall: float
    reference_wall: float
    difference: float
    runs: int
    gemm_fraction: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Machine:
    """Rates of 1024 x 1024 matrix products in this process, GMAC per CPU second."""

    threads: int
    float32: float
    bfloat16: float

    @classmethod
    def measure(cls) -> "Machine":
        rates = []
        for dtype in (torch.float32, torch.bfloat16):
            matrix = torch.rand(1024, 1024).to(dtype)
            rates.append(1.073741824 / min(timed(lambda m=matrix: m @ m)[0] for _ in range(5)))  # type: ignore[misc]
        return cls(torch.get_num_threads(), *rates)


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """CPU and wall seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


class Elsewhere:
    """Work in a process of its own: what one side asks of the memory allocator must not serve the other.

    As a context manager it ends the process.

    Attributes:
        kernel: seconds of each timed call that the kernel took, most of them to clear pages; part of the CPU seconds.
    """

    def __init__(self, build: Callable[..., Mapping[str, Callable[[], Any]]], *args: Any) -> None:
        """Args:
        build: makes the work there, by name; a function of a module.
        args: of `build`.
        """
        context = multiprocessing.get_context("spawn")
        self._end, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, torch.get_num_threads(), build, args), daemon=True)
        self._process.start()
        theirs.close()
        self._end.recv()  # ready
        self.kernel: list[float] = []

    def timed(self, name: str) -> tuple[float, float]:
        """CPU and wall seconds of one call there."""
        cpu, wall, kernel, _ = self._ask(name)
        self.kernel.append(kernel)
        return cpu, wall

    def peak(self) -> float:
        """Largest resident size of the process until now, in MiB."""
        return self._ask("")[3]

    def _ask(self, name: str) -> tuple[float, float, float, float]:
        self._end.send(name)
        return self._end.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.close()
        self._process.join()


def _serve(end: Connection, threads: int, build: Callable[..., Mapping[str, Callable[[], Any]]], args: tuple) -> None:
    torch.set_num_threads(threads)
    work = {"": lambda: None} | dict(build(*args))
    end.send("ready")
    while True:
        try:
            name = end.recv()
        except EOFError:
            return
        before = resource.getrusage(resource.RUSAGE_SELF).ru_stime
        times = timed(work[name])
        used = resource.getrusage(resource.RUSAGE_SELF)
        end.send((*times, used.ru_stime - before, used.ru_maxrss / 1024))


def compare(
    name: str,
    ours: Callable[[], Any],
    reference: Callable[[], Any],
    difference: float,
    runs: int,
    *,
    clock: Callable[[Callable[[], Any]], tuple[float, float]] = timed,
    tolerance: float = 1e-5,
    target: float | None = None,
    gmac: float | None = None,
    rate: float | None = None,
    note: str = "",
) -> Figure:
    """Time both sides in turn.

    Args:
        difference: largest relative difference of the two results, found before; more than `tolerance` raises.
        clock: CPU and wall seconds of a side.
        gmac: arithmetic that our side has to do.
        rate: what the machine does of it, GMAC per CPU second.
    """
    if not difference <= tolerance:
        raise AssertionError(f"{name}: the two sides differ by {difference:.1e}, allowed are {tolerance:.0e}; not timed.")
    pairs = []
    for turn in range(runs + 1):
        sides = (ours, reference) if turn % 2 else (reference, ours)
        times = {side: clock(side) for side in sides}
        if turn:  # the first pair warms up
            pairs.append((times[ours], times[reference]))
    return ratio(name, pairs, difference, target=target, gmac=gmac, rate=rate, note=note)


def ratio(
    name: str,
    pairs: Sequence[tuple[tuple[float, float], tuple[float, float]]],
    difference: float = 0.0,
    *,
    target: float | None = None,
    gmac: float | None = None,
    rate: float | None = None,
    note: str = "",
) -> Figure:
    """The figure of measured pairs: (CPU, wall) seconds of our side and of the reference."""
    ours_cpu = statistics.median(a[0] for a, _ in pairs)
    return Figure(
        name=name,
        target=target,
        ratio=statistics.median(b[0] / max(a[0], 1e-9) for a, b in pairs),
        ours_cpu=ours_cpu,
        reference_cpu=statistics.median(b[0] for _, b in pairs),
        ours_wall=statistics.median(a[1] for a, _ in pairs),
        reference_wall=statistics.median(b[1] for _, b in pairs),
        difference=difference,
        runs=len(pairs),
        gemm_fraction=None if gmac is None or rate is None else gmac / ours_cpu / rate,
        note=note,
    )


def relative(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """Largest difference, relative to the largest value."""
    ours, reference = ours.detach().float(), reference.detach().float()
    return float((ours - reference).abs().max() / reference.abs().max().clamp(min=1e-12))


def table(figures: list[Figure]) -> str:
    """Markdown."""
    headers = (
        "work", "ratio", "target", "ours CPU s", "reference CPU s", "ours wall s", "reference wall s", "of GEMM rate",
        "differs by", "note",
    )  # fmt: skip
    rows = [
        (
            f.name,
            f"**{f.ratio:.2f}x**",
            "" if f.target is None else f"{f.target:g}x",
            *(f"{seconds:.4g}" for seconds in (f.ours_cpu, f.reference_cpu, f.ours_wall, f.reference_wall)),
            "" if f.gemm_fraction is None else f"{f.gemm_fraction:.0%}",
            f"{f.difference:.0e}",
            f.note,
        )
        for f in figures
    ]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)
