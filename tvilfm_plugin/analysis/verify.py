"""The same numbers from an independent library: explicit lists, one query at a time, scored by scikit-learn."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tvilfm_plugin.analysis.trials import stored_trials
from tvilfm_plugin.evaluation.protocols import Labels, Protocol
from tvilfm_plugin.evaluation.report import aligned
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.evaluation.summary import percent

TIES = "Equal distances rank by gallery index, lower first; scikit-learn gets these positions, so it sees no ties."
TOLERANCE = 1e-12
"""Largest difference of mAP, as a fraction, that rounding explains: sums of some thousand precisions in another order."""


class Check(NamedTuple):
    """Largest absolute differences of one row of the result table, as fractions, over `trials` text seeds and draws.

    `stored` compares with the printed mean; the others with the numbers ranked again from the parts.
    """

    label: str
    ap: float
    mAP: float
    rank1: float
    stored: float
    trials: int


def independent_scores(dist: np.ndarray, query: Labels, gallery: Labels, protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
    """(Q,) average precision, and whether the first image is right, by (Q, G) distances without junk; NaN without a match."""
    from sklearn import config_context
    from sklearn.metrics import average_precision_score

    ap, first = np.full(len(dist), np.nan), np.full(len(dist), np.nan)
    for q, row in enumerate(np.asarray(dist)):
        pid, camid = query.pids[q], query.camids[q]
        junk = np.broadcast_to(protocol.is_junk(pid.reshape(1, 1), camid.reshape(1, 1), gallery), (1, len(row)))[0]
        kept = np.flatnonzero(~junk)
        listed = kept[np.lexsort((kept, row[kept]))]
        right = gallery.pids[listed] == pid
        if right.any():
            with config_context(assume_finite=True, skip_parameter_validation=True):  # half of its time is checks
                ap[q] = average_precision_score(right, -np.arange(len(listed)))
            first[q] = right[0]
    return ap, first


def verify_row(stored: StoredEvaluation, label: str) -> Check:
    """Every text seed and gallery draw of one row of the result table."""
    ours, search = stored.evaluate(label), stored.searched(label)
    worst_ap = worst_map = worst_first = 0.0
    means = []
    for trial, again in zip(itertools.chain.from_iterable(ours), stored_trials(stored, label), strict=True):
        ap, first = independent_scores(again.dist, search.query, again.gallery, search.protocol)
        valid = ~np.isnan(ap)
        if not np.array_equal(valid, trial.per_query.valid):
            raise AssertionError(f"{label}, draw {trial.draw}: the two libraries disagree on which queries count.")
        worst_ap = max(worst_ap, float(np.abs(ap - trial.per_query.ap)[valid].max()))
        worst_map = max(worst_map, abs(float(ap[valid].mean()) - trial.metrics.mAP))
        worst_first = max(worst_first, abs(float(first[valid].mean()) - trial.metrics.rank(1)))
        means.append((ap[valid].mean(), first[valid].mean()))
    printed = percent(ours)
    mean = np.mean(means, axis=0)
    differences = [printed[metric] - stored.results[f"{label}/{metric}"] for metric in printed]
    differences += [100 * mean[0] - stored.results[f"{label}/mAP"], 100 * mean[1] - stored.results[f"{label}/R-1"]]
    return Check(label, worst_ap, worst_map, worst_first, max(map(abs, differences)) / 100, len(means))


def verify(stored: StoredEvaluation, progress: Callable[[Sequence[str]], Iterable[str]] = iter) -> list[Check]:
    """All rows of the result table; `progress` may wrap the labels, e.g. by a progress bar."""
    return [verify_row(stored, label) for label in progress(list(stored.cards))]


def verified(checks: Sequence[Check]) -> bool:
    """Whether both libraries agree, and the stored files with the printed numbers."""
    return all(check.mAP <= TOLERANCE and check.rank1 == 0 and check.stored <= TOLERANCE for check in checks)


def verification_table(checks: Sequence[Check]) -> str:
    """A Markdown table with the verdict below it."""
    cells = [["row", "trials", "AP of a query", "mAP", "R-1", "printed numbers"]]
    cells += [[c.label, str(c.trials), f"{c.ap:.1e}", f"{c.mAP:.1e}", f"{c.rank1:.1e}", f"{c.stored:.1e}"] for c in checks]
    ap, rank1 = max(c.mAP for c in checks), max(c.rank1 for c in checks)
    again = max(c.stored for c in checks)
    cause = ": the files were changed, or this machine multiplies matrices in another order" if again > TOLERANCE else ""
    lines = [
        *aligned(cells, names=1),
        "",
        f"- Largest absolute difference to scikit-learn, as fractions: mAP {ap:.1e}, R-1 {rank1:.1e}: "
        f"{'verified' if verified(checks) else 'NOT VERIFIED'} (at most {TOLERANCE:.0e} and 0).",
        f"- Printed numbers against the ranking from the stored parts: {again:.1e}{cause}.",
        f"- {TIES}",
    ]
    return "\n".join(lines)
