"""A benchmark's rules as a value: which gallery images a query ignores, and what its CMC counts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np


class Labels(NamedTuple):
    """Identity and camera of n images; element i of both belongs to image i."""

    pids: np.ndarray
    camids: np.ndarray

    @classmethod
    def of(cls, items: Sequence[Any]) -> Self:
        """Of `items.Item`s."""
        return cls(np.array([item.pid for item in items]), np.array([item.camid for item in items]))

    def at(self, rows: Any) -> "Labels":
        """Of some of the images, by anything that indexes an array."""
        return Labels(self.pids[rows], self.camids[rows])


Junk = Callable[[np.ndarray, np.ndarray, Labels], np.ndarray]
"""(pids (Q, 1), camids (Q, 1), gallery of G images) -> bool, broadcastable to (Q, G): the images a query ignores."""


@dataclass(frozen=True)
class Protocol:
    """Rules of one benchmark. Everything else about an evaluation is data.

    Args:
        name: as printed in results.
        is_junk: images that are taken out of a query's ranking. A module-level function, so that protocols pickle.
        count_identities: CMC counts identities (each at its first image in the ranking) instead of images.
    """

    name: str
    is_junk: Junk
    count_identities: bool

    @property
    def cmc(self) -> str:
        """What a rank of the CMC counts, in a word for the protocol card."""
        return "identities" if self.count_identities else "images"


def camera_2_for_camera_3(pids: np.ndarray, camids: np.ndarray, gallery: Labels) -> np.ndarray:
    """SYSU-MM01: cameras 2 and 3 stand in the same place, so a camera-3 query ignores all of camera 2. (Q, G)."""
    return (camids == 3) & (gallery.camids == 2)


def same_person_same_camera(pids: np.ndarray, camids: np.ndarray, gallery: Labels) -> np.ndarray:
    """Market-1501 and LLCM: the query's own person seen by the query's own camera. (Q, G)."""
    return (pids == gallery.pids) & (camids == gallery.camids)


def nothing(pids: np.ndarray, camids: np.ndarray, gallery: Labels) -> np.ndarray:
    """RegDB: every gallery image counts. (1, 1)."""
    return np.zeros((1, 1), dtype=bool)


SYSU = Protocol("SYSU-MM01", camera_2_for_camera_3, count_identities=True)
REGDB = Protocol("RegDB", nothing, count_identities=False)
LLCM = Protocol("LLCM", same_person_same_camera, count_identities=True)
MARKET = Protocol("Market-1501", same_person_same_camera, count_identities=False)
# What MIP's authors score every data set by; their camera-3 queries find camera 2.
MIP = Protocol("mip", same_person_same_camera, count_identities=False)

PROTOCOLS = {protocol.name: protocol for protocol in (SYSU, REGDB, LLCM, MARKET, MIP)}
"""By the name that results store."""
