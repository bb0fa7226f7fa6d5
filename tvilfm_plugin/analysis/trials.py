"""The distances by which a row of a result table was ranked, trial by trial."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch import Tensor

from tvilfm_plugin.evaluation.mer import minus_inner_product
from tvilfm_plugin.evaluation.protocols import Labels
from tvilfm_plugin.evaluation.stored import StoredEvaluation


class StoredTrial(NamedTuple):
    """One text seed and gallery draw: (Q, g) distances, labels of its g images, the (Q, D) and (g, D) vectors behind them."""

    seed: int
    draw: int
    dist: np.ndarray
    gallery: Labels
    queries: Tensor
    images: Tensor


def stored_trials(stored: StoredEvaluation, label: str) -> Iterator[StoredTrial]:
    """Every trial of a row: text seeds in stored order, of each all gallery draws."""
    card, kind, search = stored.card(label), stored.query_type(label), stored.searched(label)
    distance = search.compared_by() or minus_inner_product
    for seed in card.text_seeds or (0,):
        for draw in range(len(search.draws[card.setting])):
            embeddings, gallery = search.drawn_gallery(card.setting, draw)
            summed = search.voted(card.setting, card.text_source, seed, draw, kind.members)
            yield StoredTrial(seed, draw, np.asarray(distance(summed, embeddings)), gallery, summed, embeddings)
