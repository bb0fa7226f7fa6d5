"""The parts of a dialogue's measurement: a stored evaluation, the data set's captions, and the model's scores of answers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tvilfm_plugin.analysis.dialogue import memory
from tvilfm_plugin.data.items import group_by_person
from tvilfm_plugin.data.loaders import build_dataset
from tvilfm_plugin.description.questions import NOISE, Answers, answers_read, answers_scored, sentences
from tvilfm_plugin.description.reading import read
from tvilfm_plugin.evaluation.features import encode_texts
from tvilfm_plugin.evaluation.protocols import Labels, Protocol
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.modality import Modality

Draw = tuple[np.ndarray, Mapping[str, Answers], Sequence[Mapping[str, str]], Labels, Labels, Protocol]
"""The arguments of `Curves.add`."""


def dialogue_draws(
    cfg: Any, model: Any, stored: StoredEvaluation, label: str, *, by_model: bool, draws: int, noise: float = NOISE
) -> Iterator[Draw]:
    """At most `draws` gallery draws of a row, e.g. "all/infrared", that captions answer or, `by_model`, the text tower."""
    data = build_dataset(cfg, cfg.DATASETS.TESTS[0], text=True, verbose=False)
    captions = {item.path: data.captions[Modality.RGB][data.relative(item.path)].text for item in data.visible_pool}
    people = group_by_person(data.visible_pool)
    card, kind, search = stored.card(label), stored.query_type(label), stored.searched(label)
    seed = card.text_seeds[0] if card.text_seeds else 0
    stated = _stated(model) if by_model else {}
    paths = [item.path for item in data.gallery]
    for draw, columns in list(enumerate(stored.draws[card.setting]))[:draws]:
        embeddings, gallery = search.drawn_gallery(card.setting, draw)
        with torch.no_grad():
            similarity = search.voted(card.setting, card.text_source, seed, draw, kind.members) @ embeddings.T
        shown = [paths[column] for column in columns]
        if by_model:
            answers = answers_scored(stored.drawn_gallery(card.setting, draw)[0].numpy(), stated)
        else:
            answers = answers_read([read(captions[path]) for path in shown], noise=noise)
        hidden = set(shown)
        known = {
            pid: memory(captions[path] for row in people.get(pid, ()) if (path := data.visible_pool[row].path) not in hidden)
            for pid in np.unique(stored.query.pids).tolist()
        }
        remembered = [known[pid] for pid in stored.query.pids.tolist()]
        yield similarity.numpy(), answers, remembered, stored.query, gallery, search.protocol


def _stated(model: Any) -> dict[str, tuple[Sequence[str], np.ndarray]]:
    found: dict[str, tuple[Sequence[str], np.ndarray]] = {}
    with torch.no_grad():
        for slot, texts in sentences().items():
            raw = encode_texts(model, list(texts.values())).to(model.device)
            found[slot] = tuple(texts), model.embed(raw).float().cpu().numpy()
    return found
