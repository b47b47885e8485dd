"""Which backend and instruction set are chosen, how wrong ones are refused, and what is told of them."""

import asyncio
import json
import os
import platform
import re
import threading
from importlib.metadata import distributions

import pytest
from conftest import need_backend, need_instruction_set, python

import cpubn
from cpubn import cli
from cpubn.backends import choice, report
from cpubn.backends.compiled import variants

RESOLVE = "from cpubn.backends import choice; print(choice.resolve(None), choice.kernels(None).__name__)"


def test_default_is_the_first_that_is_installed():
    assert python(RESOLVE).split()[0] == cpubn.available_backends()[0]
    assert cpubn.available_backends()[-1] == "numpy"


def test_numpy_is_the_default_where_nothing_else_is():
    blocked = "import sys; sys.modules.update({'numba': None, 'cpubn.backends.compiled.calls': None}); "
    assert python(blocked + RESOLVE) == "numpy cpubn.backends.reference"
    assert "Numba is not installed" in python(blocked + "from cpubn.backends import choice; choice.kernels('numba')")


def test_a_numba_that_fails_to_import_is_absent_with_its_reason():
    broken = (
        "import sys; sys.modules.update({'cpubn.backends.compiled.calls': None, 'cpubn.backends.jit.passes': None}); "
        "from cpubn.backends import choice; from cpubn import available_backends; "
    )
    need_backend("numba")
    assert python(broken + "print(choice.resolve(None), available_backends())") == "numpy ('numpy',)"
    assert "cannot be imported" in python(broken + "choice.kernels('numba')")


def test_environment_chooses_the_backend(backend):
    assert python(RESOLVE, CPUBN_BACKEND=backend).split()[0] == backend


def test_environment_chooses_the_instruction_set(isa):
    assert python(RESOLVE, CPUBN_ISA=isa) == f"cython cpubn.backends.compiled.{isa}"


def test_the_best_instruction_set_is_the_default():
    need_backend("cython")
    best = [name for name in variants.BY_NAME if variants.absence(name) is None][-1]
    assert python(RESOLVE) == f"cython cpubn.backends.compiled.{best}"


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("CPUBN_BACKEND", "torch", "CPUBN_BACKEND must be one of cython, numba, numpy, cuda, got 'torch'"),
        ("CPUBN_BACKEND", "CYTHON", "got 'CYTHON'"),
        ("CPUBN_ISA", "sse9", "CPUBN_ISA must be one of baseline, avx2, avx512, got 'sse9'"),
        ("CPUBN_NUM_THREADS", "0", "CPUBN_NUM_THREADS must be a whole number from 1 to 1024, got 0"),
        ("CPUBN_NUM_THREADS", "-2", "got '-2'"),
        ("CPUBN_NUM_THREADS", "many", "got 'many'"),
        ("CPUBN_NUM_THREADS", "100000", "got 100000"),
    ],
)
def test_wrong_environment_is_refused(variable, value, expected):
    need_backend("cython")
    program = "import cpubn, cpubn.backends.choice; cpubn.backends.choice.kernels(None); cpubn.get_num_threads()"
    message = python(program, **{variable: value})
    assert message.startswith("ValueError: ")
    assert expected in message


def test_empty_variables_count_as_unset():
    assert python(RESOLVE, CPUBN_BACKEND="", CPUBN_ISA="", CPUBN_NUM_THREADS="") == python(RESOLVE)


def test_forcing_an_instruction_set_that_the_cpu_lacks_fails():
    need_backend("cython")
    lacking = "from cpubn.backends.compiled import planner; planner.cpu_features = frozenset; "
    for program in (RESOLVE, "import cpubn.backends.choice; cpubn.backends.choice.kernels('cython')"):
        message = python("import cpubn; " + lacking + program, CPUBN_ISA="avx512")
        assert message.startswith("ValueError: CPUBN_ISA must name an instruction set that is there, got 'avx512': ")
        assert message.endswith("this CPU lacks avx512; unset it")
    assert python("import cpubn; " + lacking + RESOLVE) == "cython cpubn.backends.compiled.baseline"
    assert python("import cpubn; " + lacking + RESOLVE, CPUBN_ISA="avx2", CPUBN_BACKEND="numpy").startswith("numpy ")


def test_forcing_an_instruction_set_without_the_extension_fails():
    program = "import sys; sys.modules['cpubn.backends.compiled.calls'] = None; " + RESOLVE
    assert python(program, CPUBN_ISA="avx2").startswith(
        "ValueError: CPUBN_ISA must name an instruction set that is there"
    )


@pytest.mark.parametrize("name", ["calls", "planner"])
def test_an_extension_that_is_out_of_date_is_absent_with_its_reason(name):
    need_backend("cython")
    stale = f"sys.modules['cpubn.backends.compiled.{name}'] = types.ModuleType('{name}'); "
    stale = "import sys, types, numpy as np, cpubn; " + stale
    message = python(stale + "cpubn.use_backend('cython')")
    assert message.startswith("ValueError: backend must be one that is there, got 'cython': the compiled kernels are")
    assert "has no attribute" in message
    assert "reinstall with pip install -e ." in message
    assert "cython" not in python(stale + "print(cpubn.available_backends())")
    assert "cython         absent: the compiled kernels are out of date" in python(stale + "cpubn.show_config()")
    large = stale + "x = np.ones((8, 8, 64, 64), np.float32); print(cpubn.moments(x, backend='numpy').mean[0])"
    assert python(large) == "1.0"  # nor does counting threads stumble over it


@pytest.mark.parametrize("other", ["t[:-1]", "t[::-1]", "(t[0]._replace(of_output=None), *t[1:])"])
def test_an_extension_with_other_activations_is_out_of_date(other):
    need_backend("cython")
    change = f"from cpubn.backends.compiled import variants; t = variants.TABLE; variants.TABLE = {other}"
    message = python(f"import cpubn; {change}; cpubn.use_backend('cython')")
    assert "the compiled kernels are out of date (it has the activations relu, " in message


def test_an_instruction_set_that_is_out_of_date_is_absent_alone():
    need_instruction_set("avx2")
    stale = "import sys, types; sys.modules['cpubn.backends.compiled.avx2'] = types.ModuleType('avx2'); "
    assert "out of date" in python(stale + RESOLVE, CPUBN_ISA="avx2")
    assert python(stale + RESOLVE, CPUBN_ISA="baseline") == "cython cpubn.backends.compiled.baseline"


@pytest.mark.parametrize("call", [choice.resolve, choice.kernels, cpubn.use_backend])
@pytest.mark.parametrize(
    ("name", "error", "expected"),
    [
        ("torch", ValueError, "backend must be one of cython, numba, numpy, cuda, got 'torch'"),
        ("", ValueError, "got ''"),
        (3, TypeError, "backend must be a string, one of cython, numba, numpy, cuda, got 3"),
    ],
)
def test_unknown_backend_is_refused(call, name, error, expected):
    with pytest.raises(error, match=expected):
        call(name)


def test_absent_backend_is_refused_with_reason_and_remedy(monkeypatch):
    monkeypatch.setitem(choice._broken, "numba", "it is broken")
    monkeypatch.delitem(choice._loaded, "numba", raising=False)
    with pytest.raises(ValueError, match=r"got 'numba': (it is broken|.*not installed); install it with pip install"):
        cpubn.use_backend("numba")
    assert "numba" not in cpubn.available_backends()


def test_use_backend_nests_and_ends():
    default = choice.resolve(None)
    with cpubn.use_backend("numpy"):
        assert choice.resolve(None) == "numpy"
        with cpubn.use_backend(default):
            assert choice.resolve(None) == default
        assert choice.resolve(None) == "numpy"
        with pytest.raises(ZeroDivisionError), cpubn.use_backend(default):
            raise ZeroDivisionError
        assert choice.resolve(None) == "numpy"
    assert choice.resolve(None) == default


def test_get_backend_names_the_backend_of_a_call_that_names_none(backend):
    default = cpubn.get_backend()
    assert default == choice.resolve(None)
    with cpubn.use_backend(backend):
        assert cpubn.get_backend() == backend
    assert cpubn.get_backend() == default


def test_get_backend_of_the_environment():
    program = "import cpubn; print(cpubn.get_backend())"
    assert python(program, CPUBN_BACKEND="numpy") == "numpy"
    assert python(program, CPUBN_BACKEND="torch").startswith("ValueError: CPUBN_BACKEND must be one of")


def test_use_backend_is_this_threads_alone():
    default, seen = choice.resolve(None), []
    inside, done = threading.Event(), threading.Event()

    def other():
        with cpubn.use_backend("numpy"):
            inside.set()
            done.wait(10)
            seen.append(choice.resolve(None))

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    seen.append(choice.resolve(None))
    done.set()
    thread.join()
    assert seen == [default, "numpy"]


def test_use_backend_is_this_tasks_alone():
    default = choice.resolve(None)

    async def task(name):
        with cpubn.use_backend(name):
            await asyncio.sleep(0.01)
            return choice.resolve(None)

    async def main():
        return await asyncio.gather(task("numpy"), task(default), task("numpy"))

    assert asyncio.run(main()) == ["numpy", default, "numpy"]


def test_config_is_json_and_says_what_is_here():
    told = json.loads(json.dumps(report.config()))
    assert told["version"] == cpubn.__version__
    assert told["backend"]["chosen"] == choice.resolve(None)
    assert told["backend"]["available"] == list(cpubn.available_backends())
    assert told["threads"]["chosen"] == cpubn.get_num_threads()
    assert told["cpu"]
    assert [*told["backend"]["available"], *told["backend"]["absent"]] != []


def test_config_says_where_and_what_is_beside(monkeypatch):
    monkeypatch.setenv("CPUBN_BACKEND", choice.resolve(None))
    told = cpubn.show_config(mode="dicts")
    assert told["path"] == os.path.dirname(cpubn.__file__)
    assert told["platform"] == platform.platform()
    assert told["environment"]["CPUBN_BACKEND"] == choice.resolve(None)
    assert all(name.startswith("CPUBN_") for name in told["environment"])
    plain = {name.replace("-", "_"): name for name in report.PACKAGES}
    installed = {d.name.lower().replace("-", "_"): d.version for d in reversed([*distributions()])}
    assert told["packages"] == {plain[name]: v for name, v in installed.items() if name in plain}
    assert json.loads(json.dumps(told)) == told


def test_show_config_returns_what_info_prints_as_json(capsys):
    told = cpubn.show_config("dicts")
    assert capsys.readouterr().out == ""
    cli.main(["info", "--json"])
    assert json.loads(capsys.readouterr().out) == told


def test_versions_are_found_out_without_an_import():
    program = (
        "import sys; from cpubn.backends import report; before = set(sys.modules); report.package_versions(); "
        "print({name.partition('.')[0] for name in set(sys.modules) - before} & {'torch', 'numba', 'onnx'})"
    )
    assert python(program) == "set()"


@pytest.mark.parametrize("mode", ["json", "", None, 1, ["dicts"]])
def test_show_config_refuses_another_mode(mode, capsys):
    with pytest.raises(ValueError, match=rf"mode must be 'stdout' or 'dicts', got {re.escape(repr(mode))}; pass"):
        cpubn.show_config(mode)
    assert capsys.readouterr().out == ""


def test_info_tells_of_wrong_variables_instead_of_failing():
    program = "from cpubn.cli import main; main(['info', '--json'])"
    told = json.loads(python(program, CPUBN_BACKEND="x", CPUBN_ISA="y", CPUBN_NUM_THREADS="z"))
    for key, variable in (
        ("backend", "CPUBN_BACKEND"),
        ("instruction_set", "CPUBN_ISA"),
        ("threads", "CPUBN_NUM_THREADS"),
    ):
        assert told[key]["chosen"] is None
        assert told[key]["error"].startswith(variable) or told["backend"]["absent"]


def test_show_config_prints_reasons(capsys, monkeypatch):
    monkeypatch.setitem(choice._broken, "numba", "it is broken")
    monkeypatch.delitem(choice._loaded, "numba", raising=False)
    cpubn.show_config()
    printed = capsys.readouterr().out
    assert f"cpubn            {cpubn.__version__}" in printed
    assert "numba          absent: " in printed
    assert "  numpy          available" in printed


@pytest.mark.usefixtures("threads_restored")
def test_show_config_says_that_numba_clamps(capsys):
    need_backend("numba")
    cpubn.set_num_threads(1024)
    cpubn.show_config()
    assert "to which it clamps the number above" in capsys.readouterr().out
