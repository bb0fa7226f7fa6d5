"""One ranking under every rule: what the published conventions alone change in a number."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tvilfm_plugin.analysis.trials import stored_trials
from tvilfm_plugin.evaluation.protocols import LLCM, REGDB, SYSU, Labels, Protocol
from tvilfm_plugin.evaluation.ranking import rank_metrics
from tvilfm_plugin.evaluation.report import aligned
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.evaluation.summary import COLUMNS, in_columns

JUNK = {
    "nothing ignored": REGDB.is_junk,
    "camera-3 queries ignore camera 2 (SYSU-MM01)": SYSU.is_junk,
    "same person and same camera ignored (LLCM, Market-1501, MIP)": LLCM.is_junk,
}


class RuleRow(NamedTuple):
    """A rule, its six metrics in percent (`COLUMNS`), and their differences to the reported ones."""

    rule: str
    values: np.ndarray
    difference: np.ndarray


class Galleries(NamedTuple):
    """One query set against T gallery draws: (Q, g_t) distances and labels of each."""

    dist: Sequence[np.ndarray]
    query: Labels
    gallery: Sequence[Labels]


def compare_rules(galleries: Galleries, protocol: Protocol, variants: dict[str, Galleries] | None = None) -> list[RuleRow]:
    """The mean over draws under the given protocol, then under every other rule.

    Args:
        protocol: the data set's own rules; the first row.
        variants: name -> the same queries and galleries with distances that were computed or rounded in another way.
    """
    reported = _mean(galleries, protocol)
    rows = [RuleRow(f"as reported ({protocol.name}: CMC over {protocol.cmc})", reported, np.zeros(len(COLUMNS)))]

    def add(rule: str, values: np.ndarray) -> None:
        rows.append(RuleRow(rule, values, values - reported))

    own_junk = next((name for name, junk in JUNK.items() if junk is protocol.is_junk), "own rule")
    junk_rules = {own_junk: protocol.is_junk, **{name: junk for name, junk in JUNK.items() if name != own_junk}}
    for name, junk in junk_rules.items():
        for identities in (protocol.count_identities, not protocol.count_identities):
            if name == own_junk and identities == protocol.count_identities:
                continue
            counted = f"CMC over {'identities' if identities else 'images'}"
            other = Protocol(name, junk, identities)
            add(counted if name == own_junk else f"{name}; {counted}", _mean(galleries, other))
    add("ties: higher gallery index first", _mean(_reversed(galleries), protocol))
    for name, variant in (variants or {}).items():
        add(name, _mean(variant, protocol))
        add(f"{name}, ties reversed", _mean(_reversed(variant), protocol))
    singles = _per_draw(galleries, protocol)
    if len(singles) > 1:
        add("first draw only", singles[0])
        by_map = singles[:, COLUMNS.index("mAP")]
        add(f"best single draw (of {len(singles)}, by mAP)", singles[by_map.argmax()])
        add(f"worst single draw (of {len(singles)}, by mAP)", singles[by_map.argmin()])
    return rows


def stored_rules(stored: StoredEvaluation, label: str) -> list[RuleRow]:
    """`compare_rules` of one row of a stored evaluation, for its first text seed.

    Two variants are added that differ in arithmetic only: similarities in float64, and rounded to half precision, which
    makes ties.
    """
    search, draws = stored.searched(label), stored.card(label).draws
    trials = list(itertools.islice(stored_trials(stored, label), draws))
    labels = [trial.gallery for trial in trials]
    variants = {}
    if search.distance is None:
        double = [-(trial.queries.double() @ trial.images.double().T).numpy() for trial in trials]
        half = [trial.dist.astype(np.float16).astype(np.float32) for trial in trials]
        variants = {
            "similarities in float64": Galleries(double, search.query, labels),
            "similarities in half precision": Galleries(half, search.query, labels),
        }
    return compare_rules(Galleries([trial.dist for trial in trials], search.query, labels), search.protocol, variants)


def rules_table(rows: Sequence[RuleRow]) -> str:
    """A Markdown table: the metrics in percent, and what the rule alone changes."""
    cells = [["rule", *COLUMNS, *(f"Δ {column}" for column in COLUMNS)]]
    for row in rows:
        cells.append([row.rule, *(f"{value:.2f}" for value in row.values), *map(_change, row.difference)])
    return "\n".join(aligned(cells, names=1))


def _reversed(galleries: Galleries) -> Galleries:
    """The same galleries listed backwards: a stable sort then puts the higher index first."""
    return Galleries(
        [d[:, ::-1] for d in galleries.dist], galleries.query, [g.at(slice(None, None, -1)) for g in galleries.gallery]
    )


def _mean(galleries: Galleries, protocol: Protocol) -> np.ndarray:
    return _per_draw(galleries, protocol).mean(axis=0)


def _per_draw(galleries: Galleries, protocol: Protocol) -> np.ndarray:
    """(T, 6) in percent."""
    rows = []
    for dist, gallery in zip(galleries.dist, galleries.gallery, strict=True):
        rows.append(in_columns(rank_metrics(dist, galleries.query, gallery, protocol)))
    return np.array(rows)


def _change(value: float) -> str:
    """Differences that two digits would hide keep their order of magnitude."""
    if value == 0:
        return "0"
    return f"{value:+.2f}" if abs(value) >= 0.005 else f"{value:+.0e}"
