"""Erasing and channel operations of the methods against the authors' draws."""

import random
from functools import partial

import golden_inputs_baselines as inputs
import numpy as np
import pytest
import torch

from tvilfm_plugin.data.augment.caj import FILL, apply_channel_ops, draw_adaptive_gray, draw_erasing, draw_exchange

REFERENCE = inputs.golden("augment.npz")
IMAGES = torch.stack([inputs.aug_tensor(call) for call in range(5)])
GREY = (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("name", "area", "fill"),
    [
        ("deen_sysu_erase", (0.2, 0.8), GREY), ("deen_other_erase", (0.02, 0.4), GREY),
        ("caj_erase", (0.02, 0.4), FILL), ("mmn_erase", (0.02, 0.4), (0.0, 0.0, 0.0)),
    ],
)  # fmt: skip
def test_erasing(name, area, fill):
    rng = random.Random(3)
    boxes = [draw_erasing(rng, 24, 12, 0.5, area) for _ in range(5)]
    assert np.array_equal(np.array(boxes), REFERENCE[f"3/{name}/box"])
    erased = apply_channel_ops(IMAGES, torch.tensor([[*box, 0] for box in boxes]), fill)
    assert np.abs(erased.double().sum(dim=(2, 3)).numpy() - REFERENCE[f"3/{name}/out"]).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "draw"),
    [("caj_exchange", partial(draw_exchange, prob=1.0)), ("caj_adaptive_gray", partial(draw_adaptive_gray, gray_prob=0.5))],
)
def test_channels(name, draw):
    rng = random.Random(3)
    mixed = apply_channel_ops(IMAGES, torch.tensor([[0, 0, 0, 0, int(draw(rng))] for _ in range(5)]))
    assert np.abs(mixed.numpy() - REFERENCE[f"3/{name}/out"]).max() < 1e-6
