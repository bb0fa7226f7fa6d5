"""What bad text does to retrieval: curves over its quality, with and without a fall-back, from stored image features.

Only new texts pass the text encoder; queries, gallery and the captions of the query images come from the stored evaluation.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tvilfm_plugin.data.text_noise import drop_attributes, swap_colours, wrong_person
from tvilfm_plugin.evaluation.fallback import LOW, fall_back, joint_peak, other_peaks, text_trust
from tvilfm_plugin.evaluation.mer import Parts, TextIndex, query_embeddings
from tvilfm_plugin.evaluation.protocols import Labels
from tvilfm_plugin.evaluation.ranking import aggregate, cmc_length, per_query
from tvilfm_plugin.evaluation.report import NO_TEXT, ProtocolCard, aligned
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.modality import Modality

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
WRONG, SWAPPED, DROPPED, EMPTY = "wrong person", "colours swapped", "attributes dropped", "empty text"
FALLBACK = "with fall-back"
POOL = 200
"""Texts against which the fall-back judges agreement."""

Encode = Callable[[Sequence[str]], Tensor]
"""Strings -> raw (S, D) features."""


class Condition(NamedTuple):
    """One kind of damage, and the share of the queries, colour words or attributes that it hits."""

    kind: str
    share: float


class Point(NamedTuple):
    """One point of a curve: means over gallery draws, in percent, their deviations, and the mean trust in the text."""

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
    low: float = LOW,
    draws: Sequence[int] | None = None,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> list[Point]:
    """Every query type under every condition, and the ensemble with the fall-back.

    Args:
        stored: an evaluation with texts.
        encode: the model's text encoder.
        setting, source, text_seed: the undamaged texts.
        shares: degrees of damage.
        seed: of the damage, and of the choice of texts against which the fall-back judges agreement.
        low: see `text_trust`.
        draws: gallery draws by number; by default all.
        progress: may wrap the draws, e.g. by a progress bar.
    """
    text = stored.text(setting, source, text_seed)
    chosen = list(range(len(stored.draws[setting])) if draws is None else draws)
    clean = text.rgb[chosen]
    damaged = {c: damage(stored.texts, clean, stored.query.pids, c, seed) for c in conditions(shares)}
    extended, position = _with_texts(stored, encode, damaged.values())
    pool = _pool(clean, seed)
    carried = {c: np.array([[position[one] for one in row] for row in rows]) for c, rows in damaged.items()}
    values: dict[tuple[Condition, str], list[tuple[float, float, float]]] = {}
    for t, draw in enumerate(progress(chosen)):
        arena = _arena(extended, setting, draw, pool)
        for condition, rgb in carried.items():
            blank = np.array([not one.strip() for one in damaged[condition][t]])
            for name, numbers in _measure(extended, arena, TextIndex(rgb, text.ir), t, blank, low).items():
                values.setdefault((condition, name), []).append(numbers)
    return [_image_point(stored, setting, chosen), *(_point(*key, numbers) for key, numbers in values.items())]


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
    """A Markdown table: what the fall-back costs when the text is good and brings when it is bad."""
    image = next(p for p in points if p.kind == NO_TEXT)
    found: dict[tuple[str, float], dict[str, Point]] = {}
    for point in points:
        found.setdefault((point.kind, point.share), {})[point.query] = point
    cells = [["text", "trust", "infrared mAP", "ensemble mAP", "fall-back mAP", "Δ mAP", "infrared R-1", "ensemble R-1"]]
    cells[0] += ["fall-back R-1", "Δ R-1"]
    seen_clean = False
    for (kind, share), row in found.items():
        if kind == NO_TEXT or (share == 0 and seen_clean):
            continue
        seen_clean = seen_clean or share == 0
        ensemble, safe = row["ensemble"], row[f"ensemble {FALLBACK}"]
        name = f"undamaged ({card.text_source})" if share == 0 else kind if kind == EMPTY else f"{kind}, {100 * share:.0f} %"
        numbers = (image.mAP, ensemble.mAP, safe.mAP), (image.R1, ensemble.R1, safe.R1)
        cells.append([name, f"{safe.trust:.2f}"])
        for three in numbers:
            cells[-1] += [*(f"{value:.2f}" for value in three), f"{three[2] - three[1]:+.2f}"]
    note = (
        "- Percent, means over the gallery draws. Δ: what the fall-back changes against trusting the text blindly: its cost "
        "in the first line, its gain where the text is bad. Trust: mean weight of the text."
    )
    plain = f"- Plain similarities: the evaluation's re-ranking ({card.reranking}) is not used here."
    return "\n".join([*aligned(cells, names=1), "", note, *([plain] if card.reranking != "none" else [])])


def as_table(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Plain values for CSV and JSON."""
    return [point._asdict() for point in points]


# --- one condition ----------------------------------------------------------------------------------------------------


class _Arena(NamedTuple):
    """One gallery draw: (g, D) embeddings, labels, and the (Q, P) agreement of the images with arbitrary texts."""

    embeddings: Tensor
    gallery: Labels
    image: np.ndarray
    others: np.ndarray


def _arena(stored: StoredEvaluation, setting: str, draw: int, pool: np.ndarray) -> _Arena:
    embeddings, gallery = stored.drawn_gallery(setting, draw)
    assert stored.parts.texts is not None
    with torch.no_grad():
        image = (stored.embed(stored.parts.query) @ embeddings.T).numpy()
        others = (stored.embed(stored.parts.texts[torch.from_numpy(pool)]) @ embeddings.T).numpy()
    return _Arena(embeddings, gallery, image, other_peaks(image, others))


def _measure(
    stored: StoredEvaluation, arena: _Arena, text: TextIndex, t: int, blank: np.ndarray, low: float
) -> dict[str, tuple[float, float, float]]:
    """R-1, mAP and mean trust of every query type in one gallery draw."""
    needed = tuple(dict.fromkeys((*stored.members, Modality.TEXT)))
    with torch.no_grad():
        queries = query_embeddings(stored.parts, text.rgb[t], text.ir, needed, stored.fusion, stored.embed)
        similar = {m: (queries[m] @ arena.embeddings.T).numpy() for m in needed}
    trust = text_trust(joint_peak(arena.image, similar[Modality.TEXT]), arena.others, low)
    trust[blank] = 0.0  # that there is no text needs no judging
    members = {m: similar[m] for m in stored.members}
    ranked = {m.value: members[m] for m in members if m is not Modality.IR}
    ranked["ensemble"] = fall_back(members, np.ones(len(trust)))
    ranked[f"ensemble {FALLBACK}"] = fall_back(members, trust)
    result = {}
    length = cmc_length(arena.gallery, stored.protocol)
    for name, similarity in ranked.items():
        metrics = aggregate(per_query(-similarity, stored.query, arena.gallery, stored.protocol), length)
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
    parts = Parts(stored.parts.query, stored.parts.gallery, texts)
    return replace(stored, parts=parts, texts=(*stored.texts, *new)), position


def _pool(clean: np.ndarray, seed: int) -> np.ndarray:
    """Rows of `POOL` distinct texts, or of all if there are fewer."""
    distinct = np.unique(clean)
    return np.sort(np.random.RandomState(seed).permutation(distinct)[:POOL])
