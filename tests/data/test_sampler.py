import itertools
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import oracles_data as oracles
import pytest
from golden_inputs import sampler_labels

from tvilfm_plugin.data.samplers.pairs import IdentityPairSampler, Pair, draw_batch

GOLDEN = np.load(Path(__file__).parents[1] / "goldens" / "sampler.npz")


def take(sampler, n):
    return list(itertools.islice(sampler, n))


def make(**kwargs):
    rgb, ir = sampler_labels()
    return IdentityPairSampler(rgb, ir, **kwargs)


def test_goldens():
    sampler, rng = make(), np.random.RandomState(1)
    assert sampler.batches_per_epoch * 32 == len(GOLDEN["seed1/epoch0/index1"])
    for epoch in range(2):
        batches = [draw_batch(rng, sampler.rgb_groups, sampler.ir_groups, 8, 4) for _ in range(sampler.batches_per_epoch)]
        np.testing.assert_array_equal(np.concatenate([b[0] for b in batches]), GOLDEN[f"seed1/epoch{epoch}/index1"])
        np.testing.assert_array_equal(np.concatenate([b[1] for b in batches]), GOLDEN[f"seed1/epoch{epoch}/index2"])


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_slow_twin(seed):
    labels = np.random.RandomState(seed)
    rgb = labels.permutation(np.concatenate([np.arange(9) * 3, labels.randint(0, 9, 30) * 3])).tolist()
    ir = labels.permutation(np.concatenate([np.arange(9) * 3, labels.randint(0, 9, 20) * 3])).tolist()
    expected = oracles.pair_batches(rgb, ir, 3, 2, np.random.RandomState(seed))
    sampler, rng = IdentityPairSampler(rgb, ir, 6, 2), np.random.RandomState(seed)
    batches = [draw_batch(rng, sampler.rgb_groups, sampler.ir_groups, 3, 2) for _ in range(sampler.batches_per_epoch)]
    assert np.concatenate([b[0] for b in batches]).tolist() == expected[0]
    assert np.concatenate([b[1] for b in batches]).tolist() == expected[1]


def test_pairs_show_one_person_and_batches_have_p_identities():
    rgb, ir = sampler_labels()
    for batch in (make(seed=3).batch(n) for n in range(20)):
        assert len(batch) == 32 and all(isinstance(pair, Pair) for pair in batch)
        people = [int(rgb[pair.rgb]) for pair in batch]
        assert people == [int(ir[pair.ir]) for pair in batch]
        assert set(Counter(people).values()) == {4} and len(set(people)) == 8
        assert len({pair.seed for pair in batch}) == 32 and all(0 <= pair.seed < 2**63 for pair in batch)


def test_batches_differ_and_the_seed_decides():
    assert make(seed=1).batch(0) == make(seed=1).batch(0)
    assert len({tuple(make(seed=s).batch(n)) for s in range(3) for n in range(5)}) == 15


def test_batches_are_independent_of_each_other():
    """Identities of consecutive batches: every identity in 8/12 of them, in both 4/9 of the time."""
    rgb, _ = sampler_labels()
    people = [{int(rgb[pair.rgb]) for pair in make(seed=9).batch(n)} for n in range(600)]
    both = np.mean([0 in a and 0 in b for a, b in itertools.pairwise(people)])
    assert abs(np.mean([0 in p for p in people]) - 2 / 3) < 0.08 and abs(both - 4 / 9) < 0.1


@pytest.mark.parametrize("start", [1, 31, 32, 33, 64, 1000])
def test_resumes_anywhere(start):
    assert take(make(seed=4, start=start), 70) == take(make(seed=4), start + 70)[start:]


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_ranks_share_a_global_batch_by_identity(world):
    rgb, _ = sampler_labels()
    local = 32 // world
    shares = [take(make(seed=2, rank=rank, world_size=world, start=local), 2 * local) for rank in range(world)]
    for step in range(2):
        parts = [share[step * local : (step + 1) * local] for share in shares]
        assert list(itertools.chain(*parts)) == make(seed=2).batch(step + 1)
        owners = Counter(person for part in parts for person in {int(rgb[pair.rgb]) for pair in part})
        assert set(owners.values()) == {1}


def test_far_positions_cost_nothing():
    assert take(make(start=32 * 10**12 + 5), 3) == make().batch(10**12)[5:8]


def test_iterating_twice_begins_at_start_again():
    sampler = make(start=7)
    assert take(sampler, 5) == take(sampler, 5)


def test_epoch_lengths_of_the_published_sets():
    for (n_rgb, n_ir), batches in {(22258, 11909): 696, (2060, 2060): 65, (16946, 13975): 530}.items():
        assert IdentityPairSampler(np.arange(n_rgb) % 100, np.arange(n_ir) % 100).batches_per_epoch == batches


def test_identities_of_one_kind_only_are_left_out():
    sampler = IdentityPairSampler([0, 0, 1, 2, 3], [0, 1, 3, 7], batch_size=3, num_instances=1)
    assert {p.rgb for n in range(50) for p in sampler.batch(n)} == {0, 1, 2, 4}


def test_pickles():
    assert take(pickle.loads(pickle.dumps(make(seed=5))), 40) == take(make(seed=5), 40)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 30}, "multiple of DATALOADER.NUM_INSTANCE"),
        ({"batch_size": 64}, "needs 16 identities.*there are 12"),
        ({"world_size": 3}, "divides 8"),
        ({"rank": 2, "world_size": 2}, "ranks are 0..1"),
        ({"seed": -1}, "seed -1"),
        ({"num_instances": 0}, "NUM_INSTANCE"),
    ],
)
def test_errors_name_the_remedy(kwargs, message):
    with pytest.raises(ValueError, match=message.replace("..", r"\.\.", 1) if ".." in message else message):
        make(**kwargs)
