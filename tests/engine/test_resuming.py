"""A checkpoint is resumed as it was stored, or refused in a sentence."""

import pytest
import torch

pytest.importorskip("fastreid")

from fastreid.utils.checkpoint import Checkpointer
from torch.optim.lr_scheduler import LambdaLR

from tvilfm_plugin.data.loaders import TrainLoader
from tvilfm_plugin.engine.resuming import check_optimizer_state, resume_run
from tvilfm_plugin.files.weights import WeightsError

EPOCHS, BATCHES = 4, 5


class Sampler:
    seed = 7


def parts(folder):
    """A run after two of EPOCHS epochs."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    data = TrainLoader(None, Sampler(), 2, 0, torch.device("cpu"), None)
    data.batches = 2 * BATCHES
    scheduler = LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    return Checkpointer(model, str(folder), optimizer=optimizer, lr_sched=scheduler, data=data)


@pytest.fixture
def checkpointer(tmp_path):
    found = parts(tmp_path)
    found.save("model", epoch=1)
    return found


def changed(tmp_path, **values):
    path = tmp_path / "model.pth"
    content = torch.load(path) | values
    torch.save({key: value for key, value in content.items() if value != "absent"}, path)


def test_everything_comes_back(checkpointer, tmp_path):
    changed(tmp_path, grad_scaler="absent", more=[1])
    fresh = parts(tmp_path)
    fresh.checkpointables["data"].batches, fresh.checkpointables["grad_scaler"] = 0, None
    assert resume_run(fresh, EPOCHS, BATCHES) == 2
    assert all(torch.equal(a, b) for a, b in zip(fresh.model.parameters(), checkpointer.model.parameters(), strict=True))
    assert fresh.checkpointables["data"].batches == 10


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": None}, "of epoch None of 4"),
        ({"epoch": "x"}, "of epoch 'x' of 4"),
        ({"epoch": float("nan")}, "of epoch nan of 4"),
        ({"epoch": 1.0}, "of epoch 1.0 of 4"),
        ({"epoch": True}, "of epoch True of 4"),
        ({"epoch": -1}, "of epoch -1 of 4"),
        ({"epoch": EPOCHS}, "of epoch 4 of 4"),
        ({"epoch": 2}, "of epoch 2, of 5 batches each, but 10 were read"),
        ({"epoch": "absent"}, "lacks epoch"),
        ({"optimizer": "absent", "lr_sched": "absent"}, "lacks optimizer, lr_sched"),
        ({"lr_sched": None}, "its lr_sched cannot be read"),
        ({"optimizer": []}, "its optimizer cannot be read"),
        ({"data": {}}, "its data cannot be read .KeyError"),
        ({"data": {"batches": "10", "seed": 1}}, "its data cannot be read .TypeError"),
    ],
)
def test_what_does_not_fit_is_refused(checkpointer, tmp_path, values, message):
    changed(tmp_path, **values)
    with pytest.raises(WeightsError, match=f"model.pth .*{message}"):
        resume_run(checkpointer, EPOCHS, BATCHES)


@pytest.mark.parametrize("name", [b"", b"  ", b".", b"..", b"../model.pth", b"/tmp/model.pth", b"a\0b", b"\xff\xfe\xfd"])
def test_the_last_checkpoint_is_a_name_in_the_folder(checkpointer, tmp_path, name):
    (tmp_path / "last_checkpoint").write_bytes(name)
    with pytest.raises(ValueError, match="last_checkpoint (says .*, which is no file name|is not UTF-)"):
        checkpointer.get_checkpoint_file()
    (tmp_path / "last_checkpoint").write_text("model.pth\n")
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model.pth")


def test_the_state_of_another_optimizer_is_refused():
    def stored(optimizer, size):
        parameter = torch.nn.Parameter(torch.zeros(size))
        one = optimizer([parameter], lr=0.1)
        parameter.grad = torch.ones(size)
        one.step()
        return one

    adam = stored(torch.optim.Adam, 6)
    content = {"optimizer": adam.state_dict()}
    check_optimizer_state(adam, content, "model.pth")
    with pytest.raises(RuntimeError, match=r"lacks .*momentum.*another optimizer than SGD"):
        check_optimizer_state(torch.optim.SGD([torch.nn.Parameter(torch.zeros(6))], lr=0.1), content, "model.pth")
    with pytest.raises(RuntimeError, match=r"exp_avg \(6,\) instead of \(7,\)"):
        check_optimizer_state(torch.optim.Adam([torch.nn.Parameter(torch.zeros(7))], lr=0.1), content, "model.pth")
    two = torch.optim.Adam([torch.nn.Parameter(torch.zeros(6)), torch.nn.Parameter(torch.zeros(6))], lr=0.1)
    with pytest.raises(RuntimeError, match="numbers of them"):
        check_optimizer_state(two, content, "model.pth")
