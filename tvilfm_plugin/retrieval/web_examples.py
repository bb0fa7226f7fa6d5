"""Queries that the page offers: test images of a data set with the words of the evaluation."""

from collections.abc import Sequence

import numpy as np

from tvilfm_plugin.data.items import Item
from tvilfm_plugin.data.text_sources import DatasetView, draw_query_texts
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.web import Example


def examples(dataset: DatasetView, count: int, source: str = "witness") -> list[Example]:
    """`count` queries, spread evenly over all of a data set, with the texts that the evaluation draws for them first."""
    if count < 0:
        raise ValueError(f"--examples is a number of queries, 0 or more, not {count}.")
    drawn = draw_query_texts(source, dataset, dataset.settings[0], seed=0)
    chosen = np.linspace(0, len(dataset.query) - 1, min(count, len(dataset.query))).round().astype(int)
    word = lambda number: drawn.table[number] if number >= 0 else ""
    return [Example(dataset.query[q].path, word(drawn.rgb[0][q]), word(drawn.ir[q]), dataset.query[q].pid) for q in chosen]


def first_gallery(dataset: DatasetView) -> Sequence[Item]:
    """The images of the first gallery draw in the data set's first setting."""
    if dataset.query_modality is not Modality.IR:
        raise ValueError(
            "The page searches visible images by infrared ones and words; this data set's queries are visible images. "
            "Set DATASETS.DIRECTION infrared-to-visible."
        )
    return [dataset.gallery[index] for index in dataset.settings[0].draws[0]]
