"""NumPy computes because nothing faster is there: the first call says so, once."""

import pytest
from conftest import need_backend, python

SLOW = """
import sys, warnings
sys.modules.update({'numba': None, 'cpubn.backends.compiled.calls': None})
import numpy as np, cpubn
x, layer = np.ones((4, 3)), cpubn.BatchNorm1d(3)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter('always')
    cpubn.get_backend(), cpubn.show_config('dicts'), cpubn.available_backends()
    assert not seen
    CALL
print(len(seen), *{(w.category.__name__, w.filename, str(w.message)) for w in seen})
"""
CALLS = (
    "cpubn.moments(x)",
    "layer(x)",
    "layer.eval()(x)",
    "layer.eval().freeze()",
    "cpubn.batch_norm(x, None, None, training=True)",
    "cpubn.batch_norm_backward(x, x, np.zeros(3), np.ones(3))",
)


@pytest.mark.parametrize("call", CALLS)
def test_the_first_call_of_a_slow_default_says_so_once(call):
    told = python(SLOW.replace("CALL", "; ".join([call, *CALLS])))
    assert told.startswith("1 ('RuntimeWarning', '<string>', "), told
    for said in (
        "many times slower",
        "cython: ",
        "--no-cache-dir",
        "cpubn[numba]",
        "CPUBN_BACKEND=numpy",
    ):
        assert said in told


def test_a_backend_that_is_chosen_warns_of_nothing():
    assert python(SLOW.replace("CALL", "; ".join(CALLS)), CPUBN_BACKEND="numpy") == "0"
    assert python(SLOW.replace("CALL", "cpubn.moments(x, backend='numpy')")) == "0"
    assert python(SLOW.replace("CALL", "with cpubn.use_backend('numpy'): layer(x)")) == "0"


def test_numba_in_place_of_compiled_kernels_warns_of_nothing():
    need_backend("numba")
    assert python(SLOW.replace("'numba': None, ", "").replace("CALL", "cpubn.moments(x)")) == "0"
