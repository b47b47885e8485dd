"""Fixtures of every test: each backend and each instruction set in turn, none of them left out unnoticed."""

import os
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec

import hypothesis
import pytest

from cpubn.backends import choice, threads
from cpubn.backends.compiled import variants

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")

if "PYTEST_XDIST_WORKER" in os.environ:
    # The threads of one worker leave the CPUs to another's, where they would spin; libraries read this when loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=200)
hypothesis.settings.load_profile("ci" if IN_CI else "default")


def named(config):
    """Whether files or folders were named, in place of all tests."""
    return config.args_source is pytest.Config.ArgsSource.ARGS


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Of all tests, the slow ones run if they are asked for by -m; those that are named all run."""
    if not named(config) and not config.option.markexpr:
        config.option.markexpr = "not slow"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """All tests are shared out to a process for each CPU; those that are named run in this one."""
    return 0 if named(config) else None


def absent(what, reason):
    """Skip a test of what is not here; in CI, where everything must be, fail it."""
    message = f"{what} is absent: {reason}"
    if IN_CI:
        pytest.fail(message, pytrace=False)
    pytest.skip(message, allow_module_level=True)


def need_library(name, extra):
    if find_spec(name) is None:
        absent(name, f'install it with pip install "cpubn[{extra}]"')


def need_backend(name):
    reason = choice.absence(name)
    if reason is not None:
        absent(f"backend {name}", reason)


def need_instruction_set(name):
    if choice.absence("cython") is None and not variants.cpu_has(variants.BY_NAME[name]):
        pytest.skip(f"this CPU lacks {name}")
    reason = variants.absence(name)
    if reason is not None:
        absent(f"instruction set {name}", reason)


@contextmanager
def running_on(isa):
    """With the kernels of one instruction set in place of those of the best one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(choice._loaded, "cython", variants.load(isa))
        patch.setattr(choice, "_compiled_calls", lambda: _calls_of(isa))
        yield


@cache
def _calls_of(isa):
    return variants.calls(variants.load(isa), threads.threads)


@pytest.fixture(params=choice.HOST_BACKENDS)
def backend(request):
    """The name of a backend that is here."""
    need_backend(request.param)
    return request.param


@pytest.fixture(params=variants.BY_NAME)
def isa(request):
    """The name of an instruction set that this CPU has and that was built; `variants.load` gives its kernels."""
    need_instruction_set(request.param)
    return request.param


@pytest.fixture
def threads_restored(monkeypatch):
    """Undo set_num_threads after the test."""
    monkeypatch.setattr(threads, "_chosen", threads._chosen)


def python(program, **variables):
    """What a fresh Python prints, with these environment variables and none of ours; its errors are the last line."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CPUBN_", "OMP_", "NUMBA_"))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=inherited | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]
