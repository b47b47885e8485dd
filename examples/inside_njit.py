"""Batch norm inside loops of your own, compiled by Numba: features of sensors that are normalized as they come.

    python examples/inside_njit.py

Every channel of a stream of windows is normalized by a FrozenBatchNorm within a loop over all CPUs, and what it detects
is counted, without a temporary for the whole stream and without a call from Python for each window. Then a layer is
trained within a compiled loop. Compiled code is kept in __pycache__, and loaded the next time.
"""

import sys
import time

try:
    import numba
except ImportError:
    sys.exit('this example needs Numba; install it with: pip install "cpubn[numba]"')
import numpy as np

import cpubn

WINDOWS, CHANNELS, LENGTH = 400, 16, 500


@numba.njit(parallel=True, cache=True)
def peaks(stream, norm, threshold):
    """For each window of a stream how many samples are above a threshold once they are normalized."""
    found = np.zeros(len(stream), np.int64)
    for i in numba.prange(len(stream)):
        window = norm(stream[i : i + 1])
        for sample in window.flat:
            found[i] += sample > threshold
    return found


@numba.njit(cache=True)
def train(x, wanted, weight, bias, running_mean, running_var, steps):
    """Weight and bias by gradient descent, with everything that batch norm does within the loop."""
    for _ in range(steps):
        y, batch = cpubn.batch_norm(
            x, running_mean, running_var, weight, bias, training=True, activation="relu", return_moments=True
        )
        var = batch.m2 / batch.count
        _, dweight, dbias = cpubn.batch_norm_backward(
            y - wanted, x, batch, var, weight, bias=bias, activation="relu", y=y
        )
        weight -= 0.5 * dweight / batch.count
        bias -= 0.5 * dbias / batch.count
    return np.mean((y - wanted) ** 2)


def main() -> None:
    rng = np.random.default_rng(0)
    mean, var = rng.normal(20.0, 5.0, CHANNELS), rng.uniform(1.0, 9.0, CHANNELS)
    shape = WINDOWS, CHANNELS, LENGTH
    stream = (rng.normal(size=shape) * np.sqrt(var)[:, None] + mean[:, None]).astype(np.float32)
    norm = cpubn.FrozenBatchNorm(weight=None, bias=None, running_mean=mean, running_var=var, activation="relu")

    peaks(stream[:1], norm, 3.0)  # compiles it, or loads it
    start = time.perf_counter()
    inside = peaks(stream, norm, 3.0)
    seconds = time.perf_counter() - start
    outside = [int((norm(window[None]) > 3.0).sum()) for window in stream]
    print(f"{inside.sum()} peaks in {WINDOWS} windows, {1e6 * seconds / WINDOWS:.0f} us a window")
    print(f"as many as outside of compiled code: {list(inside) == outside}")

    weight, bias = np.ones(CHANNELS), np.zeros(CHANNELS)
    wanted = np.maximum((stream - mean[:, None]) / np.sqrt(var)[:, None] * 2.0 + 1.0, 0.0).astype(np.float32)
    loss = train(stream, wanted, weight, bias, np.zeros(CHANNELS), np.ones(CHANNELS), 40)
    print(f"trained to weight {weight.mean():.2f} and bias {bias.mean():.2f}, wanted 2 and 1; squared error {loss:.4f}")


if __name__ == "__main__":
    main()
