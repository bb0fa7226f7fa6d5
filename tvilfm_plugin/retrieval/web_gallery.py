"""What the page is opened with: the test set of a config, or a folder of pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tvilfm_plugin.config import read_config
from tvilfm_plugin.data.loaders import build_dataset
from tvilfm_plugin.retrieval.example import example_set
from tvilfm_plugin.retrieval.records import Record
from tvilfm_plugin.retrieval.web import Example
from tvilfm_plugin.retrieval.web_examples import examples, first_gallery


class Shown(NamedTuple):
    """Gallery for `Retriever.embed_gallery`, queries that the page offers, and its title."""

    gallery: Any
    offered: Sequence[Example]
    title: str


def shown_gallery(config: Path, gallery: Path | None, count: int, opts: Sequence[str] = ()) -> Shown:
    """The folder's pictures, or the gallery of the test set's first draw with `count` of its queries."""
    if gallery is not None:
        return Shown(gallery, (), f"The gallery: the pictures in {gallery.resolve().name}.")
    cfg = read_config(config, opts)
    dataset = build_dataset(cfg, cfg.DATASETS.TESTS[0], text=True)
    items = first_gallery(dataset)
    people = len({item.pid for item in items})
    name = Path(dataset.dataset_dir).name
    return Shown(
        [Record(item.path, item.pid, item.camid) for item in items],
        examples(dataset, count, cfg.TEST.TEXT_SOURCES[0]),
        f"The gallery: {len(items)} visible pictures of {people} people ({name}, first draw).",
    )


def shown_example() -> Shown:
    """The pictures and queries that come with the plugin."""
    example = example_set()
    return Shown(example.gallery, [Example(*query) for query in example.queries], f"The gallery: {example.title}.")
