"""The HTML report of a run: its protocol card, its tables and all its pictures."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tvilfm_plugin.analysis.intervals import intervals_table, row_intervals
from tvilfm_plugin.evaluation.report import NO_TEXT, ProtocolCard
from tvilfm_plugin.files.text import read_text
from tvilfm_plugin.visualization.cmc import Cmc, cmc_cells, cmc_of, cmc_panel
from tvilfm_plugin.visualization.comparison_sheet import comparison_rows, failure_rows, failures, sheet_title
from tvilfm_plugin.visualization.curves import build_curves
from tvilfm_plugin.visualization.distances import build_histograms, histogram_cells, pair_distances
from tvilfm_plugin.visualization.figures import encoded, headline, shown_people
from tvilfm_plugin.visualization.html_page import Section, from_tables, page, picture, table
from tvilfm_plugin.visualization.rank_sheet import build_figure
from tvilfm_plugin.visualization.robustness_curves import build_robustness, read_robustness, robustness_cells, stored_robustness
from tvilfm_plugin.visualization.stored import Ranked
from tvilfm_plugin.visualization.systems import INITIAL, System
from tvilfm_plugin.visualization.text_offsets import build_offsets, offset_cells, text_offsets
from tvilfm_plugin.visualization.tsne import build_maps, choose_people, map_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXELS = 96  # of a page per inch of a figure, so that all pictures have letters of one size
BEFORE, AFTER = "before stage 2", "after stage 2"
TITLES = {
    "sheet": "The same queries, system by system",
    "cmc": "CMC",
    "distances": "Distances",
    "tsne": "t-SNE",
    "offsets": "Image and text offsets (Eq. 6)",
    "failures": "Failures",
    "robustness": "Robustness",
}
# How many leading columns of a picture's table hold text.
TEXT_COLUMNS = {"failures": 3, "robustness": 2}
CAPTIONS = {
    "sheet": "The five best gallery images of the same queries for each system, best first, in the first gallery draw and "
    "with the texts of the first text seed. A tick and a blue frame: the same person; a cross and an orange frame: another.",
    "cmc": "Share of queries whose first match is among the first k. Bands: 95 % intervals by bootstrap over identities, for "
    "these weights; they say nothing about other trainings.",
    "distances": "Cosine distances between the queries, as they were asked, and the gallery images of the first draw; pairs "
    "that the protocol ignores are left out. Vertical lines: means. In order: share of cases in which a pair of the same "
    "person is nearer than a pair of different people.",
    "tsne": "t-SNE of some people's queries and visible images. A person has a letter and a colour, and a line from the middle "
    "of her queries to that of her visible images. t-SNE keeps neighbourhoods, not distances: compare who lies "
    "beside whom, not how far apart clusters are, and not the scale of two maps.",
    "offsets": "Cosine between f_rgb - f_ir and f_T(T_rgb) - f_T(T_ir) of every query (Eq. 6), raw features; f_rgb is the mean "
    "of the person's visible images. The control takes another person's text offset: what both have in common is not about "
    "the person.",
    "failures": "The queries whose first match ranks worst, on average over text seeds and gallery draws.",
    "robustness": "mAP over the share of damaged text, as `tvilfm results robustness` measured it.",
}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What goes into a report.

    Attributes:
        ours: the run.
        others: systems before it: initial, backbone, baseline.
        before: the run's evaluation before stage 2, for Eq. 6.
        queries, people: how many queries the sheets and people the maps show.
        seed: of the choice of people and of other people's texts, and of the bootstrap.
    """

    ours: System
    others: Sequence[System] = field(default=())
    before: System | None = None
    queries: int = 4
    people: int = 20
    seed: int = 0
    resamples: int = 10_000
    kind: str = "png"

    @property
    def systems(self) -> list[System]:
        return [*self.others, self.ours]

    @property
    def title(self) -> str:
        card = self.ours.card
        return headline(card.dataset, card.setting, card.text_source)


def report(wanted: Wanted, progress: Callable[[Sequence[str]], Iterable[str]] = iter) -> str:
    """The whole page."""
    ours = wanted.ours
    drawn = [name for name in PICTURES if name not in _left_out(wanted)]
    bodies = dict.fromkeys(drawn, "")
    for name in progress(drawn):
        for _, figure, cells in PICTURES[name](wanted):
            width = int(PIXELS * figure.get_size_inches()[0])
            bodies[name] += picture(encoded(figure, wanted.kind), wanted.kind, CAPTIONS[name], width)
            bodies[name] += table(cells, names=TEXT_COLUMNS.get(name, 1)) if cells else ""
    known = wanted.systems + ([wanted.before] if wanted.before else [])
    tables = [*card_cells(ours), system_cells(known)]
    sections = [Section("Protocol", "\n".join(table(cells, names=len(cells[0])) for cells in tables if len(cells[0]) > 1))]
    sections.append(Section("Results", _results(wanted)))
    sections += [Section(TITLES[name], body) for name, body in bodies.items()]
    people = shown_people(ours.card.dataset)
    subtitle = f"{people}, {ours.card.direction}. Everything here comes from stored evaluations; no network ran."
    return page(f"{ours.name} on {people}", subtitle, sections)


def card_cells(system: System) -> tuple[list[list[str]], list[list[str]]]:
    """The protocol cards of all rows as two tables: what they share, and row by row where they differ."""
    cards = {label: card.to_dict() for label, card in system.stored.cards.items()}
    shared, cells = [["column", "value"]], [["row"], *([label] for label in cards)]
    for column in ProtocolCard.__dataclass_fields__:
        values = [_shown(card[column]) for card in cards.values()]
        name = column.replace("_", " ")
        if len(set(values)) > 1:
            for line, value in zip(cells, [name, *values], strict=True):
                line.append(value)
        elif values[0]:
            shared.append([name, values[0]])
    return shared, cells


def system_cells(systems: Sequence[System]) -> list[list[str]]:
    """Who is who: run, row and weights of every system."""
    cells = [["system", "row", "seed", "weights sha256", "stored evaluation"]]
    for one in systems:
        cells.append([one.name, one.label, _shown(one.card.seed), one.card.weights_sha256[:16], str(one.folder)])
    return cells


def query_types(wanted: Wanted) -> dict[str, Cmc]:
    """The curves of all query types of the run with the text source that it is asked with."""
    ours, card, found = wanted.ours, wanted.ours.card, {}
    for label, other in ours.stored.cards.items():
        if other.setting == card.setting and other.text_source in (NO_TEXT, card.text_source):
            ranked = Ranked.read(ours.folder, label)
            found[ranked.query_type] = cmc_of(ranked, resamples=wanted.resamples, seed=wanted.seed)
    return found


# --- pictures ---------------------------------------------------------------------------------------------------------

Drawn = Iterator[tuple[str, "Figure", list[list[str]]]]
"""(ending of the file's name, figure, its numbers as a table or nothing)."""


def _sheet(wanted: Wanted) -> Drawn:
    systems = [one for one in wanted.systems if one.name != INITIAL]
    rows = comparison_rows(systems, wanted.ours.ranked.spread(wanted.queries))
    yield "", build_figure(rows, sheet_title(systems)), []


def _cmc(wanted: Wanted) -> Drawn:
    panels = {"": query_types(wanted)}
    if wanted.others:
        curve = lambda one: cmc_of(one.ranked, resamples=wanted.resamples, seed=wanted.seed)
        panels["_systems"] = {one.name: curve(one) for one in wanted.systems}
    for suffix, found in panels.items():
        figure = build_curves({"": cmc_panel(found)}, title=wanted.title, x_label="k", y_label="R-k, %", width=6)
        yield suffix, figure, cmc_cells(found)


def _distances(wanted: Wanted) -> Drawn:
    found = {one.name: pair_distances(one) for one in wanted.systems}
    yield "", build_histograms(found, wanted.title), histogram_cells(found)


def _tsne(wanted: Wanted) -> Drawn:
    stored = wanted.ours.stored
    people = choose_people(stored.query.pids, stored.gallery.pids, wanted.people, wanted.seed)
    maps = {one.name: map_of(one, people, seed=wanted.seed) for one in wanted.systems}
    yield "", build_maps(maps, f"{wanted.title}: {len(people)} people"), []


def _offsets(wanted: Wanted) -> Drawn:
    card = wanted.ours.card
    states = ([(BEFORE, wanted.before)] if wanted.before else []) + [(AFTER, wanted.ours)]
    found = {name: text_offsets(one.stored, card.setting, card.text_source, seed=wanted.seed) for name, one in states}
    yield "", build_offsets(found, wanted.title), offset_cells(found, wanted.resamples, wanted.seed)


def _failures(wanted: Wanted) -> Drawn:
    ours = wanted.ours
    ranked, listed = ours.ranked, failures(ours.ranked, 5 * wanted.queries)
    rows = failure_rows(ranked, listed[: wanted.queries], ours.uses_filter)
    cells = [["query", "text with colour (T_rgb)", "text of the IR image (T_ir)", "rank", "mean rank"]]
    for one in listed:
        cells.append([ranked.describe(one.query), *ranked.texts[one.query], str(one.rank), f"{one.mean_rank:.1f}"])
    yield "", build_figure(rows, f"{wanted.title}: {ranked.query_type} query"), cells


def _robustness(wanted: Wanted) -> Drawn:
    found = stored_robustness(wanted.ours.folder)
    if not found:
        folder = wanted.ours.folder
        raise FileNotFoundError(f"{folder} holds no robustness curves: `tvilfm results robustness RUN` measures them.")
    for path in found:
        described = read_robustness(path, wanted.ours.card.weights_sha256)
        suffix = path.stem.removeprefix("robustness") if len(found) > 1 else ""
        yield suffix, build_robustness(described), robustness_cells(described)


PICTURES: Mapping[str, Callable[[Wanted], Drawn]] = {
    "sheet": _sheet, "cmc": _cmc, "distances": _distances, "tsne": _tsne, "offsets": _offsets, "failures": _failures,
    "robustness": _robustness,
}  # fmt: skip
"""What can be drawn of stored evaluations, by name."""


def _left_out(wanted: Wanted) -> set[str]:
    """Pictures that this run has nothing for."""
    source = wanted.ours.card.text_source
    missing = {"offsets"} if source in (NO_TEXT, "self") else set()
    return missing if stored_robustness(wanted.ours.folder) else missing | {"robustness"}


def _results(wanted: Wanted) -> str:
    ours = wanted.ours
    results = read_text(ours.folder / "table.md")
    intervals = intervals_table(row_intervals(ours.stored, ours.folder, wanted.resamples, wanted.seed))
    return from_tables(f"{results}\n### Intervals over identities\n{intervals}")


def _shown(value: object) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
