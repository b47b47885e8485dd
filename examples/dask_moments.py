"""Mean and variance of an array that is larger than memory, on a cluster that loses a worker: dask.

    python examples/dask_moments.py

Two worker processes read an array block by block, slowly, as a disk would. In the middle of it one of them is killed.
The scheduler has its blocks read again by the other, and by the one that takes its place; the result has the same bits
as without that, because the order in which blocks are merged is that of the array.
"""

import os
import signal
import sys
import time

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


def recalibrate(norms, array):
    """Running statistics of norms in a row from all data: each in turn, for it sees what those before it make."""
    for norm in norms:
        norm.update_from(cpubn.dask.moments(array).compute())
        array = array.map_blocks(norm.freeze(activation="relu"), dtype=np.float32)


def main() -> None:
    array = array_of_blocks()
    moments = cpubn.dask.moments(array)
    alone = moments.compute(scheduler="synchronous")
    norms = [cpubn.BatchNorm2d(CHANNELS).eval() for _ in range(2)]
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        pids = client.run(os.getpid)
        future = client.compute(moments)
        time.sleep(0.6)
        print("done when a worker is killed:", future.done())
        os.kill(next(iter(pids.values())), getattr(signal, "SIGKILL", signal.SIGTERM))
        total = future.result(timeout=120)
        print("workers that were there before:", len(set(client.run(os.getpid).values()) & set(pids.values())))
        recalibrate(norms, array)
    print(f"{total.count} values per channel, variances up to {total.var().max():.4f}")
    print("as one process has it, bit for bit:", total == alone)
    means = [norm.running_mean.mean() for norm in norms]  # of normal values through relu it is 1 / sqrt(2 * pi)
    print(f"recalibrated on the cluster: running means {means[0]:.4f} and {means[1]:.4f}")


if __name__ == "__main__":
    main()
