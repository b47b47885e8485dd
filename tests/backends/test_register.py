"""Another library's control register, also in threads that inherit it, changes no bit and is there after a call."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import behaviours
import pytest
import register
from conftest import need_backend
from test_bits import differences

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not register.IS_HERE, reason="a control register that is not known here"),
]


@cache
def results_of(backend):
    need_backend(backend)
    process = subprocess.run(
        [sys.executable, Path(behaviours.__file__), backend],
        env=os.environ | {"NUMBA_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("behaviour", ["flushes", "rounds upward"])
@pytest.mark.parametrize("backend", ["cython", "numba"])
def test_same_bits_under_another_register(backend, behaviour, threads):
    digests = results_of(backend)["digests"]
    assert differences(digests[f"{behaviour}, {threads}"], digests["usual, 1"]) == []


@pytest.mark.parametrize("backend", ["cython", "numba"])
def test_a_call_leaves_the_register(backend):
    assert results_of(backend)["changed"] == []
