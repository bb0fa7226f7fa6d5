import json
import re
from html import unescape

import pytest
from test_html_page import Seen
from test_robustness_curves import described

from tvilfm_plugin.analysis.intervals import row_intervals
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.visualization.robustness_curves import robustness_cells
from tvilfm_plugin.visualization.run_report import CAPTIONS, PICTURES, TITLES, Wanted, report
from tvilfm_plugin.visualization.systems import ASKED, evaluation_of, open_system


@pytest.fixture(scope="module")
def wanted(system_runs):
    runs = {**system_runs, "TVI-LFM": system_runs["full"], "backbone": system_runs["stage1"]}
    one = lambda name, query: open_system(name, evaluation_of(runs[name]), StoredEvaluation.load, query=query)
    systems = [one(name, query) for name, query in ASKED.items()]
    before = one("before", "ensemble")
    return Wanted(ours=systems[-1], others=systems[:-1], before=before, queries=2, people=6, resamples=200)


@pytest.fixture(scope="module")
def text(wanted):
    return report(wanted)


def tables(text):
    """Every table of a page as rows of cells."""
    cells = lambda row: [unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
    found = re.findall(r"<table>(.*?)</table>", text, re.S)
    return [[cells(row) for row in re.findall(r"<tr>(.*?)</tr>", one)] for one in found]


def test_every_number_is_the_evaluators(wanted, text):
    found = {tuple(one[0]): one for one in tables(text)}
    stored = wanted.ours.stored
    results = json.loads((wanted.ours.folder / "results.json").read_text())["results"]
    columns = ("R-1", "R-5", "R-10", "R-20", "mAP", "mINP")
    labels = {(stored.query_type(label).name, card.text_source): label for label, card in stored.cards.items()}
    lines = found["query", "text source", *columns][1:]
    assert {(line[0], line[1]) for line in lines} == {*labels, ("chance", "—")}
    for line in lines[:-1]:
        for column, cell in zip(columns, line[2:], strict=True):
            assert cell.split(" ± ")[0] == f"{results[f'{labels[line[0], line[1]]}/{column}']:.2f}"

    intervals = {row.label: row.intervals for row in row_intervals(stored, wanted.ours.folder, 200)}
    header = "row", "text source", "R-1 [95 % interval]", "mAP [95 % interval]", "mAP over draws", "mAP over text seeds"
    assert len(found[header]) == 1 + len(stored.cards)
    for line in found[header][1:]:
        for metric, cell in zip(("R-1", "mAP"), line[2:4], strict=True):
            one = intervals[line[0]][metric]
            assert cell == f"{100 * one.mean:.2f} [{100 * one.low:.2f}, {100 * one.high:.2f}]"

    curves = [one for one in tables(text) if one[0][0] == "curve"]
    assert [line[0] for line in curves[0][1:]] == ["infrared", "text", "fusion", "ensemble"]
    assert [line[0] for line in curves[1][1:]] == list(ASKED)
    for line, system in zip(curves[1][1:], wanted.systems, strict=True):
        for k, cell in zip((1, 5, 10, 20), line[1:], strict=True):
            assert cell.split(" [")[0] == f"{system.stored.results[f'{system.label}/R-{k}']:.2f}"

    failed = found["query", "text with colour (T_rgb)", "text of the IR image (T_ir)", "rank", "mean rank"][1:]
    assert len(failed) == 10 and failed[0][1] in stored.texts and float(failed[0][4]) >= float(failed[9][4])


def test_the_protocol_is_on_the_page(wanted, text):
    card = wanted.ours.card
    shared, by_row, systems = tables(text)[:3]
    assert dict(shared)["weights sha256"] == card.weights_sha256 and dict(shared)["cmc"] == "identities"
    assert by_row[0][:3] == ["row", "text source", "text seeds"]
    assert {line[0]: line[1] for line in by_row}["all/ensemble@self"] == "self"
    assert [line[0] for line in systems[1:]] == [*ASKED, "before"]
    assert systems[4][3] == card.weights_sha256[:16]


def test_all_pictures_are_inside_and_nothing_else_is_needed(wanted, text):
    seen = Seen(text)
    assert not seen.open and "script" not in seen.tags
    sources = [value for name, value in seen.attributes if name == "src"]
    # All but robustness curves, which were not measured; CMC has two pictures.
    assert len(sources) == len(PICTURES) - 1 + 1 and all(one.startswith("data:image/png;base64,iVBOR") for one in sources)
    assert not re.search(r"https?://", re.sub(r"data:[^\"]*", "", text))
    for name, title in TITLES.items():
        assert (title in seen.texts) == (name != "robustness")
    assert set(TITLES) == set(CAPTIONS) == set(PICTURES)


def test_images_alone_make_a_report_too(wanted):
    alone = open_system("infrared", wanted.ours.folder, StoredEvaluation.load, query="infrared")
    names = []
    text = report(Wanted(ours=alone, queries=1, people=4, resamples=50, kind="svg"), lambda some: names.extend(some) or some)
    assert names == ["sheet", "cmc", "distances", "tsne", "failures"]
    assert text.count('src="data:image/svg+xml;base64,') == 5 and TITLES["offsets"] not in text


def test_missing_robustness_says_what_to_do(wanted):
    with pytest.raises(FileNotFoundError, match=r"no robustness curves: `tvilfm results robustness RUN`"):
        list(PICTURES["robustness"](wanted))


def test_robustness_curves_that_were_measured_are_in(wanted):
    card = wanted.ours.card.to_dict()
    points = [point | {"share": float(point["share"])} for point in described()["points"]]
    path = wanted.ours.folder / "robustness_all_oracle.json"
    path.write_text(json.dumps({"card": card, "points": points}))
    try:
        ((suffix, figure, cells),) = PICTURES["robustness"](wanted)
    finally:
        path.unlink()
    assert suffix == "" and len(figure.axes) == 1 and cells == robustness_cells({"points": points})
