"""t-SNE maps: where the features of some people lie, infrared and visible (the paper's Fig. 4, a-d; MIP's Fig. 3)."""

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tvilfm_plugin.visualization.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILION, new_figure
from tvilfm_plugin.visualization.systems import System

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PEOPLE, IMAGES = 20, 8
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, INK)


class Map(NamedTuple):
    """(N, 2) positions (t-SNE keeps neighbourhoods: axes have no unit), people, what is visible (else a query), a note."""

    position: np.ndarray
    pids: np.ndarray
    visible: np.ndarray
    note: str = ""


def choose_people(query_pids: np.ndarray, gallery_pids: np.ndarray, count: int = PEOPLE, seed: int = 0) -> np.ndarray:
    """Identities that are in both, ascending."""
    both = np.intersect1d(query_pids, gallery_pids)
    return np.sort(np.random.default_rng(seed).permutation(both)[:count])


def choose_images(pids: np.ndarray, people: np.ndarray, most: int = IMAGES, seed: int = 0) -> np.ndarray:
    """Rows of at most `most` images of each person, ascending."""
    rng = np.random.default_rng([seed, 1])
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(pids == person))[:most] for person in people]))


def embed(features: np.ndarray, seed: int = 0, metric: str = "cosine") -> np.ndarray:
    """(N, D) -> (N, 2) by t-SNE on cosine (or "euclidean") distances, scikit-learn's defaults otherwise."""
    from sklearn.manifold import TSNE

    if len(features) < 4:
        raise ValueError(f"A map needs at least 4 points, got {len(features)}.")
    perplexity = min(30.0, (len(features) - 1) / 3)
    model = TSNE(metric=metric, init="pca", perplexity=perplexity, random_state=seed)
    positions: np.ndarray = model.fit_transform(np.ascontiguousarray(features, dtype=np.float32))
    return positions


def map_of(system: System, people: np.ndarray, most: int = IMAGES, seed: int = 0) -> Map:
    """Queries as they were asked, and the visible images of the gallery union, of some people."""
    query, gallery, labels, _ = system.embeddings()
    asked = system.stored.query.pids
    of_query, of_gallery = choose_images(asked, people, most, seed), choose_images(labels.pids, people, most, seed)
    features = np.concatenate([query.numpy()[of_query], gallery.numpy()[of_gallery]])
    visible = np.arange(len(features)) >= len(of_query)
    return Map(embed(features, seed), np.concatenate([asked[of_query], labels.pids[of_gallery]]), visible)


def build_maps(maps: Mapping[str, Map], title: str, queries: str = "infrared (with text where used)") -> "Figure":
    """One panel per map; `queries` are triangles. A person has a colour, and her letter at the median of both."""
    people = sorted({int(pid) for one in maps.values() for pid in one.pids})
    figure = new_figure(3.6 * len(maps) + 0.2, 4.1)
    for axis, (name, one) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        _draw_map(axis, one, people)
        axis.set_title(name, fontsize=10, color=INK)
        axis.set_xlabel(one.note, fontsize=8, color=GREY)
    from matplotlib.lines import Line2D

    marker = lambda shape, fill: Line2D([], [], marker=shape, color=GREY, linestyle="", markerfacecolor=fill)
    handles = [marker("^", GREY), marker("o", "white"), Line2D([], [], color=GREY, linewidth=0.8)]
    names = [queries, "visible", "from a person's queries to her visible images; letters name people"]
    figure.legend(handles, names, loc="outside lower center", ncols=3 if len(maps) > 1 else 1, fontsize=9)
    figure.suptitle(title, fontsize=11, color=INK)
    return figure


def letter(number: int) -> str:
    """A, B, ... Z, A1, B1, ..."""
    turn, place = divmod(number, len(ascii_uppercase))
    return ascii_uppercase[place] + (str(turn) if turn else "")


def _draw_map(axis: "Axes", one: Map, people: Sequence[int]) -> None:
    from matplotlib.patheffects import withStroke

    for number, person in enumerate(people):
        own = one.pids == person
        if not own.any():
            continue
        colour = COLOURS[number % len(COLOURS)]
        asked, seen = one.position[own & ~one.visible], one.position[own & one.visible]
        x, y = asked.T
        axis.scatter(x, y, s=16, marker="^", color=colour, linewidths=0, alpha=0.85, gid=f"query {person}")
        x, y = seen.T
        axis.scatter(x, y, s=16, marker="o", facecolors="white", edgecolors=colour, linewidths=0.9, gid=f"visible {person}")
        middles = [np.median(points, axis=0) for points in (asked, seen) if len(points)]
        x, y = np.transpose(middles)
        axis.plot(x, y, color=colour, linewidth=0.8, alpha=0.6, zorder=0.5, gid=f"line {person}")
        outline = [withStroke(linewidth=2, foreground="white")]
        for x, y in middles:
            label = axis.text(x, y, letter(number), fontsize=8, weight="bold", color=colour, path_effects=outline)
            label.set(ha="center", va="center")
    axis.set(xticks=[], yticks=[])
    axis.set_aspect("equal", adjustable="datalim")
