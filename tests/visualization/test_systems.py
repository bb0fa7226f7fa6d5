from types import SimpleNamespace

import numpy as np
import pytest
from stored_runs import tiny_run

from tvilfm_plugin.analysis.comparison import ProtocolMismatch
from tvilfm_plugin.evaluation.protocols import LLCM
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.evaluation.stored_files import NotStoredError
from tvilfm_plugin.visualization.systems import ASKED, check_same_queries, evaluation_of, open_system


@pytest.fixture(scope="module")
def runs(tiny_evaluation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("systems")
    tiny_run(folder / "b", seed=1, noise=2.0, TVILFM__FUSION="Add")
    tiny_run(folder / "llcm", protocol=LLCM)
    return SimpleNamespace(ours=tiny_evaluation.folder, **{path.name: evaluation_of(path) for path in folder.iterdir()})


def open_one(folder, query="ensemble", **options):
    return open_system("one", folder, StoredEvaluation.load, query=query, **options)


@pytest.mark.parametrize("query", ["infrared", "text", "fusion", "ensemble"])
def test_what_is_drawn_is_what_was_ranked(runs, query):
    one = open_one(runs.ours, query)
    queries, gallery, labels, columns = one.embeddings()
    assert np.allclose(queries.norm(dim=1), 1, atol=1e-5) and np.allclose(gallery.norm(dim=1), 1, atol=1e-5)
    similarity = (queries @ gallery[columns].T).numpy()
    for q, (top, pid, camid) in enumerate(zip(one.ranked.top, one.stored.query.pids, one.stored.query.camids, strict=True)):
        allowed = [i for i, g in enumerate(columns) if not (camid == 3 and labels.camids[g] == 2)]
        order = sorted(allowed, key=lambda i: -similarity[q, i])
        assert [columns[i] for i in order[:5]] == top[:5].tolist(), pid


def test_labels_and_filters(runs):
    assert open_one(runs.ours).label == "all/ensemble"
    assert open_one(runs.ours, "infrared", source="self").label == "all/infrared"
    assert open_one(runs.ours, source="self").label == "all/ensemble@self"
    # Text alone and images alone have no filter; ablation B adds without one.
    assert [open_one(runs.ours, query).uses_filter for query in ASKED.values()] == [False, False, True, True]
    assert not open_one(runs.b, "fusion").uses_filter and not open_one(runs.ours, "text").uses_filter
    with pytest.raises(NotStoredError, match=r"no row all/fusion \(self\) for the system 'one'; it has all/infrared, all/text"):
        open_one(runs.ours, "fusion", source="self")


def test_only_the_same_queries_stand_side_by_side(runs):
    check_same_queries([open_one(runs.b, "infrared"), open_one(runs.b, "fusion"), open_one(runs.ours)])
    with pytest.raises(ProtocolMismatch, match="dataset is 'Tri-SYSU-MM01' or 'Tri-LLCM'"):
        check_same_queries([open_one(runs.ours), open_one(runs.llcm)])
    with pytest.raises(ProtocolMismatch, match="texts of oracle and self .*give one --source"):
        check_same_queries([open_one(runs.ours), open_one(runs.ours, source="self")])
    with pytest.raises(ValueError, match="no system"):
        check_same_queries([])


def test_one_of_several_evaluations_has_to_be_chosen(tmp_path):
    for name in ("A", "B"):
        (tmp_path / "evaluation" / name).mkdir(parents=True)
        (tmp_path / "evaluation" / name / "results.json").touch()
    assert evaluation_of(tmp_path, "B").name == "B"
    with pytest.raises(LookupError, match="holds the evaluations A, B; choose one with --dataset"):
        evaluation_of(tmp_path)
