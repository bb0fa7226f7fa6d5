"""MIP's modal sampler: an epoch uses up every identity's images in groups; a batch has as many infrared as visible ones."""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tvilfm_plugin.data.samplers.pairs import Pair, PairSampler

PADDINGS = ("none", "even", "released")


class ModalBatch(NamedTuple):
    """Indices of one batch: P groups of infrared and of visible images; group n of both shows the same person."""

    ir: list[int]
    visible: list[int]


class _Person(NamedTuple):
    everything: list[int]
    ir: list[int]
    visible: list[int]


def draw_epoch(
    pids: Sequence[int],
    is_visible: Sequence[bool],
    num_identities: int,
    num_instances: int,
    padding: str,
    python: random.Random,
    numpy: np.random.RandomState,
) -> list[ModalBatch]:
    """One epoch of batches.

    An identity's smaller modality is filled up by repetition, both are shuffled and cut into groups of `num_instances`;
    then, while enough identities have groups left, P of them are drawn and each gives one infrared and one visible group.
    Numbers are drawn in the order in which the authors' sampler draws them, some of them for nothing.

    Args:
        pids: identity of each image; identities count in the order in which they appear.
        num_identities: P, identities in a batch.
        num_instances: images of each identity and modality in a batch (half of the authors' K).
        padding: how an identity's lists are lengthened first, so that less is cut off: "none"; "even": each to a multiple
            of `num_instances`; "released": as the authors do on RegDB, where both get what the visible one lacks (a full
            group if it lacks nothing).
        python: shuffles, and draws the identities of a batch.
        numpy: draws the repetitions.
    """
    if padding not in PADDINGS:
        raise ValueError(f"DATALOADER.MODAL_PADDING is {padding!r}; choose one of {', '.join(PADDINGS)}.")
    groups: dict[int, list[tuple[list[int], list[int]]]] = {}
    for pid, person in _people(pids, is_visible).items():
        groups[pid] = _cut(person, num_instances, padding, python, numpy)
    left = [pid for pid, of_person in groups.items() if of_person]
    batches = []
    while len(left) >= num_identities:
        batch = ModalBatch([], [])
        for pid in python.sample(left, num_identities):
            ir, visible = groups[pid].pop(0)
            batch.ir.extend(ir)
            batch.visible.extend(visible)
            if not groups[pid]:
                left.remove(pid)
        batches.append(batch)
    return batches


def _people(pids: Sequence[int], is_visible: Sequence[bool]) -> dict[int, _Person]:
    people: dict[int, _Person] = {}
    for index, (pid, visible) in enumerate(zip(pids, is_visible, strict=True)):
        person = people.setdefault(pid, _Person([], [], []))
        person.everything.append(index)
        (person.visible if visible else person.ir).append(index)
    return {pid: person for pid, person in people.items() if person.ir and person.visible}


def _cut(
    person: _Person, size: int, padding: str, python: random.Random, numpy: np.random.RandomState
) -> list[tuple[list[int], list[int]]]:
    """The groups of one identity: (infrared, visible) pairs of `size` indices each."""
    everything, ir, visible = list(person.everything), list(person.ir), list(person.visible)
    if padding == "none":
        if len(everything) < 2 * size:
            everything = _repeat(everything, 2 * size, numpy)
    else:
        everything = _repeat(everything, 2 * size, numpy)
        if padding == "released":
            more_ir = more_visible = size - len(visible) % size
        else:
            more_ir, more_visible = -len(ir) % size, -len(visible) % size
        ir += _repeat(person.ir, more_ir, numpy)
        visible += _repeat(person.visible, more_visible, numpy)
    # An identity with few images still gives a group (the authors' code stops with an error here).
    target = max(len(ir), len(visible), size)
    ir += _repeat(ir, target - len(ir), numpy)
    visible += _repeat(visible, target - len(visible), numpy)
    for indices in (everything, ir, visible):
        python.shuffle(indices)
    starts = range(0, target - size + 1, size)
    return [(ir[start : start + size], visible[start : start + size]) for start in starts]


def _repeat(indices: Sequence[int], count: int, numpy: np.random.RandomState) -> list[int]:
    return [int(index) for index in numpy.choice(indices, count, replace=True)] if count else []


class ModalPairSampler(PairSampler):
    """Endless pairs of the same person in MIP's batches: pair n of a batch is its n-th infrared and its n-th visible image.

    An epoch of the authors' sampler has a batch more or less, by the draws. Here every epoch has `batches_per_epoch`, the
    length of a fixed draw: a longer one is cut, a shorter one is continued by a second draw. So batch n is a function of
    (seed, n) alone, any position is reached at once, and every process knows the whole batch.

    Attributes:
        batches_per_epoch: batches that count as one epoch.
    """

    def __init__(
        self, rgb_pids: Sequence[int], ir_pids: Sequence[int], *args: int, padding: str = "none", **kwargs: int
    ) -> None:
        """The arguments of `PairSampler`, and `padding` of `draw_epoch`."""
        super().__init__(rgb_pids, ir_pids, *args, **kwargs)
        # Infrared first, as in a batch.
        self._offset = len(ir_pids)
        self._pids = [*map(int, ir_pids), *map(int, rgb_pids)]
        self._visible = [False] * len(ir_pids) + [True] * len(rgb_pids)
        self.padding = padding
        self.batches_per_epoch = len(self._draw(np.random.SeedSequence(0)))

    def _draw(self, seed: np.random.SeedSequence) -> list[ModalBatch]:
        of_python, of_numpy = seed.spawn(2)
        return draw_epoch(
            self._pids,
            self._visible,
            self.num_identities,
            self.num_instances,
            self.padding,
            random.Random(int(of_python.generate_state(1, np.uint64)[0])),
            np.random.RandomState(np.random.MT19937(of_numpy)),
        )

    def epoch(self, number: int) -> list[list[Pair]]:
        """The batches of epoch `number` (0, 1, ...), the same on every rank."""
        batches: list[ModalBatch] = []
        part = 0
        while len(batches) < self.batches_per_epoch:
            batches += self._draw(np.random.SeedSequence((self.seed, number, part)))
            part += 1
        batches = batches[: self.batches_per_epoch]
        rng = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((self.seed, number))))
        seeds = rng.randint(0, 2**63 - 1, size=(len(batches), self.batch_size), dtype=np.int64).tolist()
        return [
            [Pair(rgb - self._offset, ir, s) for rgb, ir, s in zip(batch.visible, batch.ir, row, strict=True)]
            for batch, row in zip(batches, seeds, strict=True)
        ]

    def __iter__(self) -> Iterator[Pair]:
        batch, skip = divmod(self.start, self.local_batch_size)
        number, first = divmod(batch, self.batches_per_epoch)
        mine = self.rank * self.local_batch_size
        while True:
            for pairs in self.epoch(number)[first:]:
                yield from pairs[mine + skip : mine + self.local_batch_size]
                skip = 0
            number, first = number + 1, 0
