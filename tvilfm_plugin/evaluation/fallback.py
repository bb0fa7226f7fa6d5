"""How far a query's text is to be trusted, judged without labels from whether text and image agree about the gallery.

A description of the right person and her image both point at somebody: some gallery image scores high by both. If the text
is of another person, the two point at different people and no image stands out in both. How high the best joint candidate
scores depends on the query and on the gallery, so it is compared with what arbitrary other texts reach on the very same
query and gallery: the trust is the share of other texts that agree less, made zero for what a coin toss would reach.
"""

from collections.abc import Mapping

import numpy as np

from tvilfm_plugin.modality import Modality

LOW = 0.5
"""Agreement quantile below which a text is ignored: what half of all wrong texts reach."""
_CHUNK_ELEMENTS = 1 << 22  # scores that are held at once


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


def text_trust(peak: np.ndarray, others: np.ndarray, low: float = LOW) -> np.ndarray:
    """A weight in [0, 1] for the text of every query.

    With u the share of the other texts that agree less with the query's image than its own text does, the weight is
    (u - low) / (1 - low), and 0 below `low`. A text of a random other person has a uniform u, so its weight is
    (1 - low) / 2 on average; a fitting text has u near 1.

    Args:
        peak: (Q,) `joint_peak` of the queries and their texts.
        others: (Q, P) `other_peaks` of the queries with arbitrary texts, e.g. captions of other people; no labels are
            needed, and a few that happen to fit do little harm.
        low: agreement quantile below which the text is ignored.

    Returns:
        (Q,).
    """
    if peak.ndim != 1 or others.ndim != 2 or len(peak) != len(others):
        raise ValueError(f"Expected (Q,) and (Q, P) peaks of the same queries, got {peak.shape} and {others.shape}.")
    if not 0 <= low < 1:
        raise ValueError(f"low is a quantile in [0, 1), got {low}.")
    # Half of the equal ones: a text that is itself among the others must not look better than they do.
    less = (others < peak[:, None]).mean(axis=1) + (others == peak[:, None]).mean(axis=1) / 2
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
