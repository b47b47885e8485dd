"""How contestants are timed: interleaved rounds, so that a drift of the machine hits all alike, and medians.

A visit to a contestant is: wait until the process is quiet, run its calls untimed for five milliseconds or once, run
them timed. The wait is for other libraries' threads. Measured on 2 cores: after a call, the workers of libgomp (one
team for cpubn, oneDNN and Numba, another for torch) spin for 8 ms, OpenVINO's for 1 ms, JAX's and onnxruntime's for
0.1 ms or less; until then the next contestant might have half the machine. The untimed calls wake the contestant's
own threads and bring to the caches what they would hold in a loop; one call is not enough: after a pause, inference
of (1, 64, 112, 112) took 365, 208, 142, 137, 139, ... us.

Spinning threads need a machine to themselves: with one other busy process on 2 cores, whatever uses libgomp took 8 ms,
two time slices, for what takes 0.1 ms. OtherWork tells whether that was so. OMP_WAIT_POLICY=passive avoids it, but
on a quiet machine it made every libgomp call of 0.1 ms take up to twice as long: nobody runs these libraries like that.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from itertools import repeat
from statistics import quantiles
from typing import NamedTuple, TypeVar

Call = Callable[[], object]
Key = TypeVar("Key", bound=Hashable)

SAMPLE_SECONDS = 200e-6  # a sample lasts at least this long: one call, or as many as it takes
WARM_SECONDS = 5e-3
# Above this, waking threads and filling caches is lost in the call itself, and one call a visit is enough.
LONG_SECONDS = 50e-3
# Linux accounts for other threads at its ticks, 1 to 10 ms apart.
PROBE_SECONDS, MOST_PROBES, IDLE_SHARE = 5e-3, 40, 0.1


class Timing(NamedTuple):
    """Seconds a call: the median of the rounds, and the quartiles around it."""

    median: float
    low: float
    high: float


def measure(calls: Mapping[Key, Call], rounds: int, after_round: Call = lambda: None) -> dict[Key, Timing]:
    """Time all of them in `rounds` rounds, each of which starts with another of them."""
    repetitions = {key: repetitions_of(call) for key, call in calls.items()}
    samples: dict[Key, list[float]] = {key: [] for key in calls}
    order = list(calls)
    with collector_off():
        for _ in range(rounds):
            for key in order:
                samples[key].append(visit(calls[key], repetitions[key]))
            order.append(order.pop(0))
            after_round()
    return {key: timing(values) for key, values in samples.items()}


def visit(call: Call, repetitions: int) -> float:
    wait_until_quiet()
    seconds = seconds_of(call, repetitions)
    if seconds > LONG_SECONDS:
        return seconds
    for _ in range(int(WARM_SECONDS / (seconds * repetitions))):
        seconds_of(call, repetitions)
    return seconds_of(call, repetitions)


def seconds_of(call: Call, repetitions: int) -> float:
    start = time.perf_counter()
    for _ in repeat(None, repetitions):
        call()
    return (time.perf_counter() - start) / repetitions


def repetitions_of(call: Call) -> int:
    """How many calls last for a sample, found after the first ones, which compile and allocate."""
    repetitions = 1
    for _ in range(2):
        call()
    while (seconds := seconds_of(call, repetitions)) * repetitions < SAMPLE_SECONDS:
        repetitions = int(SAMPLE_SECONDS / seconds) + 1
    return repetitions


def wait_until_quiet() -> None:
    """Return when no thread of this process has been running for a moment, or after a fifth of a second."""
    used = time.process_time()
    for _ in range(MOST_PROBES):
        time.sleep(PROBE_SECONDS)
        before, used = used, time.process_time()
        if used - before < IDLE_SHARE * PROBE_SECONDS:
            return


class OtherWork:
    """How many CPUs other processes, and other machines on the same hardware, kept busy since this was made."""

    def __init__(self) -> None:
        self.start: tuple[float, float, float] | None = self._now()

    def cpus(self) -> float | None:
        """None where the system does not tell."""
        now = self._now()
        if self.start is None or now is None:
            return None
        wall, busy, own = (after - before for before, after in zip(self.start, now, strict=True))
        return round(max(0.0, busy - own) / wall, 2)

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        """Seconds: of the clock, of all CPUs' work, and of this process and its finished children."""
        try:
            with open("/proc/stat", encoding="ascii") as file:
                user, nice, system, _idle, _wait, irq, softirq, steal = map(int, file.readline().split()[1:9])
        except OSError:
            return None
        own = os.times()
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), busy, own.user + own.system + own.children_user + own.children_system


@contextmanager
def collector_off() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def timing(seconds: list[float]) -> Timing:
    if len(seconds) == 1:
        seconds = 2 * seconds
    low, median, high = quantiles(seconds, n=4, method="inclusive")
    return Timing(median, low, high)
