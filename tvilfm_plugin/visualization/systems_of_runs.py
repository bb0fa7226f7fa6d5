"""What a report or a picture is made from, by the output folders of runs."""

from pathlib import Path
from typing import Any

from tvilfm_plugin.visualization import systems
from tvilfm_plugin.visualization.run_report import BEFORE, Wanted
from tvilfm_plugin.visualization.systems import evaluation_of, open_system


def systems_of_runs(
    load: systems.Load,
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
        drawn: queries, people, seed, resamples and kind of `Wanted`.
    """
    folder = evaluation_of(run, dataset)
    query = query or (systems.ENSEMBLE if load(folder).text_index else systems.IMAGE)
    name = name or (systems.OURS if query == systems.ENSEMBLE else query)
    ours = open_system(name, folder, load, query=query, setting=setting, source=source)

    def another(name: str, run: Path, query: str) -> systems.System:
        return open_system(
            name, evaluation_of(run, folder.name), load, query=query, setting=ours.card.setting, source=ours.card.text_source
        )

    if backbone is None and next((run / "stage1").glob("evaluation/*/results.json"), None):
        backbone = run / "stage1"
    given = {systems.INITIAL: initial, systems.BACKBONE: backbone, systems.BASELINE: baseline}
    return Wanted(
        ours=ours,
        others=[another(name, run, systems.ASKED[name]) for name, run in given.items() if run is not None],
        before=another(BEFORE, before, query) if before else None,
        **drawn,
    )
