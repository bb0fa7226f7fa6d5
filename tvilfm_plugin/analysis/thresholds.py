"""Same person or not? How many right pairs a similarity threshold accepts when it may accept so many wrong ones.

A pair is a query and a gallery image that the data set's protocol lets it rank; it is right if both show the same person.
At FPR f the threshold is the lowest similarity that at most a share f of the wrong pairs reach; TPR is the share of the
right pairs that reach it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tvilfm_plugin.analysis.trials import stored_trials
from tvilfm_plugin.evaluation.report import aligned
from tvilfm_plugin.evaluation.stored import StoredEvaluation

RATES = (1e-2, 1e-3)


class Pairs(NamedTuple):
    """P pairs of a query and a gallery image, of all draws: (P,) similarity (minus the distance), truth, cameras and people."""

    similarity: np.ndarray
    same: np.ndarray
    query_camids: np.ndarray
    gallery_camids: np.ndarray
    query_pids: np.ndarray
    gallery_pids: np.ndarray

    def where(self, keep: np.ndarray) -> "Pairs":
        """Only the pairs that the (P,) mask keeps."""
        return Pairs(*(column[keep] for column in self))


class OperatingPoint(NamedTuple):
    """What one threshold does to some pairs; shares are fractions.

    Attributes:
        pairs: which: "all", or "3 -> 1" for queries of camera 3 and gallery images of camera 1.
        threshold: calibrated on all pairs.
        tpr, fpr: of these pairs at that threshold; NaN without right or wrong pairs.
        own_threshold, own_tpr: calibrated on these pairs alone.
        right, wrong: how many of them there are.
    """

    pairs: str
    rate: float
    threshold: float
    tpr: float
    fpr: float
    own_threshold: float
    own_tpr: float
    right: int
    wrong: int


class HeldOut(NamedTuple):
    """A threshold calibrated on one half of the identities and judged on the other; the mean of both directions."""

    rate: float
    fpr: float
    tpr: float


def stored_pairs(stored: StoredEvaluation, label: str) -> Pairs:
    """All pairs of a row of the result table: queries that count (their person is in the gallery), images that are no junk."""
    search = stored.searched(label)
    pids, camids = search.query.pids[:, None], search.query.camids[:, None]
    found = []
    for trial in stored_trials(stored, label):
        gallery = trial.gallery
        kept = ~np.broadcast_to(search.protocol.is_junk(pids, camids, gallery), trial.dist.shape)
        same = (pids == gallery.pids) & kept
        kept &= same.any(axis=1, keepdims=True)
        rows, columns = np.nonzero(kept)
        labels = (search.query.camids[rows], gallery.camids[columns], search.query.pids[rows], gallery.pids[columns])
        found.append(Pairs(-trial.dist[kept], same[kept], *labels))
    return Pairs(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def calibrate(wrong: np.ndarray, rate: float) -> float:
    """The lowest of the (n,) similarities of wrong pairs that at most a share `rate` of them reach, or just above them all.

    Similarities that tie at the border are all below the threshold.
    """
    if not 0 < rate < 1:
        raise ValueError(f"A false positive rate lies between 0 and 1, not at {rate}.")
    if not len(wrong):
        raise ValueError("A threshold needs pairs of different people to be calibrated on; there are none.")
    allowed = int(np.floor(rate * len(wrong) + 1e-9))
    border = np.partition(wrong, len(wrong) - allowed - 1)[len(wrong) - allowed - 1]
    return float(np.nextafter(border, np.array(np.inf, dtype=wrong.dtype)))


def operating_points(pairs: Pairs, rates: Sequence[float] = RATES) -> list[OperatingPoint]:
    """Overall, then per camera pair, at each rate.

    Camera pairs share the threshold of all pairs, as a deployed system would; what each would reach with its own says how
    much that costs.
    """
    groups = {"all": np.ones(len(pairs.same), dtype=bool)}
    for query, gallery in sorted(set(zip(pairs.query_camids.tolist(), pairs.gallery_camids.tolist(), strict=True))):
        groups[f"{query} -> {gallery}"] = (pairs.query_camids == query) & (pairs.gallery_camids == gallery)
    points = []
    for rate in rates:
        threshold = calibrate(pairs.similarity[~pairs.same], rate)
        for name, mask in groups.items():
            right, wrong = pairs.similarity[mask & pairs.same], pairs.similarity[mask & ~pairs.same]
            own = calibrate(wrong, rate) if len(wrong) else float("nan")
            points.append(
                OperatingPoint(
                    name, rate, threshold, _share(right, threshold), _share(wrong, threshold), own, _share(right, own),
                    len(right), len(wrong),
                )
            )  # fmt: skip
    return points


def held_out(pairs: Pairs, rates: Sequence[float] = RATES, seed: int = 0) -> list[HeldOut]:
    """Both halves of the identities in turn."""
    people = np.unique(pairs.query_pids)
    if len(people) < 2:
        raise ValueError("Held-out thresholds need two identities or more.")
    if seed < 0:
        raise ValueError(f"The seed of the random halves is {seed}; it must be a whole number of at least 0.")
    first = np.random.default_rng(seed).permutation(people)[: len(people) // 2]
    masks = (np.isin(pairs.query_pids, first), np.isin(pairs.gallery_pids, first))
    halves = pairs.where(masks[0] & masks[1]), pairs.where(~masks[0] & ~masks[1])
    found = []
    for rate in rates:
        judged = []
        for a, b in (halves, halves[::-1]):
            threshold = calibrate(a.similarity[~a.same], rate)
            judged.append((_share(b.similarity[~b.same], threshold), _share(b.similarity[b.same], threshold)))
        fpr, tpr = np.mean(judged, axis=0)
        found.append(HeldOut(rate, float(fpr), float(tpr)))
    return found


def thresholds_table(points: Sequence[OperatingPoint], others: Sequence[HeldOut] = ()) -> str:
    """A Markdown table in percent, and what the thresholds do on people whom they were not calibrated on."""
    cells = [["pairs (query -> gallery camera)", "FPR asked", "threshold", "TPR", "FPR", "own threshold", "own TPR"]]
    cells[0] += ["right pairs", "wrong pairs"]
    for p in points:
        cells.append([p.pairs, f"{100 * p.rate:g} %", f"{p.threshold:.4f}", _percent(p.tpr), _percent(p.fpr)])
        cells[-1] += [f"{p.own_threshold:.4f}", _percent(p.own_tpr), f"{p.right:,}", f"{p.wrong:,}"]
    lines = [*aligned(cells, names=1), *([""] if others else [])]
    for one in others:
        asked, fpr, tpr = f"{100 * one.rate:g} %", _percent(one.fpr), _percent(one.tpr)
        lines.append(f"- Calibrated for FPR {asked} on half of the identities, on the other half: FPR {fpr}, TPR {tpr}.")
    return "\n".join(lines)


def _share(similarity: np.ndarray, threshold: float) -> float:
    return float((similarity >= threshold).mean()) if len(similarity) else float("nan")


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.2f} %"
