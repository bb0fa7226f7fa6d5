"""What bad words and bad pictures do to retrieval, with and without trust in words, from stored image features.

Only new texts pass the text encoder and only damaged pictures the network: one extraction per damage. Queries, gallery and the
captions of the query images come from the stored evaluation. Trainings that were tested on the same people are `joined`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from tvilfm_plugin.analysis.intervals import query_means
from tvilfm_plugin.analysis.statistics import identity_bootstrap, paired_randomisation
from tvilfm_plugin.analysis.text_noise import drop_attributes, swap_colours, wrong_person
from tvilfm_plugin.evaluation.ensemble import ensemble
from tvilfm_plugin.evaluation.mer import TextIndex, minus_inner_product, query_embeddings
from tvilfm_plugin.evaluation.ranking import PerQuery, per_query
from tvilfm_plugin.evaluation.report import NO_TEXT, ProtocolCard, aligned
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.modality import Modality

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
INCOMPLETE = 0.5  # share of the attributes that incomplete words leave out
WRONG, SWAPPED, DROPPED, EMPTY = "wrong person", "colours swapped", "attributes dropped", "empty text"
TRUSTED = "ensemble with trust"
IMAGE, WORDS = Modality.IR.value, Modality.TEXT.value

Encode = Callable[[Sequence[str]], Tensor]
"""Strings -> raw (S, D) features."""


class Condition(NamedTuple):
    """One kind of damage, and the share of the queries, colour words or attributes that it hits."""

    kind: str
    share: float


Values = dict[tuple[Condition, str], np.ndarray]
"""Condition, query type -> (T, 3, Q) in T gallery draws: whether the first hit is right (NaN: the query does not count),
average precision, trust in the words."""
Cells = dict[tuple[str, str, str], np.ndarray]
"""Picture, words, query type -> the same."""

Key = TypeVar("Key")


class Point(NamedTuple):
    """One point of a curve: means in percent, the 95 % interval of the mAP over people, and the mean trust in the words."""

    kind: str
    share: float
    query: str
    R1: float
    mAP: float
    mAP_low: float
    mAP_high: float
    trust: float


def conditions(shares: Sequence[float] = SHARES) -> list[Condition]:
    """Every kind of damage at every share; the empty text has no degrees."""
    graded = [Condition(kind, share) for kind in (WRONG, SWAPPED, DROPPED) for share in shares]
    return [*graded, Condition(EMPTY, 1.0)]


def damage(texts: Sequence[str], index: np.ndarray, pids: np.ndarray, condition: Condition, seed: int) -> list[list[str]]:
    """The texts of all queries in all draws, [draw][query], under a condition; `index` (T, Q) numbers distinct strings."""
    if condition.kind == WRONG:
        taken = wrong_person(pids, condition.share, seed)
        return [[texts[i] for i in row[taken]] for row in index]
    if condition.kind == EMPTY:
        return [[""] * len(row) for row in index]
    change = {SWAPPED: swap_colours, DROPPED: drop_attributes}[condition.kind]
    changed = {i: change(texts[i], condition.share, seed) for i in np.unique(index).tolist()}
    return [[changed[i] for i in row.tolist()] for row in index]


def damaged_words(
    stored: StoredEvaluation,
    encode: Encode,
    *,
    setting: str,
    source: str,
    text_seed: int = 0,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    draws: Sequence[int] | None = None,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Values:
    """Every query type under every condition of the words, and the ensemble that weighs them by how well they fit.

    Args:
        stored: an evaluation with `text_trust`, and with the undamaged texts of a setting, source and seed.
        shares: degrees of damage.
    """
    chosen = list(range(len(stored.draws[setting])) if draws is None else draws)
    damaged = _Damaged.of(stored, encode, (setting, source, text_seed), chosen, conditions(shares), seed)
    alone = stored.trials(setting, NO_TEXT, draws=chosen)[stored.image_only.name][0]
    untrusted = np.zeros(len(stored.query.pids))
    found = {(Condition(NO_TEXT, 0.0), stored.image_only.name): [_values(trial.per_query, untrusted) for trial in alone]}
    for t, draw in enumerate(progress(chosen)):
        for condition in damaged.rows:
            for name, numbers in _measure(damaged.stored, setting, draw, damaged.text(condition), t, left_out=IMAGE).items():
                found.setdefault((condition, name), []).append(numbers)
    return {key: np.array(numbers) for key, numbers in found.items()}


def damaged_modalities(
    stored: StoredEvaluation,
    encode: Encode,
    pictures: Mapping[str, Tensor],
    *,
    setting: str,
    source: str,
    text_seed: int = 0,
    seed: int = 0,
    draws: Sequence[int] | None = None,
) -> Cells:
    """Infrared, words and both (with and without trust) where either is bad.

    Args:
        pictures: damage -> raw (Q, D) features of the damaged query pictures.
        The others as in `damaged_words`.
    """
    chosen = list(range(len(stored.draws[setting])) if draws is None else draws)
    words = {"clean": Condition(WRONG, 0.0), "incomplete": Condition(DROPPED, INCOMPLETE), "wrong": Condition(WRONG, 1.0)}
    damaged = _Damaged.of(stored, encode, (setting, source, text_seed), chosen, list(words.values()), seed)
    found: Cells = {}
    for picture, said in [*(("clean", said) for said in words), *((picture, "clean") for picture in pictures)]:
        now = damaged.stored
        if picture in pictures:
            now = replace(now, parts=now.parts._replace(query=pictures[picture]))
        numbers = [_measure(now, setting, draw, damaged.text(words[said]), t) for t, draw in enumerate(chosen)]
        found |= {(picture, said, name): np.array([one[name] for one in numbers]) for name in numbers[0]}
    return found


def joined(runs: Sequence[Mapping[Key, np.ndarray]]) -> dict[Key, np.ndarray]:
    """What several trainings do with the same queries, as if it were in further gallery draws."""
    return {key: np.concatenate([run[key] for run in runs]) for key in runs[0]}


def modality_table(runs: Sequence[Cells]) -> str:
    """A Markdown table of `damaged_modalities` of one or more trainings, and what is left where one is missing."""
    found = joined(runs)

    def cell(picture: str, said: str, name: str) -> str:
        right, precision = (100 * np.nanmean(found[picture, said, name][:, row]) for row in (0, 1))
        return f"{right:.2f} / {precision:.2f}"

    def cells(picture: str, said: str) -> list[str]:
        there = (picture.replace("absent", "clean"), said.replace("absent", "clean"))
        alone = [cell(*there, name) if shown != "absent" and (*there, name) in found else ""
                 for name, shown in ((IMAGE, picture), (WORDS, said))]  # fmt: skip
        both = [cell(*there, name) for name in ("ensemble", TRUSTED)]
        if "absent" in (picture, said):  # who is missing does not vote
            both = [next(filter(None, alone))] * 2
        return [picture, said, *alone, *both]

    known = list(dict.fromkeys((picture, said) for picture, said, _ in found))
    rows = sorted([*known, ("clean", "absent"), ("absent", "clean")], key=lambda one: one[0] != "clean")
    names = ["picture", "words", "infrared, R-1 / mAP", "words", "both", "both, with trust"]
    left_out = f"{100 * INCOMPLETE:.0f} % of the attributes left out"
    return "\n".join([*aligned([names, *(cells(*row) for row in rows)], names=2), "", f"- Percent. Incomplete: {left_out}."])


def default_source(stored: StoredEvaluation) -> tuple[str, str, int]:
    """Setting, source and text seed of a stored evaluation: the first setting's most honest text."""
    setting = next(iter(stored.draws))
    known = [(source, seed) for name, source, seed in stored.text_index if name == setting]
    for wanted in ("witness", "human", "oracle", "self"):
        for source, seed in known:
            if source == wanted:
                return setting, source, seed
    raise LookupError(f"The evaluation has no texts to damage in setting {setting!r}; evaluate with TEST.TEXT_SOURCES witness.")


def trust_table(values: Values, pids: np.ndarray, card: ProtocolCard) -> str:
    """A Markdown table: what trust costs with good words and brings with bad ones, tested over people ((Q,) `pids`)."""
    alone = next(found for (condition, _), found in values.items() if condition.kind == NO_TEXT)
    kinds = [one for one in dict.fromkeys(condition for condition, _ in values) if one.kind != NO_TEXT]
    cells = [["text", "trust", "ensemble, R-1 / mAP", "with trust", "mAP, against the ensemble", "R-1, against infrared alone"]]
    for kind in kinds[:1] + [one for one in kinds[1:] if one.share]:
        blind, safe = values[kind, "ensemble"], values[kind, TRUSTED]
        name = f"{kind.kind}, {100 * kind.share:.0f} %" if kind.kind != EMPTY else EMPTY
        cells.append([name if kind.share else f"undamaged ({card.text_source})", f"{np.mean(safe[:, 2]):.2f}"])
        cells[-1] += [f"{100 * np.nanmean(one[:, 0]):.2f} / {100 * np.nanmean(one[:, 1]):.2f}" for one in (blind, safe)]
        for row, other in ((1, blind), (0, alone)):
            test = paired_randomisation(query_means(other[:, row]), query_means(safe[:, row]), pids)
            change, low, high = (100 * value for value in test[:3])
            cells[-1].append(f"{change:+.2f} [{low:+.2f}, {high:+.2f}] (p = {test.p_value:.4f})")
    means = [100 * np.nanmean(alone[:, row]) for row in (0, 1)]
    notes = [
        f"- Percent. Infrared alone: {means[0]:.2f} / {means[1]:.2f}. Trust: mean weight of the words (TEST.TEXT_TRUST).",
        "- Changes with 95 % intervals and paired randomisation over people.",
    ]
    if card.reranking != "none":
        notes.append(f"- Plain similarities: the evaluation's re-ranking ({card.reranking}) is not used here.")
    return "\n".join([*aligned(cells, names=1), "", *notes])


def curve_points(values: Values, pids: np.ndarray) -> list[Point]:
    """The points of the curves; `pids` are the (Q,) identities of the queries."""
    points = []
    for (condition, name), found in values.items():
        interval = identity_bootstrap(query_means(found[:, 1]), pids)
        r1, mean, low, high = (100 * float(value) for value in (np.nanmean(found[:, 0]), *interval[:3]))
        points.append(Point(condition.kind, condition.share, name, r1, mean, low, high, float(found[:, 2].mean())))
    return points


def as_table(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Plain values for CSV and JSON."""
    return [point._asdict() for point in points]


class _Damaged(NamedTuple):
    """An evaluation with all damaged texts encoded, and the (T, Q) rows of every condition's texts and (Q,) of the captions."""

    stored: StoredEvaluation
    rows: dict[Condition, np.ndarray]
    captions: np.ndarray

    @classmethod
    def of(
        cls, stored: StoredEvaluation, encode: Encode, which: tuple[str, str, int], draws: Sequence[int],
        kinds: Sequence[Condition], seed: int,
    ) -> "_Damaged":  # fmt: skip
        if stored.text_trust is None:
            raise ValueError("The evaluation has no trust in words to measure: give it a `text_trust`.")
        text = stored.text(*which)
        texts = {kind: damage(stored.texts, text.rgb[list(draws)], stored.query.pids, kind, seed) for kind in kinds}
        extended, position = _with_texts(stored, encode, texts.values())
        rows = {kind: np.array([[position[one] for one in row] for row in found]) for kind, found in texts.items()}
        return cls(extended, rows, text.ir)

    def text(self, condition: Condition) -> TextIndex:
        return TextIndex(self.rows[condition], self.captions)


def _measure(
    stored: StoredEvaluation, setting: str, draw: int, text: TextIndex, t: int, left_out: str = ""
) -> dict[str, np.ndarray]:
    """`_values` of every query type but one in one gallery draw; row t of the texts is the draw's."""
    embeddings, gallery = stored.drawn_gallery(setting, draw)
    with torch.no_grad():
        queries = query_embeddings(stored.parts, text.rgb[t], text.ir, stored.members, stored.fusion, stored.embed)
    trust = stored.trust(text.rgb[t], text.ir)
    ranked = {m.value: queries[m] for m in stored.members if m.value != left_out}
    ranked["ensemble"] = ensemble(queries, stored.members)
    ranked[TRUSTED] = ensemble(queries, stored.members, trust)
    return {
        name: _values(
            per_query(minus_inner_product(vectors, embeddings), stored.query, gallery, stored.protocol), trust.numpy()
        )
        for name, vectors in ranked.items()
    }


def _values(found: PerQuery, trust: np.ndarray) -> np.ndarray:
    right, precision = (np.where(found.valid, one, np.nan) for one in (found.first_match_rank == 1, found.ap))
    return np.stack([right, precision, trust])


def _with_texts(
    stored: StoredEvaluation, encode: Encode, damaged: Iterable[list[list[str]]]
) -> tuple[StoredEvaluation, dict[str, int]]:
    """The evaluation with all new strings encoded, and the row of every string."""
    if stored.parts.texts is None:
        raise LookupError("The evaluation has no texts: it is of a model without a text encoder.")
    known = {one: i for i, one in enumerate(stored.texts)}
    new = sorted({one for rows in damaged for row in rows for one in row} - set(known))
    if not new:
        return stored, known
    position = known | {one: len(known) + i for i, one in enumerate(new)}
    texts = torch.cat([stored.parts.texts, encode(new)])
    return replace(stored, parts=stored.parts._replace(texts=texts), texts=(*stored.texts, *new)), position
