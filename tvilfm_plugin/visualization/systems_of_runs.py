"""What a report or a picture is made from, by the output folders of runs."""

from pathlib import Path
from typing import Any

from tvilfm_plugin.visualization.run_report import BEFORE, Wanted
from tvilfm_plugin.visualization.systems import (
    ASKED,
    BACKBONE,
    BASELINE,
    ENSEMBLE,
    IMAGE,
    INITIAL,
    OURS,
    Load,
    System,
    evaluation_of,
    open_system,
)


def systems_of_runs(
    load: Load,
    run: Path,
    *,
    dataset: str = "",
    query: str = "",
    name: str = "",
    setting: str = "",
    source: str = "",
    initial: Path | None = None,
    backbone: Path | None = None,
    baseline: Path | None = None,
    before: Path | None = None,
    **drawn: Any,
) -> Wanted:
    """The systems of a report.

    Args:
        dataset: which of its evaluations, where there are several.
        query: its query type; "" = the ensemble, without text the infrared image alone.
        setting, source: "" = the run's first ones; the other systems are asked with the same.
        initial, backbone, baseline: runs of the systems before it; the backbone is RUN/stage1 if that was evaluated.
        before: the run before stage 2.
        drawn: queries, people, seed, resamples and kind of `Wanted`.
    """
    folder = evaluation_of(run, dataset)
    query = query or (ENSEMBLE if load(folder).text_index else IMAGE)
    name = name or (OURS if query == ENSEMBLE else query)
    ours = open_system(name, folder, load, query=query, setting=setting, source=source)

    def another(name: str, run: Path, query: str) -> System:
        return open_system(
            name, evaluation_of(run, folder.name), load, query=query, setting=ours.card.setting, source=ours.card.text_source
        )

    if backbone is None and next((run / "stage1").glob("evaluation/*/results.json"), None):
        backbone = run / "stage1"
    given = {INITIAL: initial, BACKBONE: backbone, BASELINE: baseline}
    return Wanted(
        ours=ours,
        others=[another(name, run, ASKED[name]) for name, run in given.items() if run is not None],
        before=another(BEFORE, before, query) if before else None,
        **drawn,
    )
