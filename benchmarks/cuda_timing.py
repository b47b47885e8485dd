"""How bench_cuda.py takes time: device events around calls that are all queued before the first of them runs."""

import functools
import math

import numpy as np
from numba import cuda

from cpubn.bench.measure import collector_off, seconds_of, timing

SAMPLE_SECONDS, MOST_CALLS = 2e-3, 100  # more calls would fill the driver's queue
HOST_CALLS = 20
FIRST_SPINS, MOST_SPINS = 1 << 15, 1 << 24


class Sampler:
    """Seconds of a call on the device, over buffers in turn, all of them queued before the first one runs."""

    def __init__(self, call, count):
        self.call, self.order, self.spins, self.starved = call, range(count), FIRST_SPINS, 0
        rounds = math.ceil(SAMPLE_SECONDS / (count * self.seconds() or SAMPLE_SECONDS))
        self.order, self.starved = [*self.order] * max(1, min(rounds, MOST_CALLS // count)), 0

    def seconds(self):
        seconds, starved = self.visit()
        while starved and self.spins < MOST_SPINS:
            self.spins *= 2
            seconds, starved = self.visit()
        self.starved += starved
        return seconds

    def visit(self):
        """And whether the device had begun before everything was queued, so that it may have waited for the host."""
        start, end = cuda.event(), cuda.event()
        cuda.device_array(1, np.uint8)  # Numba frees what was deferred with the next array that goes
        cuda.synchronize()
        with cuda.defer_cleanup():  # freeing memory waits for the device
            hold(self.spins)
            start.record()
            for i in self.order:
                self.call(i)
            end.record()
            starved = start.query()
            end.synchronize()
        return start.elapsed_time(end) * 1e-3 / len(self.order), starved


def hold(spins):
    """Keep the device busy."""
    spin()[128, 1](spins, cuda.device_array(1, np.float32))


@functools.cache
def spin():
    @cuda.jit
    def kernel(times, out):
        if cuda.grid(1) == 0:  # the other blocks are there because Numba warns of few
            v = out[0]
            for _ in range(times):
                v = v * np.float32(0.5) + np.float32(1.0)
            out[0] = v

    return kernel


def interleaved(samplers, rounds):
    """The timing of each."""
    samples, order = {name: [] for name in samplers}, list(samplers)
    with collector_off():
        for _ in range(rounds):
            for name in order:
                samples[name].append(samplers[name]())
            order.append(order.pop(0))
    return {name: timing(values) for name, values in samples.items()}


def host_seconds(call):
    cuda.synchronize()
    return seconds_of(call, HOST_CALLS)
