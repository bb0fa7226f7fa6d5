"""MIP's two pictures: where the class token looks, and what the instance prompts are (`modeling/mip/readout.py`).

Nothing is clipped, stretched, thresholded or smoothed: all maps of a picture share one colour scale from 0 to the largest
value shown, and every map has its own range and sum printed below it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from tvilfm_plugin.data.eval_set import EvalSet, ModalityBatchSampler, collate_rows
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.mip.encoder import MIPEncoder
from tvilfm_plugin.modeling.mip.readout import Readout, read_out
from tvilfm_plugin.visualization.figures import GREY, INK, new_figure
from tvilfm_plugin.visualization.tsne import Map, choose_images, embed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 64
COLOURS = "cividis"  # looks the same with every kind of colour vision, and in grey


def rows_of_people(data: EvalSet, people: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Rows of the evaluation set: at most `most` queries of each person, then at most `most` of her gallery images."""
    query, gallery = (np.array([item.pid for item in items]) for items in (data.query_items, data.gallery_items))
    return np.r_[choose_images(query, people, most, seed), data.num_query + choose_images(gallery, people, most, seed)]


def read_rows(
    encoder: MIPEncoder, data: EvalSet, rows: np.ndarray, progress: Callable[[Sequence[range]], Iterable[range]] = iter
) -> Readout:
    """What the encoder says about some rows, given and told in ascending order."""
    device = encoder.pixel_mean.device
    wanted = set(rows.tolist())
    # Consecutive rows of one modality; a batch without wanted rows is not read.
    batches = [b for b in ModalityBatchSampler(data, BATCH).batches if wanted.intersection(b)]
    found = []
    for some in progress(batches):
        batch = collate_rows([data[row] for row in some if row in wanted])
        pixels, camids = batch["images"].to(device), batch["camids"].to(device)
        found.append(read_out(encoder, pixels, Modality(batch["modality"][0]), camids))
    attention = torch.cat([one.attention for one in found]).float().cpu()
    prompts = torch.cat([one.instance_prompts for one in found]).float().cpu()
    return Readout(attention, found[0].modality_prompts.float().cpu(), prompts)


def pick_layer(layers: int, layer: int) -> int:
    """0-based number of a block that may be counted from the end (-1: the last)."""
    if not -layers <= layer < layers:
        raise ValueError(f"There is no layer {layer}: the model has {layers}, 0..{layers - 1} or -{layers}..-1.")
    return layer % layers


def build_attention(
    images: Sequence[np.ndarray], labels: Sequence[str], maps: Mapping[str, np.ndarray], title: str, across: int = 2
) -> "Figure":
    """Images, each followed by its attention maps.

    Args:
        images: (H, W, 3) uint8.
        labels: one per image.
        maps: model -> (B, rows, columns), share of the class token's attention that goes to each patch.
        across: images side by side.
    """
    for name, values in maps.items():
        if len(values) != len(images):
            raise ValueError(f"{name} has {len(values)} maps for {len(images)} images.")
    largest = max(float(values.max()) for values in maps.values())
    tiles, lines = 1 + len(maps), -(-len(images) // across)
    figure = new_figure(1.15 * tiles * across + 1.0, 2.55 * lines + 0.7)
    # A narrow column of nothing keeps the groups apart.
    ratios = [*([1.0] * tiles + [0.15]) * across][:-1]
    grid = figure.add_gridspec(lines, len(ratios), width_ratios=ratios)
    shown = None
    for n, (image, label) in enumerate(zip(images, labels, strict=True)):
        line, left = n // across, (n % across) * (tiles + 1)
        height, width = image.shape[:2]
        for tile in range(tiles):
            axis = figure.add_subplot(grid[line, left + tile])
            axis.set(xticks=[], yticks=[])
            if tile == 0:
                axis.imshow(image, extent=(0, width, height, 0))
                axis.set_xlabel(label, fontsize=8, color=INK)
            else:
                name, values = list(maps.items())[tile - 1]
                one = values[n]
                extent = (0, width, height, 0)
                shown = axis.imshow(one, cmap=COLOURS, vmin=0, vmax=largest, interpolation="nearest", extent=extent)
                axis.set_xlabel(f"{one.min():.4f} to {one.max():.4f}\nsum {one.sum():.3f}", fontsize=7, color=GREY)
            if line == 0:
                axis.set_title("image" if tile == 0 else list(maps)[tile - 1], fontsize=9, color=INK)
    assert shown is not None
    bar = figure.colorbar(shown, ax=figure.axes, shrink=0.6, pad=0.01)
    bar.set_label(f"share of the class token's attention, 0 to {largest:.4f}", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10, color=INK)
    return figure


def prompt_map(data: EvalSet, rows: np.ndarray, prompts: torch.Tensor, layer: int, seed: int = 0) -> Map:
    """Where the instance prompts of some images lie, by Euclidean distance.

    A map has no scale: prompts that hardly differ look as far apart as others. Below it stands how much they differ, the
    root mean square distance of an image's prompts from their mean over images, as a share of that of the prompts from zero.

    Args:
        rows: (N,) of the evaluation set.
        prompts: (N, layers, P, D); the P prompts of an image are one point.
    """
    if prompts.ndim != 4:
        raise ValueError("The model has no instance prompts (MODEL.MIP.INSTANCE_PROMPTS 0): there is nothing to map.")
    items = [*data.query_items, *data.gallery_items]
    pids = np.array([items[row].pid for row in rows])
    points = prompts[:, pick_layer(prompts.shape[1], layer)].flatten(1).double().numpy()
    # In double precision: what images have in common may be thousands of times larger than what differs.
    centred = points - points.mean(axis=0)
    share = float(np.sqrt((centred**2).sum() / (points**2).sum()))
    note = f"images differ by {100 * share:.2g} % of the prompts' length"
    return Map(embed(centred / np.abs(centred).max(), seed, "euclidean"), pids, rows >= data.num_query, note)
