import pickle

import numpy as np
import pytest
import torch
from oracles_data import same, token_table
from PIL import Image
from torch.utils.data import BatchSampler, DataLoader

from tvilfm_plugin.data.augment.caj import CropFlip, TrainAugmentation, View
from tvilfm_plugin.data.image_cache import ImageCache
from tvilfm_plugin.data.items import Item
from tvilfm_plugin.data.paired import PairedDataset, collate_pairs
from tvilfm_plugin.data.samplers.pairs import IdentityPairSampler, Pair

START, END = 49406, 49407
PLAIN = View(CropFlip(pad=0, flip_prob=0.0))
IMAGES = np.random.RandomState(0).randint(0, 256, (24, 32, 16, 3), np.uint8)


def row(length, value):
    """A caption of `length` ids, all `value`."""
    return torch.tensor([START] + [value] * length + [END] + [0] * (75 - length))


def items(kind, n=12, camid=1):
    return [Item(f"{kind}/{k}.jpg", k % 4, camid + k % 2) for k in range(n)]


def make(text=True, augmentation=None, rephrase_prob=0.5, **changes):
    rgb_tokens = [(row(5 + k, 100 + k), row(3, 200 + k) if k % 3 else None) for k in range(12)]
    ir_tokens = [(row(4, 300 + k), row(2, 400 + k)) for k in range(12)]
    arguments = {
        "rgb_images": list(IMAGES[:12]),
        "ir_images": list(IMAGES[12:]),
        "rgb_items": items("rgb"),
        "ir_items": items("ir", camid=3),
        "rgb_tokens": token_table(rgb_tokens) if text else None,
        "ir_tokens": token_table(ir_tokens) if text else None,
        "augmentation": augmentation or TrainAugmentation.caj(),
        "rephrase_prob": rephrase_prob,
        "batches_per_epoch": 3,
        "batch_size": 8,
    }
    return PairedDataset(**(arguments | changes))


def test_a_sample():
    sample = make(augmentation=TrainAugmentation(PLAIN, PLAIN, PLAIN), rephrase_prob=0)[Pair(5, 9, 1)]
    for key, image in (("rgb", IMAGES[5]), ("rgb_aug", IMAGES[5]), ("ir", IMAGES[12 + 9])):
        assert sample[key].dtype == torch.uint8
        np.testing.assert_array_equal(sample[key].numpy(), image.transpose(2, 0, 1))
        assert sample[f"{key}_ops"].tolist() == [0] * 5 and sample[f"{key}_ops"].dtype == torch.int64
    assert torch.equal(sample["rgb_tokens"], row(10, 105)) and torch.equal(sample["ir_tokens"], row(4, 309))
    assert {k: sample[k] for k in ("targets", "rgb_camids", "ir_camids", "rgb_path", "ir_path")} == {
        "targets": 1, "rgb_camids": 2, "ir_camids": 4, "rgb_path": "rgb/5.jpg", "ir_path": "ir/9.jpg",
    }  # fmt: skip


def test_everything_random_comes_from_the_seed():
    dataset = make()
    assert all(same(dataset[Pair(1, 5, seed)], dataset[Pair(1, 5, seed)]) for seed in range(20))
    distinct = {dataset[Pair(1, 5, seed)]["rgb"].numpy().tobytes() for seed in range(20)}
    assert len(distinct) > 15
    sample = dataset[Pair(1, 5, 2)]
    assert not torch.equal(sample["rgb"], sample["rgb_aug"]), "the two views are cropped separately"


def test_images_do_not_depend_on_the_texts():
    """The same pair looks the same in stage 1 (no text), in stage 2, and whatever the rephrase probability."""
    for seed in range(10):
        with_text, other, without = (
            make(**kwargs)[Pair(1, 5, seed)] for kwargs in ({}, {"rephrase_prob": 1.0}, {"text": False})
        )
        assert "rgb_tokens" not in without and "ir_tokens" not in without
        for key in without:
            assert same({key: with_text[key]}, {key: without[key]}) and same({key: other[key]}, {key: without[key]})


@pytest.mark.parametrize(("prob", "expected"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_rephrases_are_drawn_independently(prob, expected):
    dataset, n = make(rephrase_prob=prob), 1500
    samples = [dataset[Pair(1, 5, seed)] for seed in range(n)]
    rgb = np.array([sample["rgb_tokens"][1] == 201 for sample in samples])
    ir = np.array([sample["ir_tokens"][1] == 405 for sample in samples])
    assert abs(rgb.mean() - expected) < 0.06 and abs(ir.mean() - expected) < 0.06
    assert abs((rgb & ir).mean() - expected**2) < 0.06


def test_without_a_rephrase_the_caption_stays():
    dataset = make(rephrase_prob=1.0)
    assert dataset[Pair(3, 3, 0)]["rgb_tokens"][1] == 103 and dataset[Pair(3, 3, 0)]["ir_tokens"][1] == 403


def test_length_and_classes():
    assert len(make()) == 24 and make().num_classes == 4


def test_collate_stacks_and_trims_to_the_longest_caption():
    dataset = make(rephrase_prob=0)
    samples = [dataset[Pair(k, k, k)] for k in (0, 4, 2, 7)]
    batch = collate_pairs(samples)
    assert batch["rgb"].shape == (4, 3, 32, 16) and batch["rgb"].dtype == torch.uint8
    assert batch["ir_ops"].shape == (4, 5) and batch["targets"].tolist() == [0, 0, 2, 3]
    assert batch["rgb_path"] == ["rgb/0.jpg", "rgb/4.jpg", "rgb/2.jpg", "rgb/7.jpg"]
    # Caption 7 has 12 ids between start and end.
    assert batch["rgb_tokens"].shape == batch["ir_tokens"].shape == (4, 14)
    for n, sample in enumerate(samples):
        assert torch.equal(batch["rgb_tokens"][n], sample["rgb_tokens"][:14])
        assert not sample["rgb_tokens"][14:].any() and not sample["ir_tokens"][14:].any()


def test_collate_trims_at_the_first_end_and_keeps_id_zero():
    base = make(rephrase_prob=0)[Pair(0, 0, 0)]
    early = torch.zeros(77, dtype=torch.int64)
    early[:6] = torch.tensor([START, END, 5, 0, 7, END])
    inner = torch.zeros(77, dtype=torch.int64)
    inner[:4] = torch.tensor([START, 0, 0, END])
    batch = collate_pairs([base | {"rgb_tokens": early, "ir_tokens": inner}] * 2)
    assert batch["rgb_tokens"].tolist() == [[START, END, 5, 0]] * 2
    assert batch["ir_tokens"].tolist() == [[START, 0, 0, END]] * 2


def test_collate_of_full_captions_keeps_all():
    base = make()[Pair(0, 0, 0)]
    batch = collate_pairs([base | {"rgb_tokens": row(75, 9)}])
    assert batch["rgb_tokens"].shape == batch["ir_tokens"].shape == (1, 77)


def test_collate_without_text():
    assert "rgb_tokens" not in collate_pairs([make(text=False)[Pair(0, 0, 0)]])


@pytest.mark.parametrize("changes", [{}, {"text": False}, {"views": 3}])
def test_a_batch_is_its_samples_collated(changes):
    dataset, pairs = make(**changes), [Pair(k, (k + 4) % 12, k) for k in (0, 4, 2, 7)]
    assert same(dataset[pairs], collate_pairs([dataset[pair] for pair in pairs]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rgb_tokens": None}, "give rgb_tokens and ir_tokens"),
        ({"rgb_images": list(IMAGES[:11])}, "visible items.*11"),
        ({"ir_tokens": token_table([(row(1, 7), None)])}, r"infrared items.*captions \(1\)"),
        ({"ir_items": [Item("x", 17, 1)] * 12}, r"numbered 0\.\.4"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_a_pair_of_two_people_is_refused():
    with pytest.raises(ValueError, match="rgb/1.jpg.*ir/2.jpg"):
        make()[Pair(1, 2, 0)]


def batches(dataset, sampler, workers, context=None, n=3):
    loader = DataLoader(
        dataset,
        sampler=BatchSampler(sampler, 8, drop_last=True),
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=context,
    )
    return [batch for batch, _ in zip(loader, range(n), strict=False)]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_what_one_process_gives(tmp_path, context):
    paths = [str(tmp_path / f"{k}.bmp") for k in range(24)]
    for path, image in zip(paths, IMAGES, strict=True):
        Image.fromarray(image).save(path)
    images = ImageCache(paths[:12], (32, 16), tmp_path), ImageCache(paths[12:], (32, 16), tmp_path)
    dataset = make(rgb_images=images[0], ir_images=images[1])
    pids = [item.pid for item in dataset.rgb_items]
    sampler = IdentityPairSampler(pids, pids, batch_size=8, num_instances=2, seed=1)
    one = batches(dataset, sampler, 0)
    for a, b in zip(one, batches(dataset, sampler, 2, context), strict=True):
        assert same(a, b)
    sampler.start = 8
    assert same(batches(dataset, sampler, 0, n=1)[0], one[1])


def test_pickles():
    dataset = make()
    assert same(pickle.loads(pickle.dumps(dataset))[Pair(1, 5, 3)], dataset[Pair(1, 5, 3)])
