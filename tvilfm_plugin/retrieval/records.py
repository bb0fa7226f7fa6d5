"""What is known of gallery images besides their vectors."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from tvilfm_plugin.files.listing import some

UNKNOWN = np.iinfo(np.int64).min
"""Stands for an unknown identity or camera in an array of integers; data sets use -1 for persons of their own."""


class Record(NamedTuple):
    """One gallery image; identity, camera and time (a number that filters compare, e.g. Unix seconds) where they are known."""

    path: str
    pid: int | None = None
    camid: int | None = None
    time: float | None = None


class Filter(NamedTuple):
    """Which gallery images may be found: of some cameras, from a first to a last time (None: open); None allows every value.

    An image whose camera (time) is unknown does not pass a filter by camera (time).
    """

    cameras: Sequence[int] | None = None
    times: tuple[float | None, float | None] | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing is filtered out."""
        return self.cameras is None and self.times is None

    def check(self) -> None:
        """Raise for what is no filter: cameras that are no whole numbers, times that are no range."""
        cameras, times = self.cameras, self.times
        if cameras is not None and (
            isinstance(cameras, str | bytes)
            or not isinstance(cameras, Collection)
            or not all(isinstance(c, int | np.integer) and not isinstance(c, bool) and abs(int(c)) < 2**63 for c in cameras)
        ):
            raise ValueError(f"A filter by camera is a list of whole numbers, not {cameras!r}.")
        if times is None:
            return
        ends = list(times) if isinstance(times, tuple | list) else [object()]
        good = all(end is None or (isinstance(end, int | float | np.number) and end == end) for end in ends)
        if len(ends) != 2 or not good:
            raise ValueError(f"A filter by time is its first and its last time (None: open), not {times!r}.")
        if None not in ends and ends[0] > ends[1]:  # type: ignore[operator]
            raise ValueError(f"A filter by time ends before it begins: {times!r}.")

    def nothing_found(self, records: "Records") -> str:
        """Why no image passes, for a search's note; a ValueError if none ever can: the gallery does not know it."""
        for what, asked, known in (
            ("camera", self.cameras, records.camids[records.camids != UNKNOWN]),
            ("time", self.times, records.times[~np.isnan(records.times)]),
        ):
            if asked is not None and not len(known):
                raise ValueError(
                    f"No image of this gallery has a {what}, so a filter by {what} can find nothing: leave it out, or embed "
                    f"the gallery from a table with the column {'camid' if what == 'camera' else what}."
                )
        if self.cameras is not None and not np.isin(records.camids, list(self.cameras)).any():
            there = sorted(set(records.camids[records.camids != UNKNOWN].tolist()))
            named = ", ".join(map(str, self.cameras)) or "(none was named)"
            return f"no image is of camera {named}; the gallery has {some(there, 20)}"
        return "no image of the gallery passes the filter"


EVERYTHING = Filter()


class Records:
    """Records as columns, so a million are few arrays: paths, (n,) int64 people and cameras (or UNKNOWN), times (or NaN)."""

    def __init__(self, paths: list[str], pids: np.ndarray, camids: np.ndarray, times: np.ndarray) -> None:
        self.paths, self.pids, self.camids, self.times = paths, pids, camids, times
        if not len(paths) == len(pids) == len(camids) == len(times):
            counts = f"{len(paths)} paths, {len(pids)} pids, {len(camids)} camids and {len(times)} times"
            raise ValueError(f"{counts}: give one of each per image.")
        if strange := [path for path in paths if not isinstance(path, str)]:
            raise ValueError(f"A gallery image is named by the path of its file, not by {strange[0]!r}.")
        if np.isinf(times).any():
            raise ValueError(f"The time of {paths[int(np.isinf(times).argmax())]!r} is infinite; None is unknown.")

    @classmethod
    def of(cls, records: Iterable[Record]) -> Self:
        """From single records."""
        rows = list(records)
        return cls.from_dict({f"{name}s": [getattr(row, name) for row in rows] for name in Record._fields})

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
        allowed.check()
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
        paths, pids, camids, times = (list(columns[name]) for name in ("paths", "pids", "camids", "times"))
        return cls(paths, _whole("pid", pids), _whole("camid", camids), _numbers("time", times, np.nan, np.float64))

    def _numbers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.pids, self.camids, self.times


def _whole(name: str, values: Sequence[Any]) -> np.ndarray:
    """(n,) int64; numbers with a fraction would be cut in silence."""
    column = _numbers(name, values, UNKNOWN, np.int64)
    if cut := [value for value, number in zip(values, column.tolist(), strict=True) if value is not None and value != number]:
        raise ValueError(f"The {name} {cut[0]!r} is no whole number; None is unknown.")
    return column


def _numbers(name: str, values: Sequence[Any], unknown: float, dtype: type) -> np.ndarray:
    try:
        return np.array([unknown if value is None else value + 0 for value in values], dtype=dtype)
    except (TypeError, ValueError, OverflowError):
        for value in values if len(values) > 1 else ():
            _numbers(name, [value], unknown, dtype)  # the first that is wrong says so
        raise ValueError(f"The {name} {values[0]!r} is no number of 64 bits; None is unknown.") from None
