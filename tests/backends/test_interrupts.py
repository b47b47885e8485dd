"""Ctrl-C at any moment of a training call: running mean, running variance and count move together, or not at all."""

import random
import signal
import sys
import threading
import time

import numpy as np
import pytest

import cpubn

TRIES = 300


def layer_and_data(backend, momentum=0.1):
    rng = np.random.default_rng(0)
    bn = cpubn.BatchNorm1d(6, momentum=momentum, activation="relu", backend=backend)
    x = rng.normal(1.0, 2.0, (200, 6)).astype(np.float32)
    bn(x)  # compiles what is to be compiled
    return bn, x


def moved(bn, before):
    """Which of the three are not as they were."""
    now = bn.running_mean.copy(), bn.running_var.copy(), bn.num_batches_tracked
    return {not np.array_equal(a, b) for a, b in zip(now, before, strict=True)}


def state(bn):
    bn.running_mean[...], bn.running_var[...] = 0.0, 1.0
    return bn.running_mean.copy(), bn.running_var.copy(), bn.num_batches_tracked


def interrupt(signum, frame):
    raise KeyboardInterrupt


@pytest.fixture
def lost_interrupts(monkeypatch):
    """An interrupt within a finalizer or a callback of the garbage collector is lost in Python, whoever is called."""

    def hook(args, otherwise=sys.unraisablehook):
        if args.exc_type is not KeyboardInterrupt:
            otherwise(args)

    monkeypatch.setattr(sys, "unraisablehook", hook)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer")
@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals are the main thread's")
def test_at_random_moments(backend, lost_interrupts):
    bn, x = layer_and_data(backend)
    start = time.perf_counter()
    bn(x)
    longest = 1.5 * (time.perf_counter() - start)
    rng, seen = random.Random(0), []
    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(TRIES):
            before, caught = state(bn), False
            try:
                signal.setitimer(signal.ITIMER_REAL, max(1e-6, rng.uniform(0.0, longest)))
                bn(x)
                signal.setitimer(signal.ITIMER_REAL, 0.0)
            except KeyboardInterrupt:
                caught = True
            torn = moved(bn, before)
            assert len(torn) == 1
            seen.append((caught, *torn))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, old)
    assert any(caught for caught, _ in seen)
    assert any(moved for _, moved in seen)


def load(bn, x):
    bn.load_state_dict({name: value + 1 for name, value in bn.state_dict().items()})


CALLS = {
    "training": (0.1, lambda bn, x: bn(x)),
    "training, cumulative": (None, lambda bn, x: bn(x)),
    "loading": (0.1, load),
}


@pytest.mark.parametrize(("momentum", "call"), CALLS.values(), ids=CALLS)
def test_at_every_line(momentum, call, backend):
    bn, x = layer_and_data(backend, momentum)
    outcomes, at, finished = set(), 0, False
    while not finished:
        at += 1
        before, left = state(bn), [at]

        def trace(frame, event, arg, left=left):
            if event == "line":
                left[0] -= 1
                if left[0] == 0:
                    raise KeyboardInterrupt
            return trace

        old = sys.gettrace()
        sys.settrace(trace)
        try:
            call(bn, x)
            finished = True
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(old)
        torn = moved(bn, before)
        assert len(torn) == 1, f"line {at}"
        outcomes |= torn
    assert outcomes == {False, True}
    assert at > 5
