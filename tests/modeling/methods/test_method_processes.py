"""The methods' synthetic configs, made tiny: two processes are one, and a resumed run is the one that was not interrupted.

TVILFM_EVERY_CASE=1 resumes every method; without it, the two that keep more than weights.
"""

import os

import method_processes
import pytest
import torch
import two_processes
from tiny_runs import ROOT, same, weights

from tvilfm_plugin.host.launch import launch

METHODS = ("AGW", "CAJ", "DEEN", "MMN", "DDAG", "YYDS")
RESUMED = METHODS if os.environ.get("TVILFM_EVERY_CASE") == "1" else ("DDAG", "YYDS")
SMALL = """
MODEL:
  BACKBONE: {FEAT_DIM: 64, SMALL_WIDTH: 8, SMALL_BLOCKS: [1, 1, 1, 1]}
  DUAL_STREAM: {WEIGHTS: ""}
  TEXT: {ARCH: TOWER, WEIGHTS: ""}
INPUT: {SIZE_TRAIN: [64, 24], SIZE_TEST: [64, 24]}
DATALOADER: {NUM_INSTANCE: 2}
DATASETS: {ROOT: ""}
SEED: 3
SOLVER: {AMP: {ENABLED: False}, IMS_PER_BATCH: 8, MAX_EPOCH: 2, STEPS: [1]}
TEST: {DRAWS: 1, EVAL_PERIOD: 2, IMS_PER_BATCH: 16, TEXT_SOURCES: [self]}
"""


def tiny_config(tiny, folder, method):
    """projects/METHOD/configs/synthetic.yml at the smallest size."""
    file = folder / f"{method}.yml"
    small = SMALL.replace("TOWER", str(tiny.folder / "tower.json"))
    file.write_text(f"_BASE_: {ROOT}/projects/{method}/configs/synthetic.yml\n{small}")
    return file


@pytest.fixture(scope="module")
def stepped(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("methods")
    configs = {method: str(tiny_config(tiny, folder, method)) for method in METHODS}
    with tiny.environment():
        launch(method_processes.work, 2, dist_url="auto", args=(str(folder), configs))
    return configs, [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_are_one(tiny, stepped, method, in_float64):
    """Gathered losses and synchronised statistics: the gradients of both halves are those of the whole batch."""
    configs, ranks = stepped
    first, second = (rank[method] for rank in ranks)
    words = (*two_processes.SYNC, "MODEL.HEADS.NUM_CLASSES", 4)
    model = method_processes.WithoutDropout.build_model(two_processes.config(configs[method], tiny.folder, *words))
    model.load_state_dict(first["before"])
    batch = {}
    for key, half in first["batch"].items():
        other = second["batch"][key]
        if isinstance(half, torch.Tensor) and "tokens" in key:
            longest = max(half.shape[1], other.shape[1])
            half, other = (torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in (half, other))
        batch[key] = torch.cat([half, other]) if isinstance(half, torch.Tensor) else [*half, *other]
    sum(model.train()(batch).values()).backward()
    largest = max(p.grad.abs().max() for p in model.parameters() if p.grad is not None)
    compared = 0
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            for rank in (first, second):
                assert (rank["grads"][name] - parameter.grad).abs().max() <= 1e-9 * largest, name
            compared += 1
    assert compared > 10


@pytest.mark.parametrize("method", RESUMED)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tiny, tmp_path, method):
    config = tiny_config(tiny, tmp_path, method)
    tiny(f"{method}_whole", config=config)
    tiny(f"{method}_parts", "SOLVER.MAX_EPOCH", 1, config=config)
    tiny(f"{method}_parts", "--resume", config=config)
    whole, parts = (weights(tiny.folder / f"{method}_{name}" / "model_final.pth") for name in ("whole", "parts"))
    assert same(whole, parts)
