"""A process that forks, and whose child alone imports cpubn: shared by the tests of forks.

Each is a process of its own, with a time limit: what it guards against is an abort or a hang.
"""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, os, signal, sys
import numpy as np

def used_numba():
    import numba
    from numba.core import entrypoints
    entrypoints._already_initialized = True  # or it would import cpubn, for cpubn.njit

    @numba.njit(parallel=True)
    def total(a):
        found = 0.0
        for i in numba.prange(a.size):
            found += a[i]
        return found

    assert total(np.ones(1 << 20)) == 1 << 20
    return numba.threading_layer()

def used_openblas():
    a = np.ones((1500, 1500))
    assert (a @ a)[0, 0] == 1500

def used_torch():
    import torch
    torch.ones(1 << 22).exp()

def used_nothing():
    pass

def answer(backend, file):
    signal.alarm(120)  # in place of a hang
    import cpubn
    x = np.random.default_rng(0).normal(3, 2, (16, 8, 40, 40)).astype(np.float32)  # 800 KB: enough for several threads
    y, batch = cpubn.batch_norm(x, None, None, training=True, return_moments=True, backend=backend)
    dx, _, _ = cpubn.batch_norm_backward(x, x, batch, batch.var(), backend=backend)
    z = cpubn.batch_norm(x, batch.mean, batch.var(), backend=backend)
    mean, var = x.mean((0, 2, 3), float, keepdims=True), x.var((0, 2, 3), float, keepdims=True)
    for found in (y, z):
        assert abs(found - (x - mean) / np.sqrt(var + 1e-5)).max() < 1e-5
    assert abs(dx).max() < 1e-4
    with open(file, "w") as told:
        json.dump(cpubn.show_config("dicts")["threads"], told)

def forked(*arguments):
    child = os.fork()
    if child == 0:
        try:
            answer(*arguments)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(3)
        os._exit(0)
    return os.waitpid(child, 0)[1]

def started(*arguments):
    import multiprocessing
    child = multiprocessing.get_context("fork").Process(target=answer, args=arguments)
    child.start()
    child.join()
    return child.exitcode

how, parent, *arguments = sys.argv[1:]
layer = globals()["used_" + parent]()
assert "cpubn" not in sys.modules
status = globals()[how](*arguments)
assert status == 0, status
print(layer)
"""
WAYS = ["forked", "started"]
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def child_of(parent, way, backend, folder, **variables):
    """What the child's show_config says of threads, and what the parent printed: its Numba's threading layer."""
    told = folder / "threads.json"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, way, parent, backend, str(told)],
        env=os.environ | {"NUMBA_NUM_THREADS": "4", "CPUBN_NUM_THREADS": "3"} | variables,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"status {done.returncode}: {done.stdout}{done.stderr}"
    return json.loads(told.read_text()), done.stdout.strip()
