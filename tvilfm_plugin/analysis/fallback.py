"""How far a query's text is to be trusted, judged without labels from whether text and infrared image agree.

Two kinds of evidence, each compared with what arbitrary other texts reach for the very same query:

- *caption*: the text against the caption of the query's own infrared image. Both name shape and garments.
- *gallery*: a fitting text and the image point at the same person, so some gallery image scores high by both. If the text
  is of another person, the two point at different people and no image stands out in both.

The trust is the share of other texts that agree less, rescaled so that what a coin toss would reach counts as none. A
weight never makes good text better: it costs where the text is good and gains where it is bad, so both are to be reported.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tvilfm_plugin.modality import Modality

LOW = 0.0
"""Agreement quantile below which a text is ignored. 0.5, what half of all wrong texts reach, is the careful choice: it costs
more with good text and gains more with bad."""
_CHUNK_ELEMENTS = 1 << 22  # scores that are held at once


class Evidence(NamedTuple):
    """How much each query's own text agrees with its image, (Q,), and how much P arbitrary other texts do, (Q, P)."""

    own: np.ndarray
    others: np.ndarray


def caption_evidence(text: np.ndarray, others: np.ndarray, caption: np.ndarray) -> Evidence:
    """Cosine of a query's text with the caption of its infrared image.

    What all texts share, and what all infrared captions share, says nothing about a person and is taken off first.

    Args:
        text: (Q, D) embeddings of the queries' texts.
        others: (P, D) embeddings of arbitrary texts of the same kind; they also tell what texts share.
        caption: (Q, D) embeddings of the captions of the query images.
    """
    typical = others.mean(axis=0)
    seen, said, pool = _unit(caption - caption.mean(axis=0)), _unit(text - typical), _unit(others - typical)
    return Evidence((seen * said).sum(axis=1), seen @ pool.T)


def joint_peak(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """How well the best joint candidate of each query fits: max over the gallery of the two standardised scores' sum.

    Args:
        image: (Q, G) similarities of the query images.
        text: (Q, G) similarities of the queries' texts; row q belongs to image q.

    Returns:
        (Q,).
    """
    return (standardised(image) + standardised(text)).max(axis=1)


def other_peaks(image: np.ndarray, others: np.ndarray) -> np.ndarray:
    """`joint_peak` of every query's image with each of P arbitrary texts, (Q, P).

    Args:
        image: (Q, G) similarities of the query images to the gallery.
        others: (P, G) similarities of the texts to the same gallery.
    """
    if image.ndim != 2 or others.ndim != 2 or others.shape[1] != image.shape[1]:
        raise ValueError(f"Expected (Q, G) and (P, G) similarities to one gallery, got {image.shape} and {others.shape}.")
    if not len(others):
        raise ValueError("Agreement is judged against other texts, but there are none.")
    seen, pool = standardised(image), standardised(others)
    step = max(1, _CHUNK_ELEMENTS // pool.size)
    blocks = [seen[start : start + step] for start in range(0, len(seen), step)]
    return np.concatenate([(block[:, None, :] + pool[None]).max(axis=2) for block in blocks])


def text_trust(evidence: Sequence[Evidence], low: float = LOW) -> np.ndarray:
    """A weight in [0, 1] for the text of every query.

    Each kind of evidence is standardised over the other texts of the query, and the kinds are added. With u the share of
    the other texts that agree less with the query than its own text does, the weight is (u - low) / (1 - low), and 0 below
    `low`. A text of a random other person has a uniform u, so its weight is (1 - low) / 2 on average; the better the
    evidence can tell, the nearer is u to 1 for a fitting text.

    Args:
        evidence: one or more kinds, of the same Q queries and P other texts, e.g. captions of other people. No labels are
            needed, and a few other texts that happen to fit do little harm.
        low: agreement quantile below which the text is ignored.

    Returns:
        (Q,).
    """
    if not evidence or len({(e.own.shape, e.others.shape) for e in evidence}) > 1 or evidence[0].others.ndim != 2:
        shapes = ", ".join(f"{e.own.shape} and {e.others.shape}" for e in evidence) or "none"
        raise ValueError(f"Every kind of evidence needs (Q,) and (Q, P) values of the same queries and texts, got {shapes}.")
    if len(evidence[0].own) != len(evidence[0].others) or not evidence[0].others.shape[1]:
        raise ValueError(f"{len(evidence[0].own)} queries are judged against other texts of shape {evidence[0].others.shape}.")
    if not 0 <= low < 1:
        raise ValueError(f"low is a quantile in [0, 1), got {low}.")
    own, others = np.zeros(len(evidence[0].own)), np.zeros(evidence[0].others.shape)
    for e in evidence:
        mean = e.others.mean(axis=1)
        deviation = e.others.std(axis=1)
        scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
        own += (e.own - mean) * scale
        others += (e.others - mean[:, None]) * scale[:, None]
    # Half of the equal ones: a text that is itself among the others must not look better than they do.
    less = (others < own[:, None]).mean(axis=1) + (others == own[:, None]).mean(axis=1) / 2
    return np.clip((less - low) / (1 - low), 0, 1)


def fall_back(similarities: Mapping[Modality, np.ndarray], trust: np.ndarray) -> np.ndarray:
    """The ensemble (Eq. 10) with every member that text went into weighted by the trust in the text.

    Full trust gives the ensemble itself, none the ranking by the image alone.

    Args:
        similarities: member -> (Q, G); the infrared image's is needed.
        trust: (Q,) weights in [0, 1].

    Returns:
        (Q, G) similarities.
    """
    if Modality.IR not in similarities:
        raise ValueError("Without an infrared member there is nothing to fall back on; add 'ir' to TVILFM.MEMBERS.")
    if trust.shape != (len(similarities[Modality.IR]),) or not ((trust >= 0) & (trust <= 1)).all():
        raise ValueError(f"One weight in [0, 1] per query is needed, got shape {trust.shape}.")
    total = similarities[Modality.IR].copy()
    for member, similarity in similarities.items():
        if member is not Modality.IR:
            total += trust[:, None].astype(similarity.dtype) * similarity
    return total


def standardised(similarities: np.ndarray) -> np.ndarray:
    """Every row with mean 0 and deviation 1, so that scores of different modalities can be added; constant rows are 0."""
    centred = similarities - similarities.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1, keepdims=True)
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
