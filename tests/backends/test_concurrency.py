"""Python threads and forked children.

Each test is a process of its own, with a time limit: what it guards against is an abort or a hang.
"""

import os
import subprocess
import sys

import pytest
from conftest import need_backend

from cpubn.backends.choice import HOST_BACKENDS

pytestmark = pytest.mark.slow

SETUP = """
import os, sys, threading
import numpy as np
import cpubn

rng = np.random.default_rng(0)
x = rng.normal(3, 2, (16, 8, 40, 40)).astype(np.float32)  # 800 KB: large enough for several threads
dy = rng.normal(size=x.shape).astype(np.float32)
weight, bias = rng.normal(size=8), rng.normal(size=8)

def results(backend):
    y, batch = cpubn.batch_norm(x, None, None, weight, bias, training=True, return_moments=True, backend=backend)
    dx, dweight, dbias = cpubn.batch_norm_backward(dy, x, batch.mean, batch.var(), weight, backend=backend)
    m = cpubn.moments(x, backend=backend)
    z = cpubn.batch_norm(x, batch.mean, batch.var(), weight, bias, backend=backend)
    return b"".join(np.ascontiguousarray(a).tobytes() for a in (y, dx, dweight, dbias, m.mean, m.m2, z))

def check(y, backend):
    "Against the definition, so that a result that is wrong the same way each time is found."
    mean, var = x.mean((0, 2, 3), float, keepdims=True), x.var((0, 2, 3), float, keepdims=True)
    x_hat = (x - mean) / np.sqrt(var + 1e-5)
    true = x_hat * weight.reshape(-1, 1, 1) + bias.reshape(-1, 1, 1)
    assert abs(y - true).max() < 1e-5, backend

"""

FROM_THREADS = """
backends = sys.argv[1:]
cpubn.set_num_threads(3)
serial = {}
for backend in backends:
    check(cpubn.batch_norm(x, None, None, weight, bias, training=True, backend=backend), backend)
    serial[backend] = results(backend)
wrong, start = [], threading.Barrier(16)

def work(number):
    start.wait()
    for call in range(4):
        backend = backends[(number + call) % len(backends)]
        cpubn.set_num_threads(1 + (number + call) % 4)
        if results(backend) != serial[backend]:
            wrong.append((number, call, backend))

team = [threading.Thread(target=work, args=(number,)) for number in range(16)]
for thread in team:
    thread.start()
for thread in team:
    thread.join()
assert not wrong, wrong
print("well")
"""

FIRST_CALLS = """
backends = sys.argv[1:]
found, start = [], threading.Barrier(16)

def work(number):
    start.wait()
    backend = backends[number % len(backends)]
    found.append((backend, results(backend)))

team = [threading.Thread(target=work, args=(number,)) for number in range(16)]
for thread in team:
    thread.start()
for thread in team:
    thread.join()
assert len(found) == 16 and set(found) == {(backend, results(backend)) for backend in backends}
print("well")
"""

FORKED = """
import signal
backend = sys.argv[1]
cpubn.set_num_threads(3)
expected = results(backend)
child = os.fork()
if child == 0:
    signal.alarm(200)
    cpubn.set_num_threads(4)
    well = results(backend) == expected and cpubn.get_num_threads() == 1
    os._exit(0 if well else 3)
assert results(backend) == expected
_, status = os.waitpid(child, 0)
assert status == 0, status
print("well")
"""

FORKED_FROM_A_CALL = """
import signal
backend = sys.argv[1]
cpubn.set_num_threads(3)
expected = results(backend)
stop = threading.Event()

def busy():
    while not stop.is_set():
        results(backend)

thread = threading.Thread(target=busy)
thread.start()
statuses = []
for _ in range(5):
    child = os.fork()
    if child == 0:
        signal.alarm(200)
        os._exit(0 if results(backend) == expected else 3)
    statuses.append(os.waitpid(child, 0)[1])
stop.set()
thread.join()
assert statuses == [0] * 5, statuses
print("well")
"""

POOL = """
import multiprocessing, signal
backend = sys.argv[1]
cpubn.set_num_threads(3)
expected = results(backend)
with multiprocessing.get_context("fork").Pool(2, signal.alarm, (200,)) as pool:
    assert pool.map(results, [backend] * 4) == [expected] * 4
print("well")
"""

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def run(program, *arguments, **variables):
    done = subprocess.run(
        [sys.executable, "-c", SETUP + program, *arguments],
        env=os.environ | {"NUMBA_NUM_THREADS": "4"} | variables,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"status {done.returncode}: {done.stdout}{done.stderr}"
    assert done.stdout == "well\n"


@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_several_python_threads(backend, layer):
    run(FROM_THREADS, backend, NUMBA_THREADING_LAYER=layer)


@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_several_python_threads_on_all_backends_at_once(layer):
    for backend in HOST_BACKENDS:
        need_backend(backend)
    run(FROM_THREADS, *HOST_BACKENDS, NUMBA_THREADING_LAYER=layer)


@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_several_python_threads_make_the_first_calls(layer):
    """Loading, compiling and the choice of threads happen in all of them together."""
    for backend in HOST_BACKENDS:
        need_backend(backend)
    run(FIRST_CALLS, *HOST_BACKENDS, NUMBA_THREADING_LAYER=layer)


@forks
@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_a_forked_child_calls_after_its_parent(backend, layer):
    run(FORKED, backend, NUMBA_THREADING_LAYER=layer)


@forks
@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_a_child_forked_while_another_thread_computes(backend, layer):
    run(FORKED_FROM_A_CALL, backend, NUMBA_THREADING_LAYER=layer)


@forks
def test_a_pool_of_forked_workers(backend):
    run(POOL, backend)


def test_more_threads_than_numba_was_started_with():
    need_backend("numba")
    program = """
cpubn.set_num_threads(1)
expected = results("numba")
cpubn.set_num_threads(64)
assert results("numba") == expected
assert cpubn.get_num_threads() == 64
print("well")
"""
    for layer in ("default", "workqueue"):
        run(program, NUMBA_NUM_THREADS="2", NUMBA_THREADING_LAYER=layer)
