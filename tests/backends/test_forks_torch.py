"""cpubn imported first in a forked child, whose parent used torch's threads."""

import sys

import pytest
from conftest import need_backend, need_library
from forks import WAYS, child_of, forks

need_library("torch", "frameworks")


@forks
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("compiled", ["cython", "numba"])
def test_a_parent_that_used_torch(compiled, way, tmp_path):
    need_backend(compiled)
    told, _ = child_of("torch", way, compiled, tmp_path)
    assert told["chosen"] == 1 if sys.platform == "linux" else told["chosen"]
