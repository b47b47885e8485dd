"""A client in C and one in Cython, built against what is installed; what keeps the header from changing unnoticed."""

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import ctable
import numpy as np
import pytest
from conftest import need_backend
from ctable import CArray, CCall, CTable

import cpubn
from cpubn.maths.activations import TABLE

HERE = Path(__file__).parent
HEADER = Path(cpubn.get_include(), "cpubn.h")
COMPILER = (sysconfig.get_config_var("CC") or "cc").split()[0]


def has_compiler():
    try:
        return subprocess.run([COMPILER, "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture
def build(tmp_path):
    """A function that compiles a source to a module and imports it."""
    need_backend("cython")
    if os.name == "nt" or not has_compiler():
        pytest.skip(f"{COMPILER} is no compiler that this test knows how to call")

    def built(source, *flags):
        name = source.stem
        library = tmp_path / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
        paths = sysconfig.get_path("include"), cpubn.get_include()
        flags = "-shared", "-fPIC", "-Wall", "-Werror", *(f"-I{path}" for path in paths), *flags
        done = subprocess.run(
            [COMPILER, *flags, str(source), "-o", str(library)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        spec = importlib.util.spec_from_file_location(name, library)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return built


def test_c(build):
    client = build(HERE / "client.c", "-std=c99")
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, (1, 6, 9000)).astype(np.float32)
    mean, var, y = rng.normal(size=6), rng.uniform(0.5, 2.0, 6), np.empty_like(x)
    assert client.normalize(x, y, mean, var, 1e-5, 6) == "done"
    np.testing.assert_array_equal(y, cpubn.batch_norm(x, mean, var, backend="cython"))
    assert client.normalize(x, y, mean, -var, 1e-5, 6) == "var + eps must be above 0 in every channel"
    offsets = (getattr(CCall, name).offset for name in ("threads", "inference", "output", "mean", "affine"))
    assert client.layout() == (*map(ctypes.sizeof, (CArray, CCall, CTable)), *offsets)


def test_the_example(tmp_path):
    """Modules of Cython and of C, built as a user builds them."""
    need_backend("cython")
    for library in ("Cython", "setuptools"):
        pytest.importorskip(library)
    if os.name == "nt" or not has_compiler():
        pytest.skip(f"{COMPILER} is no compiler that this test knows how to call")
    folder = tmp_path / "extension"
    shutil.copytree(HERE.parents[1] / "examples" / "extension", folder)
    for command in (["setup.py", "build_ext", "--inplace"], ["run.py"]):
        environment = os.environ | {"PYTHONPATH": str(Path(cpubn.__file__).parents[1])}
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "in Cython, in a prange: 64 windows, the same bits: True",
        "in C, window by window: 64 windows, the same bits: True",
        "what is wrong with a negative variance: var + eps must be above 0 in every channel",
    ]


def test_a_module_that_was_built_for_a_later_version(build, tmp_path):
    later = tmp_path / "client.c"
    text = (HERE / "client.c").read_text(encoding="utf-8")
    include = '#include "cpubn.h"'
    later.write_text(text.replace(include, f"#define CPUBN_VERSION 99\n{include}"), encoding="utf-8")
    header = tmp_path / "cpubn.h"
    header.write_text(HEADER.read_text(encoding="utf-8").replace("#define CPUBN_VERSION 1", ""), encoding="utf-8")
    with pytest.raises(ImportError, match="of version 99 or later, as this module was built for, got 1; install"):
        build(later)


def test_without_compiled_kernels():
    program = "from cpubn.backends.compiled import variants as v; v.absence = lambda _: 'none'; import cpubn.capi"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "ImportError: the functions for C are those of the compiled kernels, got none: none;" in done.stderr


def names_of(text, kind):
    return re.findall(rf"\b{kind}_\w+", text)


def test_the_pxd_has_what_the_header_has():
    pxd = HEADER.parents[1] / "c.pxd"
    header, cython = (re.sub(r"/\*.*?\*/|#.*", "", p.read_text(encoding="utf-8"), flags=re.S) for p in (HEADER, pxd))
    constants = [name for name in names_of(header, "CPUBN") if name != "CPUBN_VERSION"]
    declared = [name for name in names_of(cython, "CPUBN") if name != "CPUBN_VERSION"]
    assert list(dict.fromkeys(constants)) == declared


def test_the_header_stays_as_it_is():
    """Released names, numbers and places: what is new comes at the end, with a new version."""
    header = HEADER.read_text(encoding="utf-8")
    blocks = {
        name: re.findall(r"\bCPUBN_(\w+)", block) for name, block in re.findall(r"enum (\w+) \{(.*?)\};", header, re.S)
    }
    assert blocks["cpubn_status"] == list(ctable.STATUSES)
    assert [name.lower() for name in blocks["cpubn_type"]] == list(ctable.TYPES)
    assert [name.lower() for name in blocks["cpubn_activation"]] == ["none", *(entry.name for entry in TABLE)]
    assert ctable.table().version == 1
