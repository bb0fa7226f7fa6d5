"""A trainer whose weights do not move stops after its first step, and says why."""

import copy

import pytest
import torch
from torch import nn

pytest.importorskip("fastreid")

from fastreid.engine import train_loop
from fastreid.utils import events


class Trainer(train_loop.TrainerBase):
    """A loop of one's own: a linear model, and whatever a test does in a step."""

    def __init__(self, step, lr=0.1, parameters=None):
        super().__init__()
        self.model = nn.Linear(3, 2)
        self.optimizer = torch.optim.SGD(parameters or self.model.parameters(), lr)
        self.step = step

    def run_step(self):
        self.step(self)


def plain(trainer):
    trainer.optimizer.zero_grad()
    trainer.model(torch.ones(4, 3)).square().sum().backward()
    trainer.optimizer.step()


def run(trainer, iterations=3):
    with events.EventStorage():
        trainer.train(0, 1, iterations)


def test_training_goes_on():
    trainer = Trainer(plain)
    run(trainer)
    assert trainer._first_step is None
    assert not trainer.optimizer._optimizer_step_post_hooks, "nothing is watched any longer"


def test_gradients_that_never_arrive():
    def dropped(trainer):
        trainer.model(torch.ones(4, 3)).square().sum().backward()
        trainer.optimizer.zero_grad()
        trainer.optimizer.step()

    with pytest.raises(RuntimeError, match="moved none of 2 trainable tensors: no gradient reached"):
        run(Trainer(dropped))


def test_an_optimizer_of_another_model():
    with pytest.raises(RuntimeError, match="updates none of the model's own tensors"):
        run(Trainer(plain, parameters=list(nn.Linear(3, 2).parameters())))


def test_weights_that_are_put_back():
    def restored(trainer):
        before = copy.deepcopy(trainer.model.state_dict())
        plain(trainer)
        trainer.model.load_state_dict(before)

    with pytest.raises(RuntimeError, match="something restores or replaces"):
        run(Trainer(restored))


def test_no_false_alarms():
    def warming_up(trainer):
        trainer.optimizer.param_groups[0]["lr"] = 0.1 * (trainer.iter > 1)
        plain(trainer)

    def accumulating(trainer):
        trainer.model(torch.ones(4, 3)).square().sum().backward()
        if trainer.iter == 2:
            trainer.optimizer.step()

    def nothing_to_learn_at_first(trainer):
        trainer.optimizer.zero_grad()
        (trainer.model(torch.ones(4, 3)).square().sum() * (trainer.iter > 1)).backward()
        trainer.optimizer.step()

    for step in (warming_up, accumulating, nothing_to_learn_at_first):
        trainer = Trainer(step, lr=0.1)
        run(trainer, 2)
        assert trainer._first_step is not None, "not known yet"
        trainer = Trainer(step, lr=0.1)
        run(trainer, 4)
        assert trainer._first_step is None


def test_a_trainer_without_a_model_is_left_alone():
    class Bare(train_loop.TrainerBase):
        def run_step(self):
            pass

    run(Bare())
