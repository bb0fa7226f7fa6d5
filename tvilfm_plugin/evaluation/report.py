"""What is printed and stored with a result: the protocol card, and a table that names every row's text source."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate

from tvilfm_plugin.evaluation.ranking import RankMetrics
from tvilfm_plugin.evaluation.summary import COLUMNS, in_columns, summarise

ORACLE = "oracle"
NO_TEXT = "none"


@dataclass(frozen=True, kw_only=True)
class ProtocolCard:
    """Everything that must be equal for two numbers to be comparable. Stored and printed with every result.

    Args:
        dataset: e.g. "SYSU-MM01".
        direction: "infrared-to-visible" or "visible-to-infrared".
        setting: e.g. "all", "indoor", "trial1".
        shots: gallery images per (identity, camera); 0: all of them.
        draws: gallery draws that the numbers average.
        gallery_source: how the galleries were drawn, with the seeds.
        cmc: "identities" or "images".
        rules: name of the protocol by which gallery images are ignored.
        text_source: where the visible-image text of a query comes from ("none", "self", "witness", "oracle", "human").
        text_seeds: of the text draws, one each; empty without a draw.
        reranking: the method and its parameters, "none" without.
        epoch_rule: how the evaluated weights were chosen, e.g. "last epoch".
        preset: "paper" or "released".
        seed: of the training run; None if unknown.
        note: anything a reader must know (held-out images, self text that makes fusion equal infrared ...).
        weights_sha256: of the evaluated weights.
        data_sha256: of the tested images, and of their captions where text was used; "" on older cards.
    """

    dataset: str
    direction: str
    setting: str
    shots: int
    draws: int
    gallery_source: str
    cmc: str
    text_source: str
    text_seeds: tuple[int, ...] = ()
    reranking: str = "none"
    epoch_rule: str = "last epoch"
    preset: str = "paper"
    rules: str = ""
    seed: int | None = None
    note: str = ""
    weights_sha256: str = ""
    data_sha256: str = ""
    version: str = ""

    def __post_init__(self) -> None:
        """Check what would make the card worthless, and take JSON's lists back as tuples."""
        if self.cmc not in ("identities", "images"):
            raise ValueError(f"A CMC counts 'identities' or 'images', got {self.cmc!r}.")
        object.__setattr__(self, "text_seeds", tuple(self.text_seeds))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `ProtocolCard(**card.to_dict())` gives the card back."""
        return asdict(self)

    def __str__(self) -> str:
        """`key: value` pairs in one paragraph, empty ones left out."""
        values = {**self.to_dict(), "text_seeds": ", ".join(map(str, self.text_seeds))}
        known = ((key.replace("_", " "), value) for key, value in values.items() if value not in ("", None))
        return " · ".join(f"{key}: {value}" for key, value in known)


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One line of a table: query type, source of its text ("none" without), metrics per gallery draw, text or training seed."""

    query: str
    text_source: str
    trials: Sequence[RankMetrics]
    note: str = ""


def results_table(rows: Sequence[ResultRow], chance: Sequence[RankMetrics]) -> str:
    """A Markdown table in percent, `mean ± sd` over the trials, every row with its text source, chance level last.

    Args:
        rows: the results; their order is kept.
        chance: `chance_metrics` of each draw (or of one).

    Returns:
        The table, with notes below it if a row has one or if no row answers what happens without an oracle.
    """
    if not rows:
        raise ValueError("A results table needs at least one row.")
    for row in rows:
        if not row.text_source:
            raise ValueError(f"The row {row.query!r} names no text source; say {NO_TEXT!r} if its query has no text.")
    body = [[row.query, row.text_source, *_cells(row.query, row.trials)] for row in rows]
    body.append(["chance", "—", *_cells("chance", chance, spread=False)])
    lines = aligned([["query", "text source", *COLUMNS], *body], names=2)

    counts = sorted({len(row.trials) for row in rows})
    notes = [f"Percent; mean ± standard deviation over {' or '.join(map(str, counts))} trials."]
    if counts == [1]:
        notes = ["Percent; one trial."]
    with_text = {row.text_source for row in rows} - {NO_TEXT}
    if ORACLE in with_text:
        notes.append("Source `oracle` picks the text by the query's true identity, which no deployed system knows.")
    if with_text == {ORACLE}:
        notes.append("WARNING: no row with text does without the oracle; add text source `witness` or `self`.")
    notes += [f"{row.query} ({row.text_source}): {row.note}" for row in rows if row.note]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)])


def _cells(name: str, trials: Sequence[RankMetrics], spread: bool = True) -> list[str]:
    if not trials:
        raise ValueError(f"The row {name!r} has no trials.")
    cells = []
    for column in zip(*map(in_columns, trials), strict=True):
        summary = summarise(column)
        deviation = f" ± {summary.sd:.2f}" if spread and summary.n > 1 else ""
        cells.append(f"{summary.mean:.2f}{deviation}")
    return cells


def aligned(table: Sequence[Sequence[str]], names: int) -> list[str]:
    """A Markdown table that also reads well in a terminal: `names` columns of text to the left, numbers to the right."""
    header, *rows = table
    sides = ["left"] * names + ["right"] * (len(header) - names)
    return tabulate(rows, header, tablefmt="pipe", colalign=sides if rows else None, disable_numparse=True).splitlines()
