"""What an image is, how images group into persons, and how a gallery is drawn from them."""

import random
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Item(NamedTuple):
    """One image: exactly the three fields that fast-reid's own code unpacks."""

    path: str
    pid: int
    camid: int


class EvalSetting(NamedTuple):
    """One protocol variant of a data set: its name, images per (identity, camera) (0 = all) and its gallery draws.

    A draw is an int64 array of indices into the data set's `gallery`, in protocol order (identity, camera, draw).
    """

    name: str
    shots: int
    draws: tuple[NDArray[np.int64], ...]


def group_by_person(items: Sequence[Item]) -> dict[int, list[int]]:
    """Indices of every person's items, persons ascending, indices in the order of `items`."""
    groups: dict[int, list[int]] = {pid: [] for pid in sorted({item.pid for item in items})}
    for index, item in enumerate(items):
        groups[item.pid].append(index)
    return groups


def count_identities(*items: Sequence[Item]) -> int:
    """K, the number of training identities; raises unless they are numbered 0..K-1."""
    pids = {item.pid for some in items for item in some}
    if pids != set(range(len(pids))):
        raise ValueError(
            f"Training identities must be numbered 0..{len(pids) - 1}; the {len(pids)} identities here run from "
            f"{min(pids)} to {max(pids)}. Relabel them in ascending order."
        )
    return len(pids)


def pair_labels(rgb: Item, ir: Item) -> dict[str, Any]:
    """What a sample says of its pair: identity, cameras and paths; raises unless both images show one person."""
    if rgb.pid != ir.pid:
        raise ValueError(
            f"A pair must show one person, but {rgb.path} shows identity {rgb.pid} and {ir.path} identity {ir.pid}. "
            "Give the sampler the same items as the data set."
        )
    return {"targets": rgb.pid, "rgb_camids": rgb.camid, "ir_camids": ir.camid, "rgb_path": rgb.path, "ir_path": ir.path}


def gallery_groups(items: Sequence[Item], camids: Collection[int]) -> list[list[int]]:
    """Indices of each (identity, camera) that has images, both ascending, each group sorted by path."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, item in enumerate(items):
        if item.camid in camids:
            groups.setdefault((item.pid, item.camid), []).append(index)
    return [sorted(groups[key], key=lambda index: items[index].path) for key in sorted(groups)]


def draw_gallery(groups: Sequence[Sequence[int]], shots: int, seed: int) -> list[int]:
    """One seeded gallery: `shots` members of every group, in the order of the groups.

    Single-shot uses Python's generator and multi-shot numpy's, as the published draws do; both are local, and one
    generator runs through all groups. A group with fewer than `shots` members gives all of them and draws nothing.
    """
    if shots == 1:
        python = random.Random(seed)
        return [python.choice(group) for group in groups]
    numpy = np.random.RandomState(seed)
    drawn: list[int] = []
    for group in groups:
        if len(group) < shots:
            drawn.extend(group)
        else:
            drawn.extend(group[k] for k in numpy.choice(len(group), shots, replace=False))
    return drawn
