"""Which images a training batch holds: P identities, and of each as many visible as infrared images."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class Pair(NamedTuple):
    """A visible and an infrared image of one person, and the seed of everything random about the sample."""

    rgb: int
    ir: int
    seed: int


def draw_batch(
    rng: np.random.RandomState,
    rgb_groups: Mapping[int, np.ndarray],
    ir_groups: Mapping[int, np.ndarray],
    num_identities: int,
    num_instances: int,
) -> tuple[np.ndarray, np.ndarray]:
    """One batch: identities without replacement, images of each with replacement.

    Args:
        rng: the only source of randomness; batches drawn one after the other from one generator are independent.
        rgb_groups, ir_groups: indices of either kind's images of each identity, identities in ascending order.

    Returns:
        visible and infrared indices, each (num_identities * num_instances,); row n of both shows the same person.
    """
    chosen = rng.choice(list(rgb_groups), num_identities, replace=False)
    rgb, ir = [], []
    for pid in chosen.tolist():
        rgb.append(rng.choice(rgb_groups[pid], num_instances))
        ir.append(rng.choice(ir_groups[pid], num_instances))
    return np.concatenate(rgb), np.concatenate(ir)


class PairSampler(Sampler[Pair]):
    """What all samplers of pairs share: P identities, checked sizes, this rank's place and pairs (`local_batch_size`)."""

    def __init__(
        self,
        rgb_pids: Sequence[int],
        ir_pids: Sequence[int],
        batch_size: int = 32,
        num_instances: int = 4,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
    ) -> None:
        """`batch_size` pairs over all ranks, `num_instances` of each person; this rank consumed `start` of them before."""
        if num_instances < 1 or batch_size < 1 or batch_size % num_instances:
            raise ValueError(
                f"A batch of {batch_size} pairs cannot hold {num_instances} pairs of each of its identities: "
                "SOLVER.IMS_PER_BATCH must be a multiple of DATALOADER.NUM_INSTANCE."
            )
        self.num_identities = batch_size // num_instances
        if not 0 <= rank < world_size:
            raise ValueError(f"Rank {rank} does not exist among {world_size} processes; ranks are 0..{world_size - 1}.")
        if self.num_identities % world_size:
            raise ValueError(
                f"{world_size} processes cannot share a batch of {self.num_identities} identities; each takes whole "
                f"ones. Use a number of processes that divides {self.num_identities}, or change SOLVER.IMS_PER_BATCH."
            )
        if seed < 0 or start < 0:
            raise ValueError(f"Seed and start cannot be negative; got seed {seed} and start {start}.")
        rgb, ir = np.unique(np.asarray(rgb_pids, np.int64)), np.unique(np.asarray(ir_pids, np.int64))
        self._shared = np.intersect1d(rgb, ir)
        if len(self._shared) < self.num_identities:
            raise ValueError(
                f"A batch needs {self.num_identities} identities with images of both kinds, and there are "
                f"{len(self._shared)} ({len(rgb)} with visible, {len(ir)} with infrared images). "
                "Lower SOLVER.IMS_PER_BATCH, raise DATALOADER.NUM_INSTANCE, or check the data set."
            )
        self.batch_size = batch_size
        self.num_instances = num_instances
        self.seed, self.rank, self.world_size, self.start = seed, rank, world_size, start
        self.local_batch_size = batch_size // world_size


class IdentityPairSampler(PairSampler):
    """Endless pairs of the same person, in independent batches.

    Batch n is a function of (seed, n) alone, so any position is reached at once and every process knows the whole
    batch; each rank yields its own share of it, whole identities.

    Attributes:
        batches_per_epoch: batches after which as many images were drawn as the larger modality has.
    """

    def __init__(self, rgb_pids: Sequence[int], ir_pids: Sequence[int], *args: int, **kwargs: int) -> None:
        """The arguments of `PairSampler`."""
        super().__init__(rgb_pids, ir_pids, *args, **kwargs)
        self.rgb_groups = _groups(np.asarray(rgb_pids, np.int64), self._shared)
        self.ir_groups = _groups(np.asarray(ir_pids, np.int64), self._shared)
        self.batches_per_epoch = int(max(len(rgb_pids), len(ir_pids)) / self.batch_size) + 1

    def batch(self, number: int) -> list[Pair]:
        """All pairs of global batch `number` (0, 1, ...), the same on every rank."""
        rng = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((self.seed, number))))
        rgb, ir = draw_batch(rng, self.rgb_groups, self.ir_groups, self.num_identities, self.num_instances)
        seeds = rng.randint(0, 2**63 - 1, size=self.batch_size, dtype=np.int64)
        return [Pair(*row) for row in zip(rgb.tolist(), ir.tolist(), seeds.tolist(), strict=True)]

    def __iter__(self) -> Iterator[Pair]:
        number, skip = divmod(self.start, self.local_batch_size)
        first = self.rank * self.local_batch_size
        while True:
            yield from self.batch(number)[first + skip : first + self.local_batch_size]
            number, skip = number + 1, 0


def _groups(pids: np.ndarray, wanted: np.ndarray) -> dict[int, np.ndarray]:
    """{identity: ascending indices of its images}, for the wanted identities in ascending order."""
    order = np.argsort(pids, kind="stable")
    first = np.searchsorted(pids[order], wanted, side="left")
    last = np.searchsorted(pids[order], wanted, side="right")
    return {pid: order[a:b] for pid, a, b in zip(wanted.tolist(), first.tolist(), last.tolist(), strict=True)}
