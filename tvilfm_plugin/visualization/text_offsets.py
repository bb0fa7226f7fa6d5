"""Does the text say what the infrared image lacks? Cosines between f_rgb - f_ir and f_T(T_rgb) - f_T(T_ir) (Eq. 6).

SFF rests on the two offsets being alike. Raw features are compared, as Eq. 7 adds them. A common direction (every visible
image differs from its infrared one in the same way, every coloured text from its colourless one) also gives high cosines;
the control, the text offset of another person, shows how much of them is about the person.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from tvilfm_plugin.analysis.statistics import Interval, PairedTest, identity_bootstrap, paired_randomisation
from tvilfm_plugin.analysis.text_noise import wrong_person
from tvilfm_plugin.evaluation.report import NO_TEXT
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.visualization.figures import GREEN, INK, ORANGE, Look, histogram, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 50
LOOKS = (Look("own text", GREEN, "-", ""), Look("another person's text", ORANGE, "--", "////"))


class Offsets(NamedTuple):
    """(Q,) cosines of image offsets with the own text offset and another person's; NaN where one is zero or nobody is known."""

    matched: np.ndarray
    mismatched: np.ndarray
    pids: np.ndarray

    def intervals(self, resamples: int = 10_000, seed: int = 0) -> tuple[Interval, Interval, PairedTest]:
        """Mean of either with its interval over identities, and the test of their difference (matched - mismatched)."""
        one, other = (identity_bootstrap(v, self.pids, resamples=resamples, seed=seed) for v in (self.matched, self.mismatched))
        return one, other, paired_randomisation(self.mismatched, self.matched, self.pids, resamples=resamples, seed=seed)


def text_offsets(stored: StoredEvaluation, setting: str, source: str, seed: int = 0) -> Offsets:
    """Cosines from the stored raw parts, with the first seed's texts of a setting and source.

    f_ir is the query's feature, f_rgb the mean over the person's visible images in the gallery union, T_rgb the text of the
    first draw and T_ir the query's own filter text.
    """
    if source in (NO_TEXT, "self"):
        raise ValueError(f"Text source {source!r} gives no offset between two texts; take witness or oracle.")
    text, parts = stored.text(setting, source, next(iter(stored.seeds(setting, source)), 0)), stored.parts
    assert parts.texts is not None
    people, code = np.unique(stored.gallery.pids, return_inverse=True)
    sums = torch.zeros(len(people), parts.gallery.shape[1], dtype=torch.float64)
    sums.index_add_(0, torch.from_numpy(code), parts.gallery.double())
    visible = sums / torch.from_numpy(np.bincount(code))[:, None]

    own = np.minimum(np.searchsorted(people, stored.query.pids), len(people) - 1)
    known = people[own] == stored.query.pids
    image = visible[torch.from_numpy(own)] - parts.query.double()
    words = parts.texts[torch.from_numpy(text.rgb[0])].double() - parts.texts[torch.from_numpy(text.ir)].double()
    others = torch.from_numpy(wrong_person(stored.query.pids, 1.0, seed))
    matched, mismatched = _cosine(image, words), _cosine(image, words[others])
    usable = known & np.isfinite(matched) & np.isfinite(mismatched)
    return Offsets(np.where(usable, matched, np.nan), np.where(usable, mismatched, np.nan), stored.query.pids)


def build_offsets(found: Mapping[str, Offsets], title: str) -> "Figure":
    """One panel per state of the text encoder, e.g. before and after stage 2; same axes."""
    finite = lambda values: values[~np.isnan(values)]
    usable = {name: (finite(one.matched), finite(one.mismatched)) for name, one in found.items()}
    everything = np.concatenate([values for pair in usable.values() for values in pair])
    edges = np.linspace(min(everything.min(), 0), max(everything.max(), 0), BINS + 1).tolist()
    figure = new_figure(3.6 * len(found) + 0.4, 3.4)
    axes = figure.subplots(1, len(found), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (name, pair) in zip(axes, usable.items(), strict=True):
        for values, look in zip(pair, LOOKS, strict=True):
            histogram(axis, values, edges, look)
        axis.axvline(0, color=INK, linewidth=0.6)
        style(axis, name)
        axis.set_xlabel(f"cosine; means {pair[0].mean():+.3f} (own), {pair[1].mean():+.3f} (other)", fontsize=9)
    axes[0].set_ylabel("queries", fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    figure.suptitle(title, fontsize=11, color=INK)
    return figure


def offset_cells(found: Mapping[str, Offsets], resamples: int = 10_000, seed: int = 0) -> list[list[str]]:
    """The numbers of the picture with intervals over identities, as a table."""
    cells = [["text encoder", "own text [95 %]", "another person's text [95 %]", "difference [95 %]", "p", "people"]]
    for name, one in found.items():
        own, other, test = one.intervals(resamples, seed)
        shown = [f"{v.mean:+.3f} [{v.low:+.3f}, {v.high:+.3f}]" for v in (own, other)]
        shown.append(f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}]")
        cells.append([name, *shown, f"{test.p_value:.4f}", str(test.n)])
    return cells


def _cosine(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """(Q,) cosines of two (Q, D); NaN where a row is zero."""
    cosine: np.ndarray = ((a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))).numpy()
    return cosine
