"""What type checkers think of programs that use cpubn: mypy here; the same files are written for pyright, too."""

import inspect
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_overloads, get_type_hints

import pytest

import cpubn
from cpubn.ask import check
from cpubn.backends import choice
from cpubn.maths import activations

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def told(pytestconfig):
    """What mypy --strict says of both programs; it keeps what it finds out about NumPy for the next time."""
    pytest.importorskip("mypy")
    kept = pytestconfig.cache.mkdir("mypy")
    source = Path(cpubn.__file__).parents[1]
    installed = {} if source.name == "site-packages" else {"MYPYPATH": str(source)}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", f"--cache-dir={kept}",
         "typing_program.py", "typing_mistakes.py"],
        cwd=HERE, env=os.environ | installed, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not done.stderr
    return [line for line in done.stdout.splitlines() if ": note:" not in line]


def test_a_program_that_is_right_passes(told):
    assert [line for line in told if line.startswith("typing_program.py")] == []


def test_mistakes_are_found(told):
    """One that is not makes the comment on its line unused, which is an error in strict mode."""
    assert [line for line in told if line.startswith("typing_mistakes.py")] == []


def test_the_program_runs():
    runpy.run_path(str(HERE / "typing_program.py"))


def names_in(alias):
    return {name for part in get_args(alias) for name in ({part} if isinstance(part, str) else names_in(part))}


def test_names_are_those_that_are_taken():
    assert get_args(cpubn.typing.Backend) == choice.BACKENDS
    assert names_in(cpubn.typing.Activation) == set({entry.name for entry in activations.TABLE})
    assert {name.upper() for name in names_in(cpubn.typing.Layout)} == set(check.LAYOUTS)
    assert names_in(cpubn.typing.AxisOrder) == set(check.ALIASES)


@pytest.mark.parametrize("function", [
    cpubn.batch_norm, cpubn.batch_norm_backward, cpubn.normalize_images, cpubn.FrozenBatchNorm.__init__,
    cpubn.FrozenBatchNorm.__call__, cpubn.BatchNorm2d.__call__, cpubn.BatchNorm2d.backward, cpubn.BatchNorm2d.freeze,
])  # fmt: skip
def test_overloads_have_the_arguments_that_the_function_has(function):
    """The names in a TypedDict count; the function itself has each of them in its signature."""
    parameters = inspect.signature(function).parameters
    assert len(get_overloads(function)) > 1
    for overload in get_overloads(function):
        own = dict(inspect.signature(overload).parameters)
        options = {name for name, parameter in own.items() if parameter.kind is parameter.VAR_KEYWORD}
        named = {name for o in options for name in get_args(get_type_hints(overload)[o])[0].__annotations__}
        assert (own.keys() - options) | named == parameters.keys()
        for name in own.keys() - options:
            assert own[name].kind is parameters[name].kind
            assert own[name].default in (parameters[name].default, inspect.Parameter.empty)
