"""What the reference shows: of every public function and class its sections, and an example, which runs."""

import numpy as np
import pytest
from conftest import need_library
from documented import gaps, public, run_example

import cpubn
from cpubn import convert

need_library("onnx", "convert")
need_library("safetensors", "convert")

NAMES = public(cpubn) | public(convert)


@pytest.mark.parametrize("name", NAMES)
def test_the_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_example(NAMES[name], {"cpubn": cpubn, "convert": convert, "np": np}) == ""


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_undescribed(name):
    assert gaps(NAMES[name]) == []


def test_the_scaler_is_described():
    need_library("sklearn", "sklearn")
    from cpubn.sklearn import StandardScaler

    assert gaps(StandardScaler) == []
    assert run_example(StandardScaler, {}) == ""
