"""What is known of gallery images besides their vectors."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

UNKNOWN = np.iinfo(np.int64).min
"""Stands for an unknown identity or camera in an array of integers; data sets use -1 for persons of their own."""


class Record(NamedTuple):
    """One gallery image.

    Attributes:
        path: the image file; it names the image within an index.
        pid: identity, if known.
        camid: camera, if known.
        time: when it was taken, if known: a number, e.g. Unix seconds. Filters compare it and nothing else.
    """

    path: str
    pid: int | None = None
    camid: int | None = None
    time: float | None = None


class Filter(NamedTuple):
    """Which gallery images may be found; None allows every value.

    An image whose camera (time) is unknown does not pass a filter by camera (time).

    Attributes:
        cameras: camera numbers.
        times: first and last time, both included; None at an end leaves it open.
    """

    cameras: Sequence[int] | None = None
    times: tuple[float | None, float | None] | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing is filtered out."""
        return self.cameras is None and self.times is None


EVERYTHING = Filter()


class Records:
    """The records of n images, as columns: a million of them are a few arrays.

    Attributes:
        paths: n image files.
        pids, camids: (n,) int64, `UNKNOWN` where there is none.
        times: (n,) float64, NaN where there is none.
    """

    def __init__(self, paths: list[str], pids: np.ndarray, camids: np.ndarray, times: np.ndarray) -> None:
        self.paths, self.pids, self.camids, self.times = paths, pids, camids, times
        if not len(paths) == len(pids) == len(camids) == len(times):
            counts = f"{len(paths)} paths, {len(pids)} pids, {len(camids)} camids and {len(times)} times"
            raise ValueError(f"{counts}: give one of each per image.")

    @classmethod
    def of(cls, records: Iterable[Record]) -> Self:
        """From single records."""
        rows = list(records)
        return cls(
            [row.path for row in rows],
            np.array([UNKNOWN if row.pid is None else row.pid for row in rows], dtype=np.int64),
            np.array([UNKNOWN if row.camid is None else row.camid for row in rows], dtype=np.int64),
            np.array([np.nan if row.time is None else row.time for row in rows], dtype=np.float64),
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Record:
        pid, camid, time = int(self.pids[row]), int(self.camids[row]), float(self.times[row])
        return Record(
            self.paths[row],
            None if pid == UNKNOWN else pid,
            None if camid == UNKNOWN else camid,
            None if np.isnan(time) else time,
        )

    def __add__(self, other: "Records") -> "Records":
        joined = (np.concatenate(pair) for pair in zip(self._numbers(), other._numbers(), strict=True))
        return Records([*self.paths, *other.paths], *joined)

    def where(self, keep: np.ndarray) -> "Records":
        """Only the images that the (n,) mask keeps."""
        return Records([self.paths[row] for row in np.flatnonzero(keep)], *(column[keep] for column in self._numbers()))

    def passing(self, allowed: Filter) -> np.ndarray:
        """(n,) bool: which images a filter lets through."""
        keep = np.ones(len(self), dtype=bool)
        if allowed.cameras is not None:
            keep &= np.isin(self.camids, np.array(list(allowed.cameras), dtype=np.int64))
        if allowed.times is not None:
            first, last = allowed.times
            keep &= ~np.isnan(self.times)
            keep &= True if first is None else self.times >= first
            keep &= True if last is None else self.times <= last
        return keep

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "paths": self.paths,
            "pids": [None if pid == UNKNOWN else pid for pid in self.pids.tolist()],
            "camids": [None if camid == UNKNOWN else camid for camid in self.camids.tolist()],
            "times": [None if np.isnan(time) else time for time in self.times.tolist()],
        }

    @classmethod
    def from_dict(cls, columns: Mapping[str, Any]) -> Self:
        """From plain values."""
        rows = zip(columns["paths"], columns["pids"], columns["camids"], columns["times"], strict=True)
        return cls.of(Record(*row) for row in rows)

    def _numbers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.pids, self.camids, self.times
