"""Digests of every result in every way that must not change a bit, as JSON: run in a process of its own by test_bits.

    python digests.py BACKEND SHARE     (with CPUBN_ISA and NUMBA_NUM_THREADS in the environment)

Beside the first way, which every case goes, a case goes one way of SHARE, and the next case the next ones: with all
cases in all ways of one backend, SHARE being 1, each two of backend, way and case meet in some run.
It prints {"threads": {way: {case: threads used}}, "digests": {way: {case and result: digest}}}.
"""

import json
import sys
import zlib

import cases
import digests_fused
import numpy as np
import views

import cpubn
from cpubn.backends import choice

# (family, layout, shape with channels on axis 1, dtype): few channels and many, rows and columns, 1 to 69 chunks.
CASES = [
    ("offset 1", "NCHW", (3, 5, 9), np.float32),
    ("offset 1", "NCHW", (2, 1, 200001), np.float32),
    ("ramp", "NCHW", (65, 2, 32769), np.float32),
    ("first far", "NCHW", (1, 3, 150001), np.float32),
    ("offset 10000", "NCHW", (5, 33, 3137), np.float32),
    ("offset 100", "NCHW", (67, 100, 49), np.float32),
    ("offset 100", "NCHW", (301, 31, 7), np.float32),
    ("offset 100", "NCHW", (3001, 33, 2), np.float32),
    ("offset 1", "NCHW", (70, 7, 319), np.float32),
    ("offset 1", "NHWC", (70001, 3, 1), np.float32),
    ("offset 1e+07", "NHWC", (5000, 64, 1), np.float32),
    ("zero corner", "NHWC", (1500, 257, 1), np.float32),
    ("offset 1", "NHWC", (40, 3001, 1), np.float32),
    ("largest", "NCHW", (9, 33, 700), np.float32),
    ("tiny", "NCHW", (9, 33, 700), np.float32),
    ("mixed scales", "NCHW", (80, 33, 49), np.float32),
    ("mixed scales", "NHWC", (4000, 33, 1), np.float32),
    ("mixed scales", "NHWC", (300, 1500, 1), np.float32),
    ("constant", "NCHW", (9, 33, 700), np.float32),
    ("offset 1e+06", "NCHW", (5, 33, 3137), np.float64),
    ("ramp", "NCHW", (67, 100, 49), np.float64),
    ("step", "NHWC", (5000, 64, 1), np.float64),
]
# Input and output together are more than most last-level caches hold, where the way of storing may change.
LARGE = [("offset 100", "NCHW", (8, 64, 12544), np.float32), ("offset 100", "NHWC", (100352, 64, 1), np.float32)]


def copy(x):
    return x.copy()


def by_element(x):
    return views.misaligned(x, x.itemsize)


def by_byte(x):
    return views.misaligned(x, 1)


def sparse(x):
    return views.stepped(x, 1, *[2] * (x.ndim - 2), 3)


# way: (threads, the arrays that are read, the arrays that are written: None for new ones, "in place" for those read)
WAYS = {
    "1 thread": (1, copy, None),
    "1 thread again": (1, copy, None),
    "2 threads": (2, copy, None),
    "3 threads": (3, copy, None),
    "8 threads": (8, copy, None),
    "2 threads, misaligned by an element, out too": (2, by_element, by_element),
    "1 thread, misaligned by an element, in place": (1, by_element, "in place"),
    "3 threads, misaligned by a byte, out too": (3, by_byte, by_byte),
    "2 threads, aligned, misaligned out": (2, copy, by_element),
    "8 threads, in place": (8, copy, "in place"),
    "3 threads, wide strides": (3, sparse, None),
    "1 thread, wide strides, out too": (1, sparse, sparse),
}
LARGE_WAYS = ["1 thread", "3 threads", "2 threads, misaligned by an element, out too"]
# One channel may stand anywhere in a walk, so that other strides are another walk of it.
ANY_CHANNELS = [way for way in WAYS if "strides" not in way]


def results(x, dy, layout, read, write, backend):
    """Every array that the package computes from x and dy, by name."""
    channels = x.shape[1 if layout == "NCHW" else -1]
    weight, bias = cases.vectors(channels)
    running = np.linspace(-1, 1, channels), np.linspace(0.5, 2, channels)
    how = {"layout": layout, "backend": backend}

    def into(source):
        return source if write == "in place" else write and write(np.zeros_like(x))

    batch = cpubn.moments(read(x), **how)
    yield "moments", (batch.mean, batch.m2)
    source, moved = read(x), [v.copy() for v in running]
    y = cpubn.batch_norm(source, *moved, weight, bias, True, out=into(source), **how)
    yield "training", (y, *moved)
    source = read(x)
    yield "inference", (cpubn.batch_norm(source, batch.mean, batch.var(), weight, bias, out=into(source), **how),)
    for training in (True, False):
        source, gradient = read(x), read(dy)
        out = into(gradient if training else source)
        got = cpubn.batch_norm_backward(
            gradient, source, batch.mean, batch.var(), weight, training=training, out=out, **how
        )
        yield f"backward, training {training}", got


def digest(arrays):
    """A checksum, which takes a fifth of the time of a hash that nobody can forge."""
    state = 0
    for a in arrays:
        state = zlib.crc32(np.ascontiguousarray(a).view(np.uint8), state)
    return state


def shared_out(ways, number, share):
    """The first way, and of the others one of `share`: other ones for the next case."""
    first, *others = ways
    return [first, *others[number % share :: share]]


def main(backend, share):
    threads, digests = {way: {} for way in WAYS}, {way: {} for way in WAYS}
    for number, case in enumerate(CASES + LARGE):
        family, layout, shape, dtype = case
        name = f"{family}, {layout}, {shape}, {np.dtype(dtype)}"
        x = cases.make(family, shape, layout, dtype)
        dy = cases.make_gradient("correlated", x, layout) if case in CASES else x[::-1]
        ways = LARGE_WAYS if case in LARGE else WAYS if shape[1] > 1 else ANY_CHANNELS
        for way in shared_out(ways, number, share):
            count, read, write = WAYS[way]
            cpubn.set_num_threads(count)
            threads[way][name] = choice.threads(x.nbytes)
            for result, arrays in results(x, dy, layout, read, write, backend):
                digests[way][f"{name}: {result}"] = digest(arrays)
    for number, case in enumerate([*digests_fused.CASES, digests_fused.LARGE]):
        ways = LARGE_WAYS if case == digests_fused.LARGE else digests_fused.WAYS
        for way in shared_out(ways, number, share):
            count, read, write = WAYS[way]
            cpubn.set_num_threads(count)
            for result, arrays in digests_fused.results(case, read, write, backend):
                digests[way][f"{case}: {result}"] = digest(arrays)
    print(json.dumps({"threads": threads, "digests": digests}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
