import math
import random

import numpy as np
import pytest
import torch

from tvilfm_plugin.data.augment.caj import CropFlip
from tvilfm_plugin.data.augment.modal import ModalAugmentation, blur, draw_noise_box, erase_and_gray, jitter


def picture(height: int = 40, width: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 3.0])
def test_blur_equals_torchvision(sigma: float) -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    planes = picture().transpose(2, 0, 1)
    expected = functional.gaussian_blur(torch.from_numpy(planes.copy()), [21, 21], [sigma, sigma]).numpy()
    # Two passes round differently from one by at most one grey level.
    assert np.abs(blur(planes, sigma).astype(int) - expected.astype(int)).max() <= 1


def test_blur_of_an_image_smaller_than_the_kernel() -> None:
    planes = picture(6, 4).transpose(2, 0, 1)
    assert blur(planes, 2.0).shape == planes.shape
    flat = np.full((3, 6, 4), 77, np.uint8)
    assert np.array_equal(blur(flat, 2.0), flat)


def test_jitter_equals_torchvision() -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    from PIL import Image

    image = picture()
    seen = set()
    for seed in range(8):
        rng = random.Random(seed)
        order = ["brightness", "contrast"]
        rng.shuffle(order)
        expected = Image.fromarray(image)
        for name in order:
            expected = getattr(functional, f"adjust_{name}")(expected, rng.uniform(0.7, 1.3))
        assert np.array_equal(jitter(image, random.Random(seed), 0.3, 0.3), np.asarray(expected))
        seen.add(order[0])
    assert seen == {"brightness", "contrast"}


def test_noise_boxes() -> None:
    rng = random.Random(0)
    boxes = [draw_noise_box(rng, 256, 128, 0.5) for _ in range(4000)]
    drawn = [box for box in boxes if box.height]
    assert 0.46 < len(drawn) / len(boxes) < 0.54
    area = np.array([box.height * box.width / (256 * 128) for box in drawn])
    assert area.min() > 0.018 and area.max() < 0.34
    aspect = np.array([math.log(box.height / box.width) for box in drawn])
    assert aspect.min() > math.log(0.3) - 0.1 and aspect.max() < -math.log(0.3) + 0.1
    for box in drawn:
        assert 0 <= box.top <= 256 - box.height and 0 <= box.left <= 128 - box.width
    assert draw_noise_box(rng, 256, 128, 0.0).height == 0
    assert draw_noise_box(rng, 1, 1, 1.0).height == 0


def test_erase_then_gray() -> None:
    """Row by row: noise only in the box, then luminance of what stands there, and the argument stays as it is."""
    images = torch.rand(4, 3, 12, 8) * 2 - 1
    kept = images.clone()
    ops = torch.tensor([[0, 0, 0, 0, 0], [2, 1, 5, 4, 0], [0, 0, 0, 0, 1], [3, 2, 6, 3, 1]])
    torch.manual_seed(1)
    found = erase_and_gray(images, ops)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(images, kept)
    for image, draw, out, n in zip(images, ops.tolist(), found, noise, strict=True):
        expected = image.clone()
        top, left, height, width, gray = draw
        expected[:, top : top + height, left : left + width] = n[:, top : top + height, left : left + width]
        if gray:
            expected = (0.2989 * expected[0] + 0.587 * expected[1] + 0.114 * expected[2]).expand(3, -1, -1)
        assert torch.allclose(out, expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"ops \(N, 5\)"):
        erase_and_gray(images, ops[:2])


def test_noise_is_standard_normal_in_each_channel() -> None:
    torch.manual_seed(0)
    found = erase_and_gray(torch.zeros(2, 3, 64, 64), torch.tensor([[0, 0, 64, 64, 0]] * 2))
    assert found.mean().abs() < 0.03 and abs(found.std() - 1) < 0.03
    assert (found[:, 0] != found[:, 1]).any() and (found[0] != found[1]).any()


def test_augmentation_is_a_function_of_its_seed() -> None:
    augment = ModalAugmentation()
    image = picture()
    kept = image.copy()
    first, again = augment(image, random.Random(3)), augment(image, random.Random(3))
    assert np.array_equal(first[0], again[0]) and first[1] == again[1]
    assert first[0].shape == (3, 40, 24) and first[0].dtype == np.uint8 and first[0].flags.writeable and len(first[1]) == 5
    assert np.array_equal(image, kept)
    assert any(not np.array_equal(first[0], augment(image, random.Random(s))[0]) for s in range(3))


def test_every_image_is_jittered_or_blurred() -> None:
    plain = ModalAugmentation(crop=CropFlip(pad=0, flip_prob=0), erase_prob=0, gray_prob=0)
    image = picture()
    kinds = {"blur": 0, "jitter": 0}
    for seed in range(60):
        planes, draw = plain(image, random.Random(seed))
        assert draw == [0, 0, 0, 0, 0]
        # A blur smooths the noise, a jitter keeps it.
        rough = np.abs(np.diff(planes.astype(int), axis=2)).mean()
        kinds["jitter" if rough > 55 else "blur"] += 1
    assert min(kinds.values()) > 15
