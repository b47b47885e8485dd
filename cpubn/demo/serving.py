"""The trained network at work: frozen, on every backend, beside the plain formula."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import cpubn
from cpubn.demo.network import Array, Network, Step, forward
from cpubn.demo.training import Digits, accuracy
from cpubn.typing import Backend

BACKENDS: tuple[Backend, ...] = ("cython", "numba", "numpy")


@dataclass(frozen=True)
class Served:
    """What one backend made of the held-out digits."""

    scores: Array  # (images, 10)
    step: NDArray[np.float64]  # all that one training step of the first batch norm computes, in one row
    accuracy: float
    one_at_a_time: float  # seconds per image
    one_batch: float  # seconds per image


def serve(network: Network, data: Digits, backend: Backend | None) -> Served:
    """Classify the held-out digits; `backend=None` is the plain formula, which has no training step."""
    x = data.held_out_pixels
    if backend is None:
        return measure(network.reference(), data, np.empty(0))
    with cpubn.use_backend(backend):
        return measure(network.freeze(), data, training_step(network, x))


def measure(steps: list[Step], data: Digits, step: NDArray[np.float64]) -> Served:
    x = data.held_out_pixels
    images = [x[n : n + 1] for n in range(100)]
    scores = forward(steps, x)
    alone = shortest(lambda: [forward(steps, image) for image in images]) / len(images)
    together = shortest(lambda: forward(steps, x)) / len(x)
    return Served(scores, step, accuracy(scores, data.held_out_digits), alone, together)


def training_step(network: Network, x: Array) -> NDArray[np.float64]:
    """y, dx, dweight and dbias of the first batch norm, with the held-out digits as its batch."""
    linear, bn = network.layers[:2]
    assert isinstance(bn, cpubn.BatchNorm1d)
    hidden = linear(x)
    y, batch = cpubn.batch_norm(hidden, None, None, bn.weight, bn.bias, training=True, return_moments=True)
    dy = np.cos(y)  # any gradient that correlates with x, as real ones do
    dx, dweight, dbias = cpubn.batch_norm_backward(dy, hidden, batch.mean, batch.var(), bn.weight)
    return np.concatenate([part.ravel() for part in (y, dx, dweight, dbias)])


def shortest(work: Callable[[], object], repeats: int = 10) -> float:
    """Seconds of the fastest of some runs, the one that the machine disturbed least."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def difference(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    return float(np.abs(a - b).max())


def same_bits(a: Served, b: Served) -> bool:
    return a.scores.tobytes() == b.scores.tobytes() and a.step.tobytes() == b.step.tobytes()
