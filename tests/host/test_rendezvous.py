"""Processes agree on a place of their own, whatever an earlier life of the job has left where they meet."""

import datetime
import threading
import time

import pytest
import torch.distributed as dist

from tvilfm_plugin.host.rendezvous import agree


def life(store, late=None, world=3):
    """What each process of a life agrees on; `late` is a rank that comes when the others wait already."""
    names = {}

    def process(rank):
        names[rank] = agree(store, rank, world)

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(world)]
    for rank, thread in enumerate(threads):
        if rank != late:
            thread.start()
    if late is not None:
        time.sleep(0.3)
        threads[late].start()
    for thread in threads:
        thread.join(20)
    return names


@pytest.mark.parametrize("late", [None, 0, 2])
def test_every_life_has_one_name_and_no_two_lives_share_one(late):
    store = dist.HashStore()
    names = [life(store, late) for _ in range(3)]
    assert all(set(one) == {0, 1, 2} and len(set(one.values())) == 1 for one in names)
    assert len({one[0] for one in names}) == 3


def test_whoever_stays_away_is_named():
    store, short = dist.HashStore(), datetime.timedelta(seconds=0.2)
    with pytest.raises(TimeoutError, match="Process 1, 2 "):
        agree(store, 0, 3, short)
    with pytest.raises(TimeoutError, match="Process 0 "):
        agree(dist.HashStore(), 1, 3, short)
    assert agree(dist.HashStore(), 0, 1)
