"""Two processes (gloo) through the trainer: evaluation, training steps, and both stages in one command."""

import json

import numpy as np
import pytest
import torch
from tiny_runs import rows, same, weights

pytest.importorskip("fastreid")

import two_processes
from fastreid.modeling.meta_arch import build_model

from tvilfm_plugin.data.loaders import build_train_loader
from tvilfm_plugin.engine.finished import read_scores
from tvilfm_plugin.host.launch import launch


@pytest.fixture(scope="module")
def out(tiny, trained):
    folder = tiny.folder / "two"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch, tiny.environment():
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        arguments = (str(folder), str(tiny.stage1), str(tiny.config), str(trained))
        launch(two_processes.work, 2, dist_url="auto", args=arguments)
    return folder


@pytest.fixture(scope="module")
def ranks(out):
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def model_of(tiny, file, state, *overrides):
    """A model in this process with the weights that the two processes began with."""
    cfg = two_processes.config(file, tiny.folder, "MODEL.HEADS.NUM_CLASSES", 4, *overrides)
    model = build_model(cfg)
    model.load_state_dict(state)
    return model.train()


def gradients(model, batch):
    model.zero_grad()
    sum(model(batch).values()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def joined(batches):
    """Two halves of a batch as one; texts are padded to the longer half's."""
    whole = {}
    for key, first in batches[0].items():
        parts = [first, batches[1][key]]
        if isinstance(first, torch.Tensor) and first.ndim == 2 and "tokens" in key:
            length = max(part.shape[1] for part in parts)
            parts = [torch.nn.functional.pad(part, (0, length - part.shape[1])) for part in parts]
        whole[key] = torch.cat(parts) if isinstance(first, torch.Tensor) else [*parts[0], *parts[1]]
    return whole


def close(a, b):
    assert a.keys() == b.keys()
    largest = max(value.abs().max() for value in b.values())
    for name in a:
        assert (a[name] - b[name]).abs().max() <= 1e-5 * max(largest, 1), name


def test_evaluation_equals_one_process_bit_for_bit(out, ranks, trained):
    one = json.loads((trained / "returned.json").read_text())
    assert ranks[0]["evaluation"] == one and ranks[1]["evaluation"] == {}
    both, alone = (folder / "evaluation/TriSYSUMM01" for folder in (out / "eval", trained))
    assert same(*(torch.load(folder / "parts.pt", weights_only=True) for folder in (both, alone)))
    with np.load(both / "rankings.npz") as shared, np.load(alone / "rankings.npz") as single:
        assert shared.files == single.files
        assert all(np.array_equal(shared[key], single[key], equal_nan=shared[key].dtype.kind == "f") for key in shared.files)


def test_the_ranks_share_the_batch_of_one_process(tiny, ranks):
    with tiny.environment():
        cfg = two_processes.config(tiny.config, tiny.folder)
        alone = next(iter(build_train_loader(cfg, True, cfg.SEED)))
    both = joined([rank["stage2"]["batch"] for rank in ranks])
    assert both["rgb_path"] == alone["rgb_path"] and both["ir_path"] == alone["ir_path"]
    assert all(torch.equal(both[key], alone[key]) for key, value in alone.items() if isinstance(value, torch.Tensor))
    shares = [set(rank["stage2"]["batch"]["targets"].tolist()) for rank in ranks]
    assert not shares[0] & shares[1], "each rank has whole identities"


def test_a_step_is_the_average_of_the_half_batches_and_ranks_stay_equal(tiny, ranks):
    halves = []
    for rank in ranks:
        model = model_of(tiny, tiny.config, ranks[0]["stage2"]["before"])
        halves.append(gradients(model, rank["stage2"]["batch"]))
    average = {name: (halves[0][name] + halves[1][name]) / 2 for name in halves[0]}
    for rank in ranks:
        close(rank["stage2"]["grads"], average)
    trained = [{n: v for n, v in rank["stage2"]["after"].items() if n in average} for rank in ranks]
    assert same(*trained) and not same(trained[0], {n: ranks[0]["stage2"]["before"][n] for n in average})


def test_gathered_losses_and_synchronised_bn_equal_the_full_batch(tiny, ranks):
    model = model_of(tiny, tiny.stage1, ranks[0]["gathered"]["before"], *two_processes.SYNC)
    full = gradients(model, joined([rank["gathered"]["batch"] for rank in ranks]))
    for rank in ranks:
        close(rank["gathered"]["grads"], full)
    assert same(ranks[0]["gathered"]["after"], ranks[1]["gathered"]["after"]), "weights and statistics"


def test_both_stages_in_one_command(tiny, out, ranks):
    folder = out / "train"
    assert ranks[1]["training"] is None and "all/ensemble/R-1" in ranks[0]["training"]
    assert len(weights(folder / "model_final.pth")) > len(weights(folder / "stage1" / "model_final.pth")) > 0
    assert (folder / "log.txt.rank1").exists()
    # In training every process keeps BN statistics of its own; what is evaluated must be what is saved.
    for config, run in ((tiny.stage1, folder / "stage1"), (tiny.config, folder)):
        name = f"two/evaluated-{config.stem}"
        alone = tiny(name, "--eval-only", "MODEL.WEIGHTS", run / "model_final.pth", "TEST.DRAWS", 1, config=config)
        last = rows(run)[-1]
        assert {key: last[key] for key in alone} == alone
        parts = [torch.load(at / "evaluation/TriSYSUMM01/parts.pt", weights_only=True) for at in (run, tiny.folder / name)]
        assert same(*parts)


def test_the_epoch_is_chosen_once_for_all_processes(tiny, out, ranks):
    folder = out / "chosen"
    scores = read_scores(str(folder))
    best = torch.load(folder / "model_best.pth", weights_only=True)
    assert list(scores) == ["0", "1"] and best["epoch"] == int(max(scores, key=scores.get))
    assert ranks[1]["chosen"] is None
    # The reported result is that of the chosen weights, whichever process had which.
    alone = tiny("two/rechecked", "--eval-only", "MODEL.WEIGHTS", folder / "model_best.pth", config=tiny.stage1)
    reported = {key: ranks[0]["chosen"][key] for key in alone}
    assert reported == alone
