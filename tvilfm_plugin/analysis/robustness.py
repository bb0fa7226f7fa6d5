"""What bad text does to retrieval: curves over its quality, with and without a fall-back, from stored image features.

Only new texts pass the text encoder; queries, gallery and the captions of the query images come from the stored evaluation.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tvilfm_plugin.analysis.fallback import LOW, Evidence, caption_evidence, fall_back, joint_peak, other_peaks, text_trust
from tvilfm_plugin.analysis.text_noise import drop_attributes, swap_colours, wrong_person
from tvilfm_plugin.evaluation.mer import Parts, TextIndex, query_embeddings
from tvilfm_plugin.evaluation.protocols import Labels
from tvilfm_plugin.evaluation.ranking import aggregate, cmc_length, per_query
from tvilfm_plugin.evaluation.report import NO_TEXT, ProtocolCard, aligned
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.modality import Modality

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
WRONG, SWAPPED, DROPPED, EMPTY = "wrong person", "colours swapped", "attributes dropped", "empty text"
FALLBACK = "with fall-back"
CAUTIOUS = "with constant weight"
EVIDENCE = ("caption", "gallery")
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
    evidence: Sequence[str] = EVIDENCE,
    draws: Sequence[int] | None = None,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> list[Point]:
    """Every query type under every condition, and the ensemble with the fall-back.

    Beside it stands an ensemble that gives every text the same weight, the mean trust in the undamaged texts: what the
    fall-back does better than that is due to judging each text.

    Args:
        stored: an evaluation with texts.
        encode: the model's text encoder.
        setting, source, text_seed: the undamaged texts.
        shares: degrees of damage.
        seed: of the damage, and of the choice of texts against which the fall-back judges agreement.
        low: see `text_trust`.
        evidence: kinds of agreement that the fall-back judges by, of `EVIDENCE`.
        draws: gallery draws by number; by default all.
        progress: may wrap the draws, e.g. by a progress bar.
    """
    if not evidence or set(evidence) - set(EVIDENCE):
        raise ValueError(f"The fall-back judges by {' and '.join(EVIDENCE)}, or one of them; got {tuple(evidence)}.")
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
        undamaged = float(_trust(extended, arena, TextIndex(clean, text.ir), t, low, evidence).mean())
        for condition, rgb in carried.items():
            blank = np.array([not one.strip() for one in damaged[condition][t]])
            carried_now = TextIndex(rgb, text.ir)
            trust = _trust(extended, arena, carried_now, t, low, evidence)
            trust[blank] = 0.0  # that there is no text needs no judging
            for name, numbers in _measure(extended, arena, carried_now, t, trust, undamaged).items():
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
    cells = [["text", "trust"]]
    for metric in ("mAP", "R-1"):
        cells[0] += [f"{image.query} {metric}", "ensemble", "fall-back", "change", "constant weight"]
    seen_clean = False
    for (kind, share), row in found.items():
        if kind == NO_TEXT or (share == 0 and seen_clean):
            continue
        seen_clean = seen_clean or share == 0
        blind, safe, even = (row[name] for name in ("ensemble", f"ensemble {FALLBACK}", f"ensemble {CAUTIOUS}"))
        name = f"undamaged ({card.text_source})" if share == 0 else kind if kind == EMPTY else f"{kind}, {100 * share:.0f} %"
        cells.append([name, f"{safe.trust:.2f}"])
        for four in ((image.mAP, blind.mAP, safe.mAP, even.mAP), (image.R1, blind.R1, safe.R1, even.R1)):
            cells[-1] += [f"{value:.2f}" for value in four[:3]] + [f"{four[2] - four[1]:+.2f}", f"{four[3]:.2f}"]
    notes = [
        "- Percent, means over the gallery draws. Change: the fall-back against trusting the text blindly, its cost in the "
        "first line and its gain where the text is bad.",
        "- Trust: mean weight of the text. Constant weight: every text has the mean trust in the undamaged ones, so what the "
        "fall-back does better is due to judging each text, the rest to caution.",
    ]
    if card.reranking != "none":
        notes.append(f"- Plain similarities: the evaluation's re-ranking ({card.reranking}) is not used here.")
    return "\n".join([*aligned(cells, names=1), "", *notes])


def as_table(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Plain values for CSV and JSON."""
    return [point._asdict() for point in points]


# --- one condition ----------------------------------------------------------------------------------------------------


class _Arena(NamedTuple):
    """One gallery draw: (g, D) embeddings, labels, (Q, g) similarities of the images, (P, D) embeddings of arbitrary texts
    and the (Q, P) agreement of the images with them."""

    embeddings: Tensor
    gallery: Labels
    image: np.ndarray
    pool: np.ndarray
    others: np.ndarray


def _arena(stored: StoredEvaluation, setting: str, draw: int, pool: np.ndarray) -> _Arena:
    embeddings, gallery = stored.drawn_gallery(setting, draw)
    assert stored.parts.texts is not None
    with torch.no_grad():
        image = (stored.embed(stored.parts.query) @ embeddings.T).numpy()
        texts = stored.embed(stored.parts.texts[torch.from_numpy(pool)])
    return _Arena(embeddings, gallery, image, texts.numpy(), other_peaks(image, (texts @ embeddings.T).numpy()))


def _trust(
    stored: StoredEvaluation, arena: _Arena, text: TextIndex, t: int, low: float, kinds: Sequence[str]
) -> np.ndarray:
    """(Q,) trust in the texts of gallery draw t."""
    assert stored.parts.texts is not None
    with torch.no_grad():
        said, caption = (stored.embed(stored.parts.texts[torch.from_numpy(rows)]) for rows in (text.rgb[t], text.ir))
        similar = (said @ arena.embeddings.T).numpy()
    evidence = []
    if "caption" in kinds:
        evidence.append(caption_evidence(said.numpy(), arena.pool, caption.numpy()))
    if "gallery" in kinds:
        evidence.append(Evidence(joint_peak(arena.image, similar), arena.others))
    return text_trust(evidence, low)


def _measure(
    stored: StoredEvaluation, arena: _Arena, text: TextIndex, t: int, trust: np.ndarray, constant: float
) -> dict[str, tuple[float, float, float]]:
    """R-1, mAP and mean trust of every query type in one gallery draw."""
    with torch.no_grad():
        queries = query_embeddings(stored.parts, text.rgb[t], text.ir, stored.members, stored.fusion, stored.embed)
        members = {m: (queries[m] @ arena.embeddings.T).numpy() for m in stored.members}
    ranked = {m.value: members[m] for m in members if m is not Modality.IR}
    ranked["ensemble"] = fall_back(members, np.ones(len(trust)))
    ranked[f"ensemble {FALLBACK}"] = fall_back(members, trust)
    ranked[f"ensemble {CAUTIOUS}"] = fall_back(members, np.full(len(trust), constant))
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
