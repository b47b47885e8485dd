"""A program with cache=True and nothing of cpubn's but `import cpubn`, in one process after the other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import need_backend, need_library

need_library("numba", "numba")

HERE = Path(__file__).parents[2]
USER = """
import numba, numpy as np
import cpubn

frozen = cpubn.FrozenBatchNorm(weight=None, bias=None, running_mean=[0.5] * 3, running_var=[2.0] * 3, activation="relu")


@numba.njit(cache=True)
def infer(x, mean, var):
    return cpubn.batch_norm(x, mean, var, activation=("leaky_relu", 0.5))


@numba.njit(cache=True)
def train(x, mean, var):
    y, batch = cpubn.batch_norm(x, mean, var, training=True, return_moments=True)
    return y, batch, cpubn.batch_norm_backward(y, x, batch, var)[0]


@numba.njit(cache=True)
def with_argument(frozen, x):
    return frozen(x)


@numba.njit(cache=True)
def with_global(x):
    return frozen(x)


@numba.njit(cache=True, parallel=True)
def many(frozen, x, out):
    for i in numba.prange(len(x)):
        frozen(x[i : i + 1], out=out[i : i + 1])


x = np.linspace(-1, 5, 360, dtype=np.float32).reshape(4, 3, 5, 6)
"""
GOOD = """
from user import *
v, out = (np.ones(3), np.ones(3)), np.empty_like(x)
here, there = [a.copy() for a in v], [a.copy() for a in v]
same = np.testing.assert_array_equal
same(infer(x, *v), cpubn.batch_norm(x, *v, activation=("leaky_relu", 0.5)))
y, batch, dx = train(x, *here)
expected, moments = cpubn.batch_norm(x, *there, training=True, return_moments=True)
same(y, expected)
same(here, there)
assert cpubn.Moments(*batch) == moments
same(dx, cpubn.batch_norm_backward(y, x, moments, there[1])[0])
same(with_argument(frozen, x), frozen(x))
same(with_global(x), frozen(x))
many(frozen, x, out)
same(out, frozen(x))
print([sum(f.stats.cache_hits.values()) for f in (infer, train, with_argument, with_global, many)])
"""
BAD = """
{first}
from user import *
from functools import partial
v = np.ones(3), np.ones(3)
for f in partial(infer, x, *v), partial(train, x, *v), partial(with_argument, frozen, x), partial(with_global, x):
    try:
        f()
    except ImportError as error:
        assert "the functions that numba.njit compiled this code for must be there" in str(error), error
        assert sum(f.func.stats.cache_hits.values()) == 1
    else:
        raise AssertionError(f)
print("refused")
"""


@pytest.fixture
def run(tmp_path):
    """A program of a folder where cpubn's entry point is found, as where it is installed."""
    need_backend("cython")
    about = tmp_path / "site" / "cpubn_entry-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: cpubn-entry\nVersion: 1\n", encoding="utf-8")
    (about / "entry_points.txt").write_text("[numba_extensions]\ninit = cpubn.njit:init\n", encoding="utf-8")
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), str(about.parent), str(HERE)])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CPUBN_", "NUMBA_"))}

    def done(program):
        command = [sys.executable, "-W", "error", "-c", program]
        env = kept | {"PYTHONPATH": path, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        got = subprocess.run(command, env=env, capture_output=True, text=True, timeout=250, check=False)
        assert (got.returncode, got.stderr) == (0, "")
        return got.stdout.strip()

    return done


@pytest.mark.slow
def test_cached_code(run):
    assert run(GOOD) == "[0, 0, 0, 0, 0]"
    assert run(GOOD) == "[1, 1, 1, 1, 1]"
    absent = "from cpubn.backends.compiled import variants as v; v.absence = lambda name: 'there are none'"
    assert run(BAD.format(first=absent)) == "refused"
    assert run(BAD.format(first="import cpubn.njit.symbols as s; s.VERSION = 2")) == "refused"


def test_code_without_kernels_is_not_compiled(run):
    program = """
from cpubn.backends.compiled import variants as v
v.absence = lambda name: "there are none"
from user import *
try:
    infer(x, np.ones(3), np.ones(3))
except numba.TypingError as error:
    print("the functions for C are those of the compiled kernels, got none: there are none;" in str(error))
"""
    assert run(program) == "True"


def test_numba_is_not_imported():
    program = "import sys, cpubn; assert not {'numba', 'llvmlite', 'cpubn.njit'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=HERE)
