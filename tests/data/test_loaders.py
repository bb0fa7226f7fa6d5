"""Training batches that can be continued at any position, and what is said about data that cannot be used."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("fastreid")

from fastreid.utils import comm
from oracles_data import same
from two_processes import config

from tvilfm_plugin.data.loaders import build_eval_loader, build_train_loader


@pytest.fixture
def loader(tiny):
    def build(*overrides, text=True):
        with tiny.environment():
            return build_train_loader(config(tiny.config, tiny.folder, *overrides), text, seed=5)

    return build


def take(loader, count):
    return list(itertools.islice(iter(loader), count))


def test_batches_continue_exactly_where_a_run_stopped(loader):
    whole = take(loader(), 7)
    assert not same(whole[0], whole[1])
    stopped = loader()
    take(stopped, 3)
    state = stopped.state_dict()
    assert state == {"batches": 3, "seed": 5}
    resumed = loader()
    resumed.sampler.seed = 99
    later = iter(resumed)  # the host asks for the iterator before it loads the state
    resumed.load_state_dict(state)
    assert all(same(next(later), batch) for batch in whole[3:])


@pytest.mark.parametrize("rank", [0, 1])
def test_of_two_processes_each_continues_its_own_share_where_it_stopped(loader, monkeypatch, rank):
    alone = take(loader(), 7)
    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    whole = take(loader(), 7)
    for batch, everything in zip(whole, alone, strict=True):
        half = len(everything["rgb_path"]) // 2
        assert batch["rgb_path"] == everything["rgb_path"][rank * half : (rank + 1) * half]
    stopped = loader()
    take(stopped, 3)
    resumed = loader()
    later = iter(resumed)
    resumed.load_state_dict(stopped.state_dict())
    assert all(same(next(later), batch) for batch in whole[3:])


def test_workers_change_nothing(loader):
    stopped = loader("DATALOADER.NUM_WORKERS", 2)
    batches = stopped.__iter__()
    first = [next(batches) for _ in range(3)]
    assert stopped.batches == 3, "what workers have read ahead does not count"
    assert all(same(a, b) for a, b in zip(first, take(loader(), 3), strict=True))


def test_an_epoch_has_the_batches_of_the_larger_modality(loader):
    built = loader()
    assert len(built.dataset) // 8 == built.sampler.batches_per_epoch == int(32 / 8) + 1
    assert built.dataset.num_classes == 4


def test_without_text_there_are_no_tokens_but_the_same_images(loader):
    (bare,), (full,) = take(loader(text=False), 1), take(loader(), 1)
    assert full.keys() - bare.keys() == {"rgb_tokens", "ir_tokens"}
    assert torch.equal(bare["rgb_aug"], full["rgb_aug"])


def test_a_missing_gpu_is_said_and_not_needed(loader, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (batch,) = take(loader("MODEL.DEVICE", "cuda"), 1)
    assert batch["rgb"].device.type == "cpu"


def test_data_that_cannot_be_used(loader, tiny):
    with pytest.raises(ValueError, match="MODEL.HEADS.NUM_CLASSES is 3, but 4 people are trained on; set 0"):
        loader("MODEL.HEADS.NUM_CLASSES", 3)
    with pytest.raises(ValueError, match="IMS_PER_BATCH must be a multiple of DATALOADER.NUM_INSTANCE"):
        loader("DATALOADER.NUM_INSTANCE", 3)
    with pytest.raises(ValueError, match="needs 8 identities.*there are 4"):
        loader("SOLVER.IMS_PER_BATCH", 16)
    captions = tiny.folder / "data" / "SYSU-MM01" / "Text"
    hidden = captions.rename(captions.with_name("Text.away"))
    try:
        loader(text=False)
        with pytest.raises(FileNotFoundError, match="no caption_dict"):
            loader()
    finally:
        hidden.rename(captions)


def test_filters_of_training_and_evaluation(loader, tiny):
    # The images are 48 x 24: that size would not be resampled.
    size = ("INPUT.SIZE_TRAIN", [32, 16], "INPUT.SIZE_TEST", [32, 16])
    options = (*size, "INPUT.RESAMPLE_TRAIN", "bicubic", "INPUT.RESAMPLE_TEST", "bilinear")
    with tiny.environment():
        evaluation = build_eval_loader(config(tiny.config, tiny.folder, *options), "TriSYSUMM01", False).dataset[0]
    train = loader(*options).dataset
    for path, found, resample in (
        (evaluation["img_paths"], evaluation["images"].numpy().transpose(1, 2, 0), Image.Resampling.BILINEAR),
        (train.rgb_items[0].path, train.rgb_images[0], Image.Resampling.BICUBIC),
    ):
        expected = Image.open(path).convert("RGB").resize((16, 32), resample)
        np.testing.assert_array_equal(found, np.asarray(expected))


def test_evaluation_has_every_row_once(tiny):
    with tiny.environment():
        built = build_eval_loader(config(tiny.config, tiny.folder, "TEST.IMS_PER_BATCH", 5), "TriSYSUMM01", False)
    batches = list(built)
    assert len(batches) == len(built)
    rows = torch.cat([batch["row"] for batch in batches])
    assert rows.tolist() == list(range(len(built.data.query) + len(built.data.gallery)))
    assert all(len(set(batch["modality"])) == 1 for batch in batches)
