"""scikit-learn's own tests of StandardScaler, installed with it, and its checks of an estimator, run with ours."""

import importlib.util
import inspect
import os
import subprocess
import sys

import pytest
from conftest import need_library

need_library("sklearn", "sklearn")
import sklearn.preprocessing
from sklearn.utils.estimator_checks import parametrize_with_checks

from cpubn.sklearn import StandardScaler

ARRAY_API = "SCIPY_ARRAY_API"  # which SciPy reads once, when it is imported
pytestmark = pytest.mark.filterwarnings("ignore:n_quantiles")  # of QuantileTransformer, which some test beside ours


def their_tests():
    """Those that name StandardScaler, from a copy of their module to which that is ours.

    Not applicable are the parameters of theirs that name another scaler, which are run all the same, and of arrays of
    libraries that are not installed, which they skip.
    """
    spec = importlib.util.find_spec("sklearn.preprocessing.tests.test_data")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sklearn.preprocessing, "StandardScaler", StandardScaler)
        spec.loader.exec_module(module)
    assert module.StandardScaler is StandardScaler
    for name, test in inspect.getmembers(module, inspect.isfunction):
        wanted = "array_api" not in name or ARRAY_API in os.environ
        if name.startswith("test_") and wanted and "StandardScaler" in inspect.getsource(test):
            marks = getattr(test, "pytestmark", [])
            test.pytestmark = [listed(mark) if mark.name == "parametrize" else mark for mark in marks]
            yield name, test


def listed(mark):
    """Its values as a list, where pytest warns of a generator."""
    names, values = mark.args
    return pytest.mark.parametrize(names, list(values), **mark.kwargs).mark


THEIRS = dict(their_tests())
globals().update(THEIRS)


def test_they_are_found():
    assert len([name for name in THEIRS if name.startswith("test_standard_scaler_")]) >= 10
    assert len(THEIRS) > 20


@pytest.mark.slow
def test_theirs_of_other_arrays():
    """Left out is that fit and transform take arrays of one library, a check that their own scaler fails, too."""
    options = ["-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-W", "ignore"]
    done = subprocess.run(
        [sys.executable, *options, __file__, "-k", "array_api and not same_namespace"],
        env=os.environ | {ARRAY_API: "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@parametrize_with_checks([StandardScaler(), StandardScaler(with_mean=False), StandardScaler(with_std=False)])
def test_checks_of_an_estimator(estimator, check):
    check(estimator)
