"""What a table of the papers consists of: trainings, rows, and what was measured of a row.

A row is a value: which run it reads, which query type, and which row it is a step from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tvilfm_plugin.analysis.comparison import Comparison, Measured
from tvilfm_plugin.analysis.published import published
from tvilfm_plugin.evaluation.report import NO_TEXT, ORACLE
from tvilfm_plugin.evaluation.summary import Summary, summarise

METRICS = ("R-1", "mAP", "mINP")
IMAGES = "infrared"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training.

    Args:
        overrides: `KEY, VALUE, ...` that make it what it is.
        start: name of the run of the same seed whose weights it starts from; "" = none.
        scratch: whether it has stage 1's schedule, learning rate and pre-trained weights instead.
        config: its file below `projects`, where that is not the data set's of TVI-LFM; {} stands for the data set.
    """

    name: str
    overrides: tuple[str, ...] = ()
    start: str = "stage1"
    scratch: bool = False
    config: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table.

    Args:
        run: a name in `RUNS`.
        query: the query type, e.g. "fusion".
        published: its name in published.json; "" = the paper has no such number.
        previous: name of the row that it is tested against.
    """

    name: str
    run: str
    query: str
    published: str = ""
    previous: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under a title; `datasets` that the table is about; whether it `compares` methods of the field."""

    title: str
    rows: tuple[Row, ...]
    datasets: tuple[str, ...]
    compares: bool = False


_NO_REPHRASE = ("INPUT.REPHRASE_PROB", "0.0")
_NO_IAEL = ("MODEL.MIP.IAEL_WEIGHT", "0.")
_NO_IPG = ("MODEL.MIP.INSTANCE_PROMPTS", "0")
_MIP = "MIP/configs/{}.yml"
STAGE1 = Run(name="stage1", start="")
_METHODS = ("AGW", "CAJ", "DDAG", "MMN", "DEEN", "YYDS")
RUNS = {
    run.name: run
    for run in (
        STAGE1,
        Run(name="b", overrides=("TVILFM.FUSION", "Add", "TVILFM.ROWS", "baseline", *_NO_REPHRASE)),
        Run(name="sff", overrides=("TVILFM.ROWS", "baseline", *_NO_REPHRASE)),
        Run(name="sff_mjl", overrides=_NO_REPHRASE),
        Run(name="full"),
        Run(name="scratch", overrides=("TVILFM.FROM_SCRATCH", "True"), start="", scratch=True),
        # MIP's parts, all of them with the same blocks before the branches.
        Run(name="mip_baseline", overrides=("MODEL.MIP.MODALITY_PROMPTS", "0", *_NO_IPG), start="", config=_MIP),
        Run(name="mip_mpl", overrides=_NO_IPG, start="", config=_MIP),
        Run(name="mip_generator", overrides=_NO_IAEL, start="", config=_MIP),
        Run(name="mip_fusion", overrides=(*_NO_IAEL, "MODEL.MIP.INSTANCE_TYPE", "fusion"), start="", config=_MIP),
        Run(name="mip_all", start="", config=_MIP),
        Run(name="mip_text", start="mip_all", config="TVILFM/configs/{}_mip.yml"),
        *(Run(name=name.lower(), start="", config=f"{name}/configs/{{}}.yml") for name in _METHODS),
        Run(name="tvilfm_deen", start="deen", config="TVILFM/configs/{}_deen.yml"),
    )
}

_BACKBONE = Row(name="VI-ReID backbone, I->R", run="stage1", query=IMAGES, published="backbone")
_TVILFM = Row(name="TVI-LFM, I+T->R", run="full", query="ensemble", published="tvilfm", previous=_BACKBONE.name)
_DEEN = Row(name="TVI-LFM on DEEN", run="tvilfm_deen", query="ensemble", previous=_TVILFM.name)
_IMAGES = tuple(
    Row(name=name, run=name.lower(), query=IMAGES, published=name.lower(), previous=_TVILFM.name) for name in _METHODS[:-1]
)
_YYDS = Row(name="YYDS, I+T->R", run="yyds", query="ensemble", published="yyds", previous=_TVILFM.name)
_AGAINST = (*_IMAGES, _YYDS, _BACKBONE, _TVILFM, _DEEN)
TABLES = {
    "table1": Table(
        title="Table 1: ablation",
        rows=(
            Row(name="B", run="b", query="fusion", published="b"),
            Row(name="+SFF", run="sff", query="fusion", published="sff", previous="B"),
            Row(name="+SFF+MJL", run="sff_mjl", query="fusion", published="sff_mjl", previous="+SFF"),
            Row(name="+SFF+MJL+LLM", run="full", query="fusion", published="sff_mjl_llm", previous="+SFF+MJL"),
            Row(name="+SFF+MJL+MER", run="sff_mjl", query="ensemble", published="sff_mjl_mer", previous="+SFF+MJL"),
            Row(name="all", run="full", query="ensemble", published="tvilfm", previous="+SFF+MJL+LLM"),
        ),
        datasets=("sysu", "regdb", "llcm", "synthetic"),
    ),
    "table2": Table(title="Table 2: comparison on SYSU-MM01", rows=_AGAINST, datasets=("sysu", "synthetic"), compares=True),
    "table3": Table(
        title="Table 3: comparison on RegDB and LLCM", rows=_AGAINST, datasets=("regdb", "llcm", "synthetic"), compares=True
    ),
    "table5": Table(
        title="Table 5: incremental against from scratch (without MER)",
        rows=(
            Row(name="from scratch, I->R", run="scratch", query=IMAGES, published="scratch_images"),
            Row(name="from scratch, I+T->R", run="scratch", query="fusion", published="scratch"),
            Row(name="incremental, I->R", run="stage1", query=IMAGES, published="backbone", previous="from scratch, I->R"),
            Row(
                name="incremental, I+T->R", run="full", query="fusion", published="sff_mjl_llm", previous="from scratch, I+T->R"
            ),
        ),
        datasets=("sysu", "regdb", "llcm", "synthetic"),
    ),
    "mip": Table(
        title="MIP: its parts at equal depth, and text beside it",
        rows=(
            Row(name="prompt-free baseline", run="mip_baseline", query=IMAGES),
            Row(name="MPL", run="mip_mpl", query=IMAGES, previous="prompt-free baseline"),
            Row(name="MPL + IPG, generator", run="mip_generator", query=IMAGES, previous="MPL"),
            Row(name="MPL + IPG, fusion", run="mip_fusion", query=IMAGES, previous="MPL"),
            Row(name="all (generator, IAEL)", run="mip_all", query=IMAGES, previous="MPL + IPG, generator"),
            Row(name="all + text", run="mip_text", query="ensemble", previous="all (generator, IAEL)"),
        ),
        datasets=("sysu", "synthetic"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of one setting and text source, by one protocol (`apart` says which): metric -> [training seed][trial]."""

    row: Row
    setting: str
    query: str
    source: str
    seeds: tuple[int, ...]
    trials: Mapping[str, Sequence[Sequence[Measured]]]
    apart: str = ""
    note: str = ""

    def values(self, metric: str) -> np.ndarray:
        """(training seeds, text seeds, draws) in percent; RegDB's splits are its draws."""
        of_seed = lambda trials: np.hstack([np.nanmean(one.values, axis=2) for one in trials])
        return 100 * np.array([of_seed(trials) for trials in self.trials[metric]])

    def over(self, what: str, metric: str) -> Summary:
        """Mean and deviation over "training seeds", "text seeds" or "draws": the other two are averaged first."""
        axis = ("training seeds", "text seeds", "draws").index(what)
        return summarise(self.values(metric).mean(axis=tuple(i for i in range(3) if i != axis)))

    def paper(self, dataset: str) -> dict[str, float]:
        """The paper's numbers, if it has some for this row: its text is the oracle's."""
        same = self.row.published and self.query == self.row.query and self.source in (ORACLE, NO_TEXT)
        return published(dataset, self.setting, self.row.published) if same else {}


@dataclass(frozen=True, kw_only=True)
class Result:
    """Everything that a table prints."""

    table: Table
    dataset: str
    lines: tuple[Line, ...]
    steps: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
    resamples: int = field(default=10_000)
