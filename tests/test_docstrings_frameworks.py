"""The same of the modules that need another library."""

import importlib

import numpy as np
import pytest
from conftest import need_library
from documented import gaps, public, run_example

import cpubn

for library in ("torch", "jax", "dask", "mpi4py"):
    need_library(library, "frameworks")

NAMES = {}
for module in ("torch", "jax", "dask", "mpi"):
    NAMES |= public(importlib.import_module(f"cpubn.{module}"))


@pytest.mark.parametrize("name", [name for name in NAMES if "jax" not in name])  # whose examples its own tests run
def test_the_example_runs(name):
    assert run_example(NAMES[name], {"cpubn": cpubn, "np": np}) == ""


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_undescribed(name):
    assert gaps(NAMES[name]) == []
