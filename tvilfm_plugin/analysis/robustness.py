"""What bad words and bad pictures do to retrieval, with and without trust in words, from stored image features.

Only new texts pass the text encoder and only damaged pictures the network: one extraction per damage. Queries, gallery and the
captions of the query images come from the stored evaluation.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tvilfm_plugin.analysis.text_noise import drop_attributes, swap_colours, wrong_person
from tvilfm_plugin.evaluation.ensemble import ensemble
from tvilfm_plugin.evaluation.mer import TextIndex, minus_inner_product, query_embeddings
from tvilfm_plugin.evaluation.ranking import aggregate, cmc_length, per_query
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


class Point(NamedTuple):
    """One point of a curve: means over gallery draws, in percent, their deviations, and the mean trust in the words."""

    kind: str
    share: float
    query: str
    R1: float
    mAP: float
    R1_sd: float
    mAP_sd: float
    trust: float


def conditions(shares: Sequence[float] = SHARES) -> list[Condition]:
    """Every kind of damage at every share; the empty text has no degrees."""
    graded = [Condition(kind, share) for kind in (WRONG, SWAPPED, DROPPED) for share in shares]
    return [*graded, Condition(EMPTY, 1.0)]


def damage(texts: Sequence[str], index: np.ndarray, pids: np.ndarray, condition: Condition, seed: int) -> list[list[str]]:
    """The texts of all queries in all draws, [draw][query], under a condition.

    Args:
        texts: distinct strings.
        index: (T, Q) the string of every query in every draw.
        pids: (Q,) identity of every query.
        seed: of the damage.
    """
    if condition.kind == WRONG:
        taken = wrong_person(pids, condition.share, seed)
        return [[texts[i] for i in row[taken]] for row in index]
    if condition.kind == EMPTY:
        return [[""] * len(row) for row in index]
    change = {SWAPPED: swap_colours, DROPPED: drop_attributes}[condition.kind]
    changed = {i: change(texts[i], condition.share, seed) for i in np.unique(index).tolist()}
    return [[changed[i] for i in row.tolist()] for row in index]


def robustness_curves(
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
) -> list[Point]:
    """Every query type under every condition of the words, and the ensemble that weighs them by how well they fit.

    Args:
        stored: an evaluation with texts, and `text_trust`.
        encode: the model's text encoder.
        setting, source, text_seed: the undamaged texts.
        shares: degrees of damage.
        seed: of the damage.
        draws: gallery draws by number; by default all.
        progress: may wrap the draws, e.g. by a progress bar.
    """
    chosen = list(range(len(stored.draws[setting])) if draws is None else draws)
    damaged = _Damaged.of(stored, encode, (setting, source, text_seed), chosen, conditions(shares), seed)
    values: dict[tuple[Condition, str], list[tuple[float, float, float]]] = {}
    for t, draw in enumerate(progress(chosen)):
        for condition in damaged.rows:
            for name, numbers in _measure(damaged.stored, setting, draw, damaged.text(condition), t, left_out=IMAGE).items():
                values.setdefault((condition, name), []).append(numbers)
    return [_image_point(stored, setting, chosen), *(_point(*key, numbers) for key, numbers in values.items())]


def modality_table(
    stored: StoredEvaluation,
    encode: Encode,
    pictures: Mapping[str, Tensor],
    *,
    setting: str,
    source: str,
    text_seed: int = 0,
    seed: int = 0,
    draws: Sequence[int] | None = None,
) -> str:
    """A Markdown table: infrared, words and both (with and without trust) where either is bad or missing.

    Args:
        pictures: damage -> raw (Q, D) features of the damaged query pictures.
        The others as in `robustness_curves`.
    """
    chosen = list(range(len(stored.draws[setting])) if draws is None else draws)
    words = {"clean": Condition(WRONG, 0.0), "incomplete": Condition(DROPPED, INCOMPLETE), "wrong": Condition(WRONG, 1.0)}
    damaged = _Damaged.of(stored, encode, (setting, source, text_seed), chosen, list(words.values()), seed)

    @functools.cache  # who is missing leaves what is there as it is
    def measured(picture: str, said: str) -> dict[str, str]:
        now = damaged.stored
        if picture in pictures:
            now = replace(now, parts=now.parts._replace(query=pictures[picture]))
        text = damaged.text(words[said])
        numbers = [_measure(now, setting, draw, text, t) for t, draw in enumerate(chosen)]
        shown = {name: _point(Condition("", 0.0), name, [one[name] for one in numbers]) for name in numbers[0]}
        return {name: f"{one.R1:.2f} / {one.mAP:.2f}" for name, one in shown.items()}

    def cells(picture: str, said: str) -> list[str]:
        found = measured(picture if picture in pictures else "clean", said if said in words else "clean")
        both = [found["ensemble"], found[TRUSTED]]
        alone = [found[IMAGE] if picture != "absent" else "", found.get(WORDS, "") if said != "absent" else ""]
        if "absent" in (picture, said):  # who is missing does not vote
            both = [next(filter(None, alone))] * 2
        return [picture, said, *alone, *both]

    bad_words = [("clean", said) for said in (*words, "absent")]
    rows = [*bad_words, *((picture, "clean") for picture in (*pictures, "absent"))]
    names = ["picture", "words", "infrared, R-1 / mAP", "words", "both", "both, with trust"]
    left_out = f"{100 * INCOMPLETE:.0f} % of the attributes left out"
    note = f"- Percent, means over {len(chosen)} gallery draws. Incomplete: {left_out}."
    return "\n".join([*aligned([names, *(cells(*row) for row in rows)], names=2), "", note])


def default_source(stored: StoredEvaluation) -> tuple[str, str, int]:
    """Setting, source and text seed of a stored evaluation: the first setting's most honest text."""
    setting = next(iter(stored.draws))
    known = [(source, seed) for name, source, seed in stored.text_index if name == setting]
    for wanted in ("witness", "human", "oracle", "self"):
        for source, seed in known:
            if source == wanted:
                return setting, source, seed
    raise LookupError(f"The evaluation has no texts to damage in setting {setting!r}; evaluate with TEST.TEXT_SOURCES witness.")


def cost_and_gain(points: Sequence[Point], card: ProtocolCard) -> str:
    """A Markdown table: what trust costs when the words are good and brings when they are bad."""
    image = next(p for p in points if p.kind == NO_TEXT)
    found: dict[tuple[str, float], dict[str, Point]] = {}
    for point in points:
        found.setdefault((point.kind, point.share), {})[point.query] = point
    cells = [["text", "trust"]]
    for metric in ("mAP", "R-1"):
        cells[0] += [f"{image.query} {metric}", "ensemble", "with trust", "change"]
    seen_clean = False
    for (kind, share), row in found.items():
        if kind == NO_TEXT or (share == 0 and seen_clean):
            continue
        seen_clean = seen_clean or share == 0
        blind, safe = row["ensemble"], row[TRUSTED]
        name = f"undamaged ({card.text_source})" if share == 0 else kind if kind == EMPTY else f"{kind}, {100 * share:.0f} %"
        cells.append([name, f"{safe.trust:.2f}"])
        for three in ((image.mAP, blind.mAP, safe.mAP), (image.R1, blind.R1, safe.R1)):
            cells[-1] += [*(f"{value:.2f}" for value in three), f"{three[2] - three[1]:+.2f}"]
    notes = [
        "- Percent, means over the gallery draws. Change: weighing words by how well they fit (TEST.TEXT_TRUST) against "
        "trusting them blindly, its cost in the first line and its gain where they are bad.",
        "- Trust: mean weight of the words.",
    ]
    if card.reranking != "none":
        notes.append(f"- Plain similarities: the evaluation's re-ranking ({card.reranking}) is not used here.")
    return "\n".join([*aligned(cells, names=1), "", *notes])


def as_table(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Plain values for CSV and JSON."""
    return [point._asdict() for point in points]


# --- one condition ----------------------------------------------------------------------------------------------------


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
) -> dict[str, tuple[float, float, float]]:
    """R-1, mAP and mean trust of every query type but one in one gallery draw; row t of the texts is the draw's."""
    embeddings, gallery = stored.drawn_gallery(setting, draw)
    with torch.no_grad():
        queries = query_embeddings(stored.parts, text.rgb[t], text.ir, stored.members, stored.fusion, stored.embed)
    trust = stored.trust(text.rgb[t], text.ir)
    ranked = {m.value: queries[m] for m in stored.members if m.value != left_out}
    ranked["ensemble"] = ensemble(queries, stored.members)
    ranked[TRUSTED] = ensemble(queries, stored.members, trust)
    length, result = cmc_length(gallery, stored.protocol), {}
    for name, vectors in ranked.items():
        found = per_query(minus_inner_product(vectors, embeddings), stored.query, gallery, stored.protocol)
        metrics = aggregate(found, length)
        result[name] = (metrics.rank(1), metrics.mAP, float(trust.mean()))
    return result


def _image_point(stored: StoredEvaluation, setting: str, draws: Sequence[int]) -> Point:
    trials = stored.trials(setting, NO_TEXT, draws=draws)[stored.image_only.name][0]
    values = [(trial.metrics.rank(1), trial.metrics.mAP, 0.0) for trial in trials]
    return _point(Condition(NO_TEXT, 0.0), stored.image_only.name, values)


def _point(condition: Condition, query: str, values: Sequence[tuple[float, float, float]]) -> Point:
    numbers = np.array(values)
    r1, mean_ap, trust = numbers.mean(axis=0)
    r1_sd, map_sd, _ = numbers.std(axis=0, ddof=1) if len(numbers) > 1 else (np.nan, np.nan, np.nan)
    return Point(
        condition.kind, condition.share, query, 100 * float(r1), 100 * float(mean_ap), 100 * float(r1_sd), 100 * float(map_sd),
        float(trust),
    )  # fmt: skip


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
