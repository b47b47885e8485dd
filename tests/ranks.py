"""Ranks as threads of one process, for tests of what a layer does with comm."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np


class Threads:
    """One rank: its allgather waits for those of all others."""

    def __init__(self, rank, barrier, table):
        self.rank, self.barrier, self.table, self.calls = rank, barrier, table, 0

    def allgather(self, values):
        self.calls += 1
        self.table[self.rank] = values.copy()
        self.barrier.wait()
        got = [row.copy() for row in self.table]
        self.barrier.wait()
        return got


def run(count, work):
    """What work(rank, comm) gave or raised on each of so many ranks."""
    barrier, table = Barrier(count, timeout=20), [np.empty(0)] * count

    def one(rank):
        try:
            return work(rank, Threads(rank, barrier, table))
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def cuts(count, images):
    """Where parts of a batch end: uneven ones, and of three ranks or more one that is empty."""
    return {1: [0, images], 2: [0, 2, images], 3: [0, 2, 2, images], 4: [0, 2, 2, 3, images]}[count]
