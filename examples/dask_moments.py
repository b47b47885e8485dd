"""Statistics of an array that is larger than memory, and of a network's norms over it, by a cluster that loses workers.

    python examples/dask_moments.py

Two worker processes read an array block by block, slowly, as a disk would. In the middle of it one of them is killed,
and another one while blocks go through a network. The scheduler has their blocks read again by the other, and by the
one that takes its place; results have the same bits as without that, because the order in which blocks are merged is
that of the array.
"""

import os
import signal
import sys
import time
from threading import Timer

import numpy as np

import cpubn

try:
    import dask.array
    from dask.distributed import Client, LocalCluster

    import cpubn.dask
except ImportError:
    sys.exit('this example needs dask and distributed; install them with: pip install "cpubn[dask]"')

BLOCKS, ROWS, CHANNELS = 24, 10, 8


def read_block(number):
    time.sleep(0.1)
    values = np.random.default_rng(number).normal(1e4, 1.0, (ROWS, CHANNELS, 16, 16))
    return values.astype(np.float32)


def array_of_blocks():
    read = dask.delayed(read_block, pure=True)
    shape = ROWS, CHANNELS, 16, 16
    blocks = [dask.array.from_delayed(read(i), shape, np.float32) for i in range(BLOCKS)]
    return dask.array.concatenate(blocks)


class Network:
    """Two norms in a row."""

    def __init__(self):
        self.norms = [cpubn.BatchNorm2d(CHANNELS, activation="relu") for _ in range(2)]

    def __call__(self, x):
        for norm in self.norms:
            x = norm(x)
        return x


def kill_one(pids):
    os.kill(next(iter(pids.values())), getattr(signal, "SIGKILL", signal.SIGTERM))


def still_there(client, pids):
    return len(set(client.run(os.getpid).values()) & set(pids.values()))


def main() -> None:
    array = array_of_blocks()
    moments = cpubn.dask.moments(array)
    alone = moments.compute(scheduler="synchronous")
    here, there = Network(), Network()
    cpubn.recalibrate(here.norms, here, array, batch_size=ROWS)
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        pids = client.run(os.getpid)
        future = client.compute(moments)
        time.sleep(0.6)
        print("done when a worker is killed:", future.done())
        kill_one(pids)
        total = future.result(timeout=120)
        print("workers that were there before:", still_there(client, pids))

        client.wait_for_workers(2)
        pids = client.run(os.getpid)
        Timer(0.6, kill_one, (pids,)).start()
        cpubn.dask.recalibrate(there.norms, there, array)
        print("of those that began to recalibrate:", still_there(client, pids))
    print(f"{total.count} values per channel, variances up to {total.var().max():.4f}")
    print("as one process has it, bit for bit:", total == alone)
    means = [norm.running_mean.mean() for norm in there.norms]  # of normal values through relu it is 1 / sqrt(2 * pi)
    print(f"recalibrated on the cluster: running means {means[0]:.4f} and {means[1]:.4f}")
    same = [np.array_equal(a.running_var, b.running_var) for a, b in zip(here.norms, there.norms, strict=True)]
    print("as one process recalibrates, bit for bit:", all(same))


if __name__ == "__main__":
    main()
