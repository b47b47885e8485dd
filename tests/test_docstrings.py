"""What the reference shows: an example of every public function and class, which runs."""

import doctest
import inspect

import numpy as np
import pytest
from conftest import need_library

import cpubn
from cpubn import convert

need_library("onnx", "convert")
need_library("safetensors", "convert")

NAMES = {f"cpubn.{name}": getattr(cpubn, name) for name in cpubn.__all__}
NAMES |= {f"convert.{name}": getattr(convert, name) for name in convert.__all__ if name != "UNKNOWN"}


@pytest.mark.parametrize("name", NAMES)
def test_the_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"cpubn": cpubn, "convert": convert, "np": np}
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(NAMES[name]), names, name, None, None)
    assert test.examples
    told = []
    doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(test, out=told.append)
    assert not told, "".join(told)
