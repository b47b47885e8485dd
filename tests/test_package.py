"""What is installed: what an import brings, types, stubs, the table of instruction sets, a build without a compiler."""

import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import cpubn
from cpubn.machine import isa

PACKAGE = Path(cpubn.__file__).parent
CHECKOUT = Path(__file__).parents[1]


def run(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, **options)


def imported_beyond_numpy():
    program = "import sys, numpy; before = set(sys.modules); import cpubn; print(*set(sys.modules) - before)"
    return set(run("-c", program, timeout=60).stdout.split())


def test_import_is_light():
    """Measured: 16 ms over `import numpy`, where 30 are allowed."""
    modules = imported_beyond_numpy()
    assert "cpubn.functional" in modules
    heavy = {
        "numba",
        "llvmlite",
        "matplotlib",
        "scipy",
        "sklearn",
        "dask",
        "rich",
        "torch",
        "jax",
        "asyncio",
        "subprocess",
        "argparse",
    }
    assert not heavy & modules
    assert not {"importlib.metadata", "json", "cpubn.cli", "cpubn.demo", "cpubn.backends.jit.passes"} & modules
    assert not any(name.startswith(("cpubn.convert", "cpubn.inspection")) for name in modules)


def test_info_needs_numpy_alone():
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['numba', 'rich', 'matplotlib', 'sklearn'])); "
        "from cpubn.cli import main; sys.exit(main(['info']))"
    )
    done = run("-c", program, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Numba is not installed" in done.stdout


def test_module_runs_as_a_command():
    done = run("-m", "cpubn", "info", "--json", timeout=120)
    assert json.loads(done.stdout)["version"] == cpubn.__version__
    assert run("-m", "cpubn", "--version", timeout=60).stdout == f"cpubn {cpubn.__version__}\n"


def test_public_names_are_documented():
    assert sorted(cpubn.__all__) == cpubn.__all__
    assert all(inspect.getdoc(getattr(cpubn, name)) for name in cpubn.__all__)


def test_dir_lists_what_is_public_before_and_after_it_is_used():
    expected = sorted([*cpubn.__all__, "__version__", "convert", "typing"])
    program = "import cpubn; before = dir(cpubn); cpubn.convert; print(*before); print(*dir(cpubn))"
    assert run("-c", program, timeout=60).stdout.splitlines() == [" ".join(expected)] * 2
    assert all(hasattr(cpubn, name) for name in dir(cpubn))


def test_types_and_stubs_are_installed():
    assert (PACKAGE / "py.typed").exists()
    for name in ("planner", "calls", "entries", "tensors"):
        assert (PACKAGE / "backends" / "compiled" / f"{name}.pyi").exists()


def test_version_is_the_installed_one():
    try:
        assert version("cpubn") == cpubn.__version__
    except PackageNotFoundError:
        pytest.skip("cpubn is not installed, only imported")


def test_table_of_instruction_sets():
    assert [variant.name for variant in isa.INSTRUCTION_SETS] == ["baseline", "avx2", "avx512"]
    assert isa.INSTRUCTION_SETS[0].feature is None
    for variant in isa.INSTRUCTION_SETS:
        assert set(variant.flags) == set(isa.FLAGS) == {"unix", "msvc"}
        assert (variant.feature is None) == (variant.machines is None)
        flags = [*isa.FLAGS["unix"], *variant.flags["unix"]]
        assert "-ffp-contract=off" in flags
        assert not {"-ffast-math", "-Ofast", "-march=native"} & set(flags)


def test_every_instruction_set_is_compiled_from_one_source():
    sources = CHECKOUT / "cpubn" / "backends" / "compiled"
    if not (sources / "kernels.pyx").exists():
        pytest.skip("no sources beside these tests")
    assert sorted(path.stem for path in sources.glob("*.pyx")) == ["calls", "entries", "kernels", "planner", "tensors"]
    assert not list(CHECKOUT.glob("cpubn/**/*.pxi"))


def test_intrinsics_stand_in_one_file():
    sources = CHECKOUT / "cpubn" / "backends" / "compiled"
    if not (sources / "kernels.pyx").exists():
        pytest.skip("no sources beside these tests")
    named = re.compile(r"_mm\d*_\w+|\bv\w+q?_[fsu]\d+\b|immintrin|arm_neon")
    found = {
        path.name
        for path in sources.iterdir()
        if path.suffix in (".pyx", ".pxd", ".hpp") and named.search(path.read_text())
    }
    assert found <= {"vectors.hpp", "lanes.hpp", "machine.hpp"}


def test_no_module_is_named_after_nothing():
    names = {part.strip("_") for path in PACKAGE.rglob("*") for part in (path.stem, path.name)}
    assert not names & {"core", "utils"}


def copy_checkout(folder):
    if not (CHECKOUT / "setup.py").exists():
        pytest.skip("no checkout around these tests")
    keep = shutil.ignore_patterns(".*", "build", "dist", "*.so", "*.pyd", "*.egg-info", "__pycache__", "_build.json")
    return shutil.copytree(CHECKOUT, folder / "checkout", ignore=keep)


def pip_install(checkout, target, **variables):
    return run(
        *("-m", "pip", "install", "--no-deps", "--target", str(target), str(checkout)),
        env=os.environ | {"CPUBN_REQUIRE_EXT": ""} | variables,
        timeout=240,
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="CC chooses no compiler on Windows")
def test_install_without_a_compiler(tmp_path):
    checkout = copy_checkout(tmp_path)
    done = pip_install(checkout, tmp_path / "target", CC="no-such-compiler")
    assert done.returncode == 0, done.stderr
    [wheel] = (tmp_path / "target").glob("cpubn-*.dist-info/WHEEL")
    assert "Tag: py3-none-any\n" in wheel.read_text()  # never taken for one with kernels
    assert "Root-Is-Purelib: true\n" in wheel.read_text()
    program = (
        "import cpubn, numpy as np; assert 'cython' not in cpubn.available_backends(); cpubn.show_config(); "
        "print(cpubn.BatchNorm1d(2, backend='numpy')(np.array([[1., 2.], [3., 4.]], np.float32)).round(2).tolist()); "
        "cpubn.use_backend('cython')"
    )
    done = run("-c", program, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path / "target")}, timeout=60)
    assert "cython         absent: the extension was not built: no C compiler: no-such-compiler" in done.stdout
    assert "[[-1.0, -1.0], [1.0, 1.0]]" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("ValueError: backend must be one that is there, got 'cython': ")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="CC chooses no compiler on Windows")
def test_install_without_a_compiler_fails_where_the_extension_is_required(tmp_path):
    done = pip_install(copy_checkout(tmp_path), tmp_path / "target", CC="no-such-compiler", CPUBN_REQUIRE_EXT="1")
    assert done.returncode != 0
    assert "CPUBN_REQUIRE_EXT is set, and the baseline kernels were not built" in done.stdout + done.stderr


# Of a compiler it has the arguments alone: what is built is empty.
COMPILER = """#!/bin/sh
while [ $# -gt 0 ]; do
  if [ "$1" = -o ]; then : > "$2"; fi
  shift
done
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="CC chooses no compiler on Windows")
def test_install_needs_no_kernels_of_other_machines_where_the_extension_is_required(tmp_path):
    checkout, compiler = copy_checkout(tmp_path), tmp_path / "compiler"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    with open(checkout / "cpubn" / "machine" / "isa.py", "a", encoding="utf-8") as file:
        file.write('\nINSTRUCTION_SETS += (InstructionSet("far", "far", {"far"}, INSTRUCTION_SETS[0].flags),)\n')
    chosen = {"CC": str(compiler), "CXX": str(compiler), "CPUBN_REQUIRE_EXT": "1"}
    done = pip_install(checkout, tmp_path / "target", **chosen)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "target" / "cpubn" / "backends" / "compiled" / "_build.json").read_text())
    assert report["variants"]["baseline"]["built"]
    assert report["variants"]["far"]["reason"].startswith("not for ")


def test_metadata_names_numpy_alone():
    if not (CHECKOUT / "pyproject.toml").exists():
        pytest.skip("no checkout around these tests")
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == ["numpy>=2"]
    assert importlib.util.find_spec("cpubn.demo") is not None
