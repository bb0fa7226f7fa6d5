"""One thread per test process: on two cores libgomp's spinning barriers cost more than the arithmetic. Set before torch."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import json
import sys
import warnings
from pathlib import Path

import pytest

import tvilfm_plugin  # noqa: F401  (what the host lacks is provided before anything imports it)

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Runs of both stages on one tiny data set; see tests/tiny_runs.py."""
    pytest.importorskip("fastreid")
    from tiny_runs import TinyRuns

    return TinyRuns(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def trained(tiny):
    """Both stages, trained once and left alone: the output folder. `trained.parent` is `tiny.folder`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)
        results = tiny("trained")
    out = tiny.folder / "trained"
    (out / "returned.json").write_text(json.dumps(results))
    (out / "warnings.json").write_text(json.dumps([str(warning.message) for warning in caught]))
    return out


@pytest.fixture(scope="session")
def tiny_evaluation(tmp_path_factory):
    """A stored evaluation of invented features, to be read only; see tests/stored_runs.py. Its run is `folder.parents[1]`."""
    pytest.importorskip("fastreid")
    from stored_runs import tiny_run

    return tiny_run(tmp_path_factory.mktemp("stored"))


@pytest.fixture(scope="session")
def stored(trained):
    """The stored evaluation of `trained`."""
    from tvilfm_plugin.evaluation.stored import StoredEvaluation

    return StoredEvaluation.load(next(trained.glob("evaluation/*")))


@pytest.fixture(scope="session")
def small_retriever(tmp_path_factory):
    """A retriever of 48 x 24 pixels with random weights, and without a gallery."""
    pytest.importorskip("fastreid")
    import torch
    from oracles_modeling import small_model, write_tower

    from tvilfm_plugin.retrieval.retriever import Retriever

    torch.manual_seed(0)
    return Retriever(small_model("TVILFM", write_tower(tmp_path_factory.mktemp("tower"))), image_size=(48, 24), batch=4)


@pytest.fixture(scope="session")
def system_runs(tmp_path_factory):
    """The runs of the paper's pictures, to be read only: name -> output folder; see tests/stored_runs.py."""
    pytest.importorskip("fastreid")
    from stored_runs import tiny_systems

    return tiny_systems(tmp_path_factory.mktemp("systems"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of real parts fetch what they need: only where `-m real` asks for them (make test-real)."""
    for item in items:
        if Path(__file__).parent / "real" in item.path.parents:
            item.add_marker(pytest.mark.real)
            if "real" not in (config.option.markexpr or ""):
                item.add_marker(pytest.mark.skip(reason="fetches real parts: make test-real"))
