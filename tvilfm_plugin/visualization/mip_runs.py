"""MIP's pictures of several trained models on the same people."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from tvilfm_plugin.data.loaders import build_eval_loader
from tvilfm_plugin.engine import load_model
from tvilfm_plugin.modeling.mip.mip import MIP
from tvilfm_plugin.visualization.figures import shown_people
from tvilfm_plugin.visualization.mip_pictures import pick_layer, prompt_map, read_rows, rows_of_people
from tvilfm_plugin.visualization.tsne import build_maps, choose_people

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Models(NamedTuple):
    """Name -> model, the test set of the first one's config, and whom it shows."""

    models: dict[str, MIP]
    data: Any
    about: str


def open_models(
    weights: Sequence[Path],
    configs: Sequence[Path] = (),
    names: Sequence[str] = (),
    opts: Sequence[str] = (),
    dataset: str = "",
) -> Models:
    """Models, one per file, and images of a test set ("": the first config's); a config for all, one each, or those beside."""
    configs = list(configs) or [file.parent / "config.yaml" for file in weights]
    configs = configs * len(weights) if len(configs) == 1 else configs
    names = list(names) or [file.parent.name for file in weights]
    if len(configs) != len(weights) or len(names) != len(weights) or len(set(names)) < len(names):
        raise ValueError(
            f"{len(weights)} weights, {len(configs)} config files and {len(set(names))} different names: give one config "
            "file for all or one each, and --names that tell the models apart."
        )
    models, first = {}, None
    for name, config, file in zip(names, configs, weights, strict=True):
        cfg, model = load_model(config, file, opts=opts)
        if not isinstance(model, MIP):
            raise ValueError(f"{config} describes a {type(model).__name__}; these pictures are of MIP models.")
        models[name], first = model, first or cfg
    assert first is not None
    loader = build_eval_loader(first, dataset or first.DATASETS.TESTS[0], False)
    return Models(models, loader.dataset, shown_people(loader.data.name))


def attention_of(
    shown: Models, *, people: int, layer: int = -1, seed: int = 0
) -> tuple[list[np.ndarray], list[str], dict[str, np.ndarray], str]:
    """Images, labels, name -> maps of a block (negative: from the end), and the title: person by person, infrared first."""
    data = shown.data
    rows = rows_of_people(data, _people(data, people, seed), 1, seed)
    in_order = rows.reshape(2, -1).T.reshape(-1)
    position = {int(row): i for i, row in enumerate(rows)}
    order = [position[int(row)] for row in in_order]
    maps = {}
    for name, model in shown.models.items():
        values = read_rows(model.visual, data, rows).attention.numpy()
        maps[name] = values[order, pick_layer(values.shape[1], layer)]
    samples = [data[int(row)] for row in in_order]
    images = [np.asarray(sample["images"]).transpose(1, 2, 0) for sample in samples]
    labels = [f"person {sample['targets']}, {sample['modality']}" for sample in samples]
    title = f"{shown.about}: attention of the class token, {_block(layer)}, mean over heads"
    return images, labels, maps, title


def prompt_figure(shown: Models, *, people: int, images: int, layer: int = -1, seed: int = 0) -> "Figure":
    """Where several models' instance prompts in a block lie (negative: from the end), of `images` per person and modality."""
    data = shown.data
    chosen = _people(data, people, seed)
    rows = rows_of_people(data, chosen, images, seed)
    maps = {}
    for name, model in shown.models.items():
        bar = lambda batches, name=name: tqdm(batches, desc=f"Encoding ({name})", unit="batch", leave=False, disable=None)
        found = read_rows(model.visual, data, rows, bar).instance_prompts
        maps[name] = prompt_map(data, rows, found, layer, seed)
    return build_maps(maps, f"{shown.about}: instance prompts of {_block(layer)}, {len(chosen)} people", "infrared")


def _people(data: Any, count: int, seed: int) -> Any:
    pids = lambda items: np.array([item.pid for item in items])
    return choose_people(pids(data.query_items), pids(data.gallery_items), count, seed)


def _block(layer: int) -> str:
    return "the last block" if layer == -1 else f"block {layer}"
