import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tvilfm_plugin.data.eval_set import EvalSet, ModalityBatchSampler, collate_rows
from tvilfm_plugin.data.items import Item
from tvilfm_plugin.modality import Modality

IMAGES = np.random.RandomState(0).randint(0, 256, (30, 8, 4, 3), np.uint8)
IMAGES.flags.writeable = False


def make(queries=7, gallery=13, modalities=(Modality.IR, Modality.RGB)):
    return EvalSet(
        list(IMAGES[:queries]),
        list(IMAGES[queries : queries + gallery]),
        [Item(f"q{k}", 10 + k, 3) for k in range(queries)],
        [Item(f"g{k}", 20 + k, 1) for k in range(gallery)],
        *modalities,
    )


def test_rows_are_queries_then_gallery():
    rows = make()
    assert len(rows) == 20 and rows.num_query == 7
    first, later = rows[2], rows[9]
    assert (first["modality"], first["row"], first["targets"], first["camids"], first["img_paths"]) == ("ir", 2, 12, 3, "q2")
    assert (later["modality"], later["row"], later["targets"], later["camids"], later["img_paths"]) == ("rgb", 9, 22, 1, "g2")
    assert type(first["modality"]) is str
    for n in range(20):
        assert rows[n]["images"].dtype == torch.uint8
        np.testing.assert_array_equal(rows[n]["images"].numpy(), IMAGES[n].transpose(2, 0, 1))


def test_images_are_writable_copies():
    rows = make()
    rows[0]["images"].zero_()
    np.testing.assert_array_equal(rows[0]["images"].numpy(), IMAGES[0].transpose(2, 0, 1))


@pytest.mark.parametrize("row", [-1, 20])
def test_rows_outside(row):
    with pytest.raises(IndexError, match=r"rows are 0\.\.19"):
        make()[row]


def test_unequal_lists():
    with pytest.raises(ValueError, match="2 query images for 1 query items"):
        EvalSet(list(IMAGES[:2]), [], [Item("q", 1, 1)], [], Modality.IR, Modality.RGB)


def test_modalities_may_be_given_by_name():
    assert make(modalities=("rgb", "ir"))[0]["modality"] == "rgb"
    with pytest.raises(ValueError, match="thermal"):
        make(modalities=("thermal", "rgb"))


@pytest.mark.parametrize("queries", [0, 1, 7, 16, 20])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
@pytest.mark.parametrize("world", [1, 2, 3, 7, 25])
def test_processes_share_the_batches_of_one_and_each_has_one_modality(queries, batch_size, world):
    rows = make(queries, 20 - queries)
    alone, seen = list(ModalityBatchSampler(rows, batch_size)), []
    for rank in range(world):
        sampler = ModalityBatchSampler(rows, batch_size, rank, world)
        batches = list(sampler)
        assert len(sampler) == len(batches) and batches == list(sampler)
        assert all(1 <= len(batch) <= batch_size for batch in batches)
        assert all(len({row < queries for row in batch}) == 1 for batch in batches)
        assert abs(len(batches) - len(alone) / world) < 1
        seen += batches
    assert seen == alone and [row for batch in seen for row in batch] == list(range(20))


@pytest.mark.parametrize("arguments", [(0, 0, 1), (4, 2, 2), (4, -1, 2)])
def test_sampler_errors(arguments):
    with pytest.raises(ValueError, match=r"IMS_PER_BATCH|ranks are"):
        ModalityBatchSampler(make(), *arguments)


def test_collate():
    rows = make()
    batch = collate_rows([rows[1], rows[0]])
    assert batch["images"].shape == (2, 3, 8, 4) and batch["row"].tolist() == [1, 0]
    assert batch["modality"] == ["ir", "ir"] and batch["img_paths"] == ["q1", "q0"]
    assert batch["targets"].tolist() == [11, 10] and batch["camids"].dtype == torch.int64
    with pytest.raises(ValueError, match="ModalityBatchSampler"):
        collate_rows([rows[0], rows[10]])


@pytest.mark.parametrize("context", [None, "spawn"])
def test_loader(context):
    rows = make()
    loader = DataLoader(
        rows,
        batch_sampler=ModalityBatchSampler(rows, 4),
        collate_fn=collate_rows,
        num_workers=1 if context else 0,
        multiprocessing_context=context,
    )
    batches = list(loader)
    starts_and_sizes = [(int(batch["row"][0]), len(batch["row"])) for batch in batches]
    assert starts_and_sizes == [(0, 4), (4, 3), (7, 4), (11, 4), (15, 4), (19, 1)]
    assert [batch["modality"][0] for batch in batches] == ["ir", "ir", "rgb", "rgb", "rgb", "rgb"]


def test_pickles():
    rows = pickle.loads(pickle.dumps(make()))
    assert torch.equal(rows[8]["images"], make()[8]["images"])
    sampler = pickle.loads(pickle.dumps(ModalityBatchSampler(make(), 4)))
    assert len(sampler) == 6
