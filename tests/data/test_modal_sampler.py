import hashlib
import itertools
import json
import pickle
import random
from collections import Counter

import golden_inputs_mip as inputs
import numpy as np
import pytest

from tvilfm_plugin.data.samplers.modal import ModalPairSampler, draw_epoch

GOLDEN = inputs.golden("sampler.json")


def epochs(name: str) -> tuple[list[list[int]], list[int], random.Random, np.random.RandomState]:
    """Two epochs as index lists, their numbers of batches, and the generators after them."""
    case = inputs.SAMPLER_CASES[name]
    pids, visible = inputs.sampler_labels(case.labels)
    python, numpy = random.Random(case.seed), np.random.RandomState(case.seed)
    drawn = [
        draw_epoch(
            pids, visible, case.batch_size // case.images, case.images // 2, "released" if case.regdb else "none", python, numpy
        )
        for _ in range(2)
    ]
    return [[i for b in epoch for i in (*b.ir, *b.visible)] for epoch in drawn], [len(e) for e in drawn], python, numpy


@pytest.mark.parametrize("name", [name for name, case in GOLDEN.items() if "sha256" in case])
def test_index_lists(name: str) -> None:
    expected = GOLDEN[name]
    indices, batches, python, numpy = epochs(name)
    assert batches == expected["batches"]
    hashes = [hashlib.sha256(json.dumps(e, separators=(",", ":")).encode()).hexdigest() for e in indices]
    assert hashes == expected["sha256"]
    for key in ("epoch0", "epoch1"):
        if key in expected:
            assert indices[int(key[-1])] == expected[key]
    if "first_batch" in expected:
        assert indices[0][: len(expected["first_batch"])] == expected["first_batch"]
        assert indices[0][-len(expected["last_batch"]) :] == expected["last_batch"]
    assert python.random() == expected["random_after"]
    assert numpy.random_sample() == expected["np_random_after"]


def test_regdb_has_76_or_77_batches() -> None:
    pids, visible = inputs.sampler_labels("regdb")
    drawn = [
        len(draw_epoch(pids, visible, 8, 4, padding, random.Random(s), np.random.RandomState(s)))
        for s in range(10)
        for padding in ("released", "even")
    ]
    # Ten images lack two to a multiple of four: both rules add the same.
    assert drawn[::2] == drawn[1::2] == GOLDEN["regdb_batches_seeds_0_to_9"]


@pytest.mark.parametrize("name", inputs.SAMPLER_CASES)
def test_structure(name: str) -> None:
    """P identities, each once, infrared first, then visible in the same order; also for an identity with few images."""
    case = inputs.SAMPLER_CASES[name]
    pids, visible = inputs.sampler_labels(case.labels)
    half = case.images // 2
    for indices in epochs(name)[0]:
        for start in range(0, len(indices), case.batch_size):
            batch = indices[start : start + case.batch_size]
            assert len(batch) == case.batch_size
            order = [pids[i] for i in batch]
            infrared, rest = order[: len(order) // 2], order[len(order) // 2 :]
            assert infrared == rest
            assert infrared[::half] == [p for p, _ in itertools.groupby(infrared)]
            assert len(set(infrared)) == len(infrared) // half
            assert [visible[i] for i in batch] == [False] * len(infrared) + [True] * len(rest)


def test_padding() -> None:
    """Rules differ where nothing is lacking: "released" adds a full group to both, "even" nothing."""
    pids = [0] * 8 + [1] * 8
    visible = ([False] * 4 + [True] * 4) * 2
    count = lambda padding: len(draw_epoch(pids, visible, 1, 4, padding, random.Random(0), np.random.RandomState(0)))
    assert (count("none"), count("even"), count("released")) == (2, 2, 4)
    lists = [0] * 15
    kinds = [False] * 5 + [True] * 10
    counts = [
        len(draw_epoch(lists, kinds, 1, 4, p, random.Random(0), np.random.RandomState(0))) for p in ("none", "even", "released")
    ]
    assert counts == [2, 3, 3]
    with pytest.raises(ValueError, match="none, even, released"):
        draw_epoch(pids, visible, 1, 4, "some", random.Random(0), np.random.RandomState(0))


def test_few_images_and_one_kind_only() -> None:
    """An identity with one image of each kind gives a group; one without infrared images is left out."""
    drawn = draw_epoch([5, 5, 6], [True, False, True], 1, 4, "none", random.Random(0), np.random.RandomState(0))
    assert [(b.ir, b.visible) for b in drawn] == [([1] * 4, [0] * 4)]


def labels() -> tuple[list[int], list[int]]:
    rs = np.random.RandomState(0)
    return rs.permutation(np.repeat(np.arange(9), 8)).tolist(), rs.permutation(np.repeat(np.arange(9), 5)).tolist()


def take(sampler: ModalPairSampler, count: int) -> list:
    return list(itertools.islice(iter(sampler), count))


def test_pairs_show_one_person_and_indices_are_of_their_own_list() -> None:
    rgb, ir = labels()
    sampler = ModalPairSampler(rgb, ir, batch_size=12, num_instances=3, seed=1)
    pairs = take(sampler, 12 * sampler.batches_per_epoch)
    assert all(rgb[p.rgb] == ir[p.ir] for p in pairs)
    for start in range(0, len(pairs), 12):
        assert sorted(Counter(rgb[p.rgb] for p in pairs[start : start + 12]).values()) == [3] * 4
    # An epoch reaches almost everything (what does not fill a group or a batch is left for the next).
    assert len({p.rgb for p in pairs}) > 0.6 * len(rgb)
    assert len({p.seed for p in pairs}) == len(pairs)


def test_any_position_is_reached_at_once() -> None:
    rgb, ir = labels()
    make = lambda start, seed=3: ModalPairSampler(rgb, ir, batch_size=12, num_instances=3, seed=seed, start=start)
    everything = take(make(0), 500)
    for start in (1, 12, 100, 499):
        assert take(make(start), 500 - start) == everything[start:]
    assert take(make(0, 4), 12) != everything[:12]
    sampler = pickle.loads(pickle.dumps(make(36)))
    assert take(sampler, 12) == everything[36:48]


def test_ranks_share_whole_identities_of_one_batch() -> None:
    rgb, ir = labels()
    whole = take(ModalPairSampler(rgb, ir, batch_size=12, num_instances=3, seed=5), 120)
    ranks = [take(ModalPairSampler(rgb, ir, batch_size=12, num_instances=3, seed=5, rank=r, world_size=2), 60) for r in (0, 1)]
    joined = [p for b in range(10) for r in (0, 1) for p in ranks[r][6 * b : 6 * b + 6]]
    assert joined == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 10, "num_instances": 4}, "multiple of DATALOADER.NUM_INSTANCE"),
        ({"batch_size": 12, "num_instances": 4, "world_size": 2}, "2 processes cannot share a batch"),
        ({"batch_size": 40, "num_instances": 4}, "needs 10 identities"),
        ({"batch_size": 8, "num_instances": 4, "rank": 2}, "Rank 2 does not exist"),
        ({"batch_size": 8, "num_instances": 4, "seed": -1}, "cannot be negative"),
        ({"batch_size": 8, "num_instances": 4, "padding": "x"}, "MODAL_PADDING"),
    ],
)
def test_errors(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModalPairSampler(*labels(), **arguments)
