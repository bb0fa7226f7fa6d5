import pickle
import random
from pathlib import Path

import numpy as np
import oracles_data as oracles
import pytest
import torch
from golden_inputs import aug_tensor
from PIL import Image

from tvilfm_plugin.data.augment.caj import (
    NO_BOX,
    ChannelOp,
    CropFlip,
    TrainAugmentation,
    View,
    apply_channel_ops,
    draw_adaptive_gray,
    draw_erasing,
    draw_exchange,
    grayscale,
    mirrored,
    shifted,
)

GOLDEN = np.load(Path(__file__).parents[1] / "goldens" / "augment.npz")
# The goldens are twelve calls in a row on one generator with this seed.
GOLDEN_SEED = 7
DRAWS = {
    "erase0.6": lambda rng: [*draw_erasing(rng, 32, 16, 0.6), ChannelOp.KEEP],
    "erase0.5": lambda rng: [*draw_erasing(rng, 32, 16, 0.5), ChannelOp.KEEP],
    "exchange2": lambda rng: [*NO_BOX, draw_exchange(rng, 0.5)],
    "adapgray0.6": lambda rng: [*NO_BOX, draw_adaptive_gray(rng, 0.6)],
}
TWINS = {
    "erase0.6": lambda image, rng: oracles.erase(image, rng, 0.6),
    "erase0.5": lambda image, rng: oracles.erase(image, rng, 0.5),
    "exchange2": lambda image, rng: oracles.exchange(image, rng, 0.5),
    "adapgray0.6": lambda image, rng: oracles.adaptive_gray(image, rng, 0.6),
}


@pytest.mark.parametrize("name", DRAWS)
def test_goldens(name):
    rng = random.Random(GOLDEN_SEED)
    images = torch.from_numpy(np.stack([aug_tensor(k) for k in range(12)]))
    ops = torch.tensor([[int(x) for x in DRAWS[name](rng)] for _ in range(12)])
    assert rng.random() == GOLDEN[f"{name}/random_after"]
    assert torch.equal(apply_channel_ops(images, ops), torch.from_numpy(GOLDEN[name]))


@pytest.mark.parametrize("name", TWINS)
def test_the_slow_twins_give_the_goldens(name):
    rng = random.Random(GOLDEN_SEED)
    images = [TWINS[name](torch.from_numpy(aug_tensor(k)), rng) for k in range(12)]
    assert rng.random() == GOLDEN[f"{name}/random_after"]
    assert torch.equal(torch.stack(images), torch.from_numpy(GOLDEN[name]))


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("seed", range(5))
def test_draws_and_application_equal_the_slow_twin(name, seed):
    fast, slow = random.Random(seed), random.Random(seed)
    images = torch.randn(40, 3, 32, 16, generator=torch.Generator().manual_seed(seed))
    ops = torch.tensor([[int(x) for x in DRAWS[name](fast)] for _ in images])
    expected = torch.stack([TWINS[name](image, slow) for image in images])
    assert torch.equal(apply_channel_ops(images, ops), expected)
    assert fast.random() == slow.random()


def test_erasing_and_channel_operation_of_one_image_happen_in_this_order():
    rng = np.random.RandomState(0)
    images = torch.randn(60, 3, 20, 12, generator=torch.Generator().manual_seed(0))
    ops = np.stack([rng.randint(0, 20, 60), rng.randint(0, 12, 60), rng.randint(0, 15, 60), rng.randint(0, 9, 60)], 1)
    ops = torch.from_numpy(np.column_stack([ops, np.arange(60) % 5]))
    before = images.clone()
    result = apply_channel_ops(images, ops)
    assert torch.equal(images, before), "the input is left alone"
    assert torch.equal(result, torch.stack([oracles.apply_one(*each) for each in zip(images, ops.tolist(), strict=True)]))
    assert torch.equal(apply_channel_ops(images, torch.nn.functional.pad(ops, (0, 2))), result), "further columns"


def test_application_keeps_layout_independent_and_dtype():
    images = torch.randn(4, 3, 8, 6).to(memory_format=torch.channels_last)
    ops = torch.tensor([[1, 1, 3, 3, op] for op in range(1, 5)])
    assert torch.equal(apply_channel_ops(images, ops), apply_channel_ops(images.contiguous(), ops))
    assert apply_channel_ops(images.half(), ops).dtype == torch.float16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(apply_channel_ops(images, ops), apply_channel_ops(images.contiguous(), ops))


def test_other_channels_cannot_leak():
    images = torch.ones(3, 3, 4, 4)
    images[0, 1:] = float("nan")
    ops = torch.tensor([[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    assert torch.equal(apply_channel_ops(images, ops), torch.ones(3, 3, 4, 4))


def test_no_step_looks_at_a_value():
    """On the meta device there are none: whatever waited for the device to read one would fail here."""
    ops = torch.zeros(2, 5, dtype=torch.int64, device="meta")
    assert apply_channel_ops(torch.empty(2, 3, 8, 4, device="meta"), ops).shape == (2, 3, 8, 4)


def test_no_images():
    assert apply_channel_ops(torch.empty(0, 3, 8, 4), torch.empty(0, 5, dtype=torch.int64)).shape == (0, 3, 8, 4)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(2, 3, 8, 4\).*\(1, 5\)"):
        apply_channel_ops(torch.zeros(2, 3, 8, 4), torch.zeros(1, 5, dtype=torch.int64))


def test_erased_boxes_lie_strictly_inside():
    rng = random.Random(0)
    boxes = [draw_erasing(rng, 288, 144, 1.0) for _ in range(2000)]
    assert all(0 <= b.top <= 288 - b.height and 0 <= b.left <= 144 - b.width for b in boxes)
    assert all(b.height < 288 and b.width < 144 for b in boxes)
    shares = np.array([b.height * b.width / (288 * 144) for b in boxes])
    assert 0.019 < shares.min() < 0.03 and 0.37 < shares.max() < 0.41


def test_a_box_that_never_fits_erases_nothing():
    rng = random.Random(0)
    assert draw_erasing(rng, 100, 1, 1.0) == NO_BOX


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("shape", [(40, 24, 3), (31, 17, 3), (8, 6, 3)])
def test_crop_flip_equals_the_image_library(shape, flip, gray):
    image = np.random.RandomState(1).randint(0, 256, shape, np.uint8)
    crop = CropFlip(pad=10, flip_prob=float(flip), gray_prob=float(gray))
    for seed in range(30):
        rng = random.Random(seed)
        down, right = rng.randint(-10, 10), rng.randint(-10, 10)
        expected = oracles.crop_flip(image, 10, 10 - down, 10 - right, flip, gray)
        for memory in (image, np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0)):
            result = crop(memory, random.Random(seed))
            assert result.flags.c_contiguous and result.flags.owndata
            np.testing.assert_array_equal(result, expected.transpose(2, 0, 1))
            block = np.full_like(result, 77)
            assert crop(memory, random.Random(seed), block) is block
            np.testing.assert_array_equal(block, result)


def test_crop_positions_and_flips_are_uniform():
    image = np.zeros((40, 24, 3), np.uint8)
    image[20, 11] = 255
    rng = random.Random(3)
    spots = [tuple(np.argwhere(CropFlip()(image, rng)[0])[0]) for _ in range(4000)]
    rows, columns = np.array(spots).T
    assert set(rows) == set(range(10, 31))
    # Pixel 11 of 24 becomes 12 in the mirror: shifts by -10..10 of either.
    assert set(columns) == set(range(1, 23))
    assert np.bincount(rows - 10).min() > 120


def test_padding_is_black():
    white = np.full((32, 16, 3), 255, np.uint8)
    for seed in range(20):
        rng = random.Random(seed)
        down, right = rng.randint(-10, 10), rng.randint(-10, 10)
        result = CropFlip(flip_prob=0.0)(white, random.Random(seed))
        assert (result == 255).sum() == 3 * (32 - abs(down)) * (16 - abs(right))
        assert set(np.unique(result)) <= {0, 255}


def test_shift_beyond_the_image_is_all_black():
    for down, right in ((5, -9), (-5, 1), (1, 9), (-4, -4), (4, 0)):
        assert not shifted(np.ones((3, 4, 4), np.uint8), down, right).any()


@pytest.mark.parametrize("width", [1, 8, 13, 144])
def test_mirror(width):
    planes = np.random.RandomState(0).randint(0, 256, (3, 5, width), np.uint8)
    np.testing.assert_array_equal(mirrored(planes), planes[:, :, ::-1])


def test_grayscale_equals_the_image_library():
    colours = np.random.RandomState(0).randint(0, 256, (100, 100, 3), np.uint8)
    colours[0, 0], colours[0, 1] = 0, 255
    expected = np.asarray(Image.fromarray(colours).convert("L"))
    np.testing.assert_array_equal(grayscale(colours.transpose(2, 0, 1)), expected)


def test_the_recipe():
    """Frequencies of the documented recipe; every band is at least 4 standard deviations wide."""
    recipe, rng, n = TrainAugmentation.caj(), random.Random(5), 4000
    image = np.random.RandomState(0).randint(0, 256, (32, 16, 3), np.uint8)
    counts = {}
    for name in ("rgb", "rgb_aug", "ir"):
        results = [getattr(recipe, name)(image, rng) for _ in range(n)]
        ops = np.array([draw for _, draw in results])
        gray = np.mean([bool((planes[0] == planes[1]).all() and (planes[1] == planes[2]).all()) for planes, _ in results])
        counts[name] = gray, np.mean(ops[:, 2] > 0), np.bincount(ops[:, 4], minlength=5) / n
    near = lambda value, wanted: np.allclose(value, wanted, atol=0.033)
    assert near(counts["rgb"][0], 0.1) and near(counts["rgb"][1], 0.6) and near(counts["rgb"][2], [1, 0, 0, 0, 0])
    assert counts["rgb_aug"][0] == 0 and near(counts["rgb_aug"][1], 0.6)
    assert near(counts["rgb_aug"][2], [0.5, 1 / 6, 1 / 6, 1 / 6, 0])
    assert counts["ir"][0] == 0 and near(counts["ir"][1], 0.5)
    assert near(counts["ir"][2], [0.1, 0.25, 0.25, 0.25, 0.15])


def test_no_augmentation_changes_nothing():
    image = np.random.RandomState(0).randint(0, 256, (9, 7, 3), np.uint8)
    planes, draw = View(CropFlip(pad=0, flip_prob=0.0))(image, random.Random(0))
    np.testing.assert_array_equal(planes, image.transpose(2, 0, 1))
    assert draw == [0, 0, 0, 0, 0]


def test_recipes_pickle():
    recipe = pickle.loads(pickle.dumps(TrainAugmentation.caj()))
    image = np.random.RandomState(0).randint(0, 256, (32, 16, 3), np.uint8)
    for seed in range(5):
        one, other = recipe.ir(image, random.Random(seed)), TrainAugmentation.caj().ir(image, random.Random(seed))
        assert one[1] == other[1] and (one[0] == other[0]).all()


def test_library_randomness_is_not_touched():
    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    View(CropFlip(), 0.5)(np.zeros((8, 8, 3), np.uint8), random.Random(0))
    assert random.getstate() == state[0] and np.random.get_state()[1].tolist() == state[1]
    assert torch.equal(torch.get_rng_state(), state[2])
