"""Training on stored features, against the same views computed in the step."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles_data import token_table
from oracles_modeling import small_model, write_tower
from PIL import Image

from tvilfm_plugin.data.augment.caj import CropFlip, TrainAugmentation, View
from tvilfm_plugin.data.image_cache import ImageCache
from tvilfm_plugin.data.items import Item
from tvilfm_plugin.data.paired import PairedDataset, collate_pairs
from tvilfm_plugin.data.samplers.pairs import Pair
from tvilfm_plugin.modeling import stored_views
from tvilfm_plugin.modeling.stored_views import fill_banks

START, END = 49406, 49407
PAIRS = [Pair(n % 6, (n * 5) % 6 // 2 * 2 + n % 2, seed=n) for n in range(8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """12 images."""
    folder = tmp_path_factory.mktemp("views")
    for n, pixels in enumerate(np.random.RandomState(0).randint(0, 256, (12, 48, 24, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / f"{n}.png")
    return folder


def dataset(folder, views=3, **changes):
    paths = [str(folder / f"{n}.png") for n in range(12)]
    tokens = [(torch.tensor([START, 300 + n, 5, END] + [0] * 73), None) for n in range(6)]
    arguments = {
        "rgb_images": ImageCache(paths[:6], (48, 24), folder / "cache"),
        "ir_images": ImageCache(paths[6:], (48, 24), folder / "cache"),
        "rgb_items": [Item(path, n % 2, 1) for n, path in enumerate(paths[:6])],
        "ir_items": [Item(path, n % 2, 3) for n, path in enumerate(paths[6:])],
        "rgb_tokens": token_table(tokens),
        "ir_tokens": token_table(tokens[::-1]),
        "augmentation": TrainAugmentation.caj(pad=4),
        "rephrase_prob": 0.5,
        "batches_per_epoch": 1,
        "batch_size": 8,
        "views": views,
    }
    return PairedDataset(**(arguments | changes))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model("TVILFM", write_tower(tmp_path_factory.mktemp("tower"))).train()


def pairs(data):
    found = [Pair(p.rgb, next(i for i in range(6) if data.ir_items[i].pid == data.rgb_items[p.rgb].pid), p.seed) for p in PAIRS]
    return found


def step(model, batch):
    model = copy.deepcopy(model)
    losses = model(batch)
    sum(losses.values()).backward()
    return losses, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 5e-3)])
def test_a_step_on_the_bank_equals_the_step_on_the_same_views(folder, model, tmp_path, dtype, tolerance):
    data = dataset(folder)
    online = collate_pairs([data[pair] for pair in pairs(data)])
    data.banks = fill_banks(model.visual, data, tmp_path, dtype, 1.0)
    assert data.banks[0].shape == (6, 6, 32) and data.banks[1].shape == (6, 3, 32)
    assert model.training and not model.visual.training
    stored = collate_pairs([data[pair] for pair in pairs(data)])
    assert "rgb" in online and "rgb" not in stored and stored["ir_features"].dtype == torch.float32
    (one, of_one), (other, of_other) = step(model, online), step(model, stored)
    for name, loss in one.items():
        assert other[name].item() == pytest.approx(loss.item(), rel=tolerance)
    assert of_one.keys() == of_other.keys()
    apart = sum(float((of_one[n] - of_other[n]).square().sum()) for n in of_one) ** 0.5
    assert apart <= tolerance * 10 * sum(float(g.square().sum()) for g in of_one.values()) ** 0.5


def test_all_views_occur_and_what_else_is_random_stays(folder):
    new, fixed = dataset(folder, views=0), dataset(folder, views=3)
    pair = pairs(new)[0]
    seen = {fixed[pair._replace(seed=seed)]["rgb_aug"].numpy().tobytes() for seed in range(40)}
    assert len(seen) == 3 and len({new[pair._replace(seed=seed)]["rgb_aug"].numpy().tobytes() for seed in range(40)}) > 30
    for seed in range(5):
        one, other = (data[pair._replace(seed=seed)] for data in (new, fixed))
        assert torch.equal(one["rgb_tokens"], other["rgb_tokens"]) and one["targets"] == other["targets"]


def test_runs_share_a_bank_until_anything_that_counts_changes(folder, model, tmp_path):
    def files(data=None, dtype="float32", visual=model.visual):
        return {bank.path.name for bank in fill_banks(visual, data or dataset(folder), tmp_path, dtype, 1.0)}

    first = files()
    assert files() == first and files(dataset(folder, rephrase_prob=0.0)) == first
    other = copy.deepcopy(model.visual)
    other.pixel_mean += 1
    weights, statistics = copy.deepcopy(model.visual), copy.deepcopy(model.visual)
    next(weights.parameters()).data.mul_(1.1)
    next(b for n, b in statistics.named_buffers() if n.endswith("running_var")).mul_(1.1)
    augmentation = TrainAugmentation.caj(pad=4)
    changed = [
        files(visual=other),
        files(visual=weights),
        files(visual=statistics),
        files(dtype="float16"),
        files(dataset(folder, views=2)),
        files(dataset(folder, augmentation=TrainAugmentation.caj(pad=5))),
        files(dataset(folder, augmentation=TrainAugmentation.caj(pad=4, exchange_prob=0.9)))
        - files(dataset(folder, augmentation=replace(augmentation, ir=augmentation.rgb))),
    ]
    for some in changed:
        assert some and not some & first


def test_the_description_of_an_augmentation_is_the_same_in_every_process():
    described = stored_views._described(TrainAugmentation.caj())
    assert "0x" not in described and "draw_exchange()[('prob', 0.5)]" in described and "pad" not in described
    assert described != stored_views._described(replace(TrainAugmentation.caj(), ir=View(CropFlip(0, 0.0))))
    assert stored_views._described(CropFlip(3)) == "CropFlip(3, 0.5, 0.0)"


def test_what_cannot_be_filled_is_refused(folder, model, tmp_path):
    with pytest.raises(ValueError, match=r"3 stored views of 12 images take 0.00 GB of float32, more than TVILFM.BANK.MAX_GB"):
        fill_banks(model.visual, dataset(folder), tmp_path, "float32", 1e-9)
    with pytest.raises(TypeError, match="images of an ImageCache"):
        fill_banks(model.visual, dataset(folder, rgb_images=[np.zeros((48, 24, 3), np.uint8)] * 6), tmp_path, "float32", 1.0)
    assert not list(tmp_path.iterdir())


def test_a_visual_part_that_trains_refuses_stored_features(folder, tmp_path):
    model = small_model("TVILFM", write_tower(tmp_path), "TVILFM.FROM_SCRATCH", True).train()
    data = dataset(folder)
    data.banks = fill_banks(model.visual, data, tmp_path, "float32", 1.0)
    with pytest.raises(ValueError, match="the visual part trains: set TVILFM.BANK.VIEWS 0"):
        model(collate_pairs([data[pair] for pair in pairs(data)]))
