"""Galleries of a data set: the union of all draws, and images that leave a gallery."""

from collections.abc import Callable, Sequence

import numpy as np

from tvilfm_plugin.data.datasets.listing import examples
from tvilfm_plugin.data.items import EvalSetting, Item, draw_gallery, gallery_groups, group_by_person


def union_of_draws(
    candidates: list[Item],
    variants: Sequence[tuple[str, Sequence[int], int]],
    draws: int,
    draw: Callable[[Sequence[Sequence[int]], int, int], list[int]] = draw_gallery,
) -> tuple[list[Item], list[EvalSetting], list[str]]:
    """Galleries 0..draws-1 of every variant (name, cameras, shots), and the union of all of them.

    Args:
        draw: (groups, shots, number of the draw) -> the gallery's indices.

    Returns:
        the union's images, the settings (whose draws index them), and what is worth a warning.
    """
    warnings: list[str] = []
    drawn: list[tuple[str, int, list[list[int]]]] = []
    for name, camids, shots in variants:
        groups = gallery_groups(candidates, camids)
        short = sum(len(group) < shots for group in groups)
        if short:
            warnings.append(
                f"{name}: {short} of {len(groups)} (identity, camera) groups have fewer than {shots} images; all of "
                "theirs are in every gallery."
            )
        drawn.append((name, shots, [draw(groups, shots, number) for number in range(draws)]))
    used = sorted({index for _, _, galleries in drawn for gallery in galleries for index in gallery})
    position = {index: n for n, index in enumerate(used)}
    settings = [
        EvalSetting(name, shots, tuple(np.array([position[i] for i in g], dtype=np.int64) for g in galleries))
        for name, shots, galleries in drawn
    ]
    return [candidates[index] for index in used], settings, warnings


def hold_out(candidates: list[Item], count: int, seed: int) -> list[Item]:
    """The images without `count` seeded ones of every identity."""
    groups = group_by_person(candidates)
    small = [pid for pid, indices in groups.items() if len(indices) <= count]
    if count < 0 or small:
        raise ValueError(
            f"held_out={count} must be positive and leave every test identity a gallery image; "
            f"{len(small)} have no more visible images than that ({examples(small)})."
        )
    generator = np.random.RandomState(seed)
    out = {indices[k] for indices in groups.values() for k in generator.choice(len(indices), count, replace=False)}
    return [item for index, item in enumerate(candidates) if index not in out]
