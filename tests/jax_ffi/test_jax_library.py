"""The calls of XLA are built once, in a folder that is the user's alone, or it is said what to do."""

import doctest
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import need_backend, need_library

need_library("jax", "frameworks")
from in_jax import jax

import cpubn.jax
from cpubn.jax import library

if os.name != "posix":
    pytest.skip("not built on Windows", allow_module_level=True)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    need_backend("cython")
    monkeypatch.setenv("CPUBN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def built_before(tmp_path_factory):
    """A folder for tests that ask for no more than a library."""
    return tmp_path_factory.mktemp("built")


def fake_compiler(folder, text):
    path = folder.parent / "compiler"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_it_is_built_once(folder, monkeypatch):
    path = library.built()
    assert path.parent == folder
    assert path.name.startswith(f"jax-{sys.modules['jaxlib'].__version__}-{cpubn.__version__}-")
    assert folder.stat().st_mode & 0o777 == path.stat().st_mode & 0o777 == 0o700
    assert [path] == list(folder.iterdir())
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert library.built() == path
    path.write_bytes(b"damaged")
    with pytest.raises(RuntimeError, match="must have a C\\+\\+ compiler"):
        library.load(path)
    monkeypatch.delenv("CXX")
    assert library.load(path).cpubn_start


def test_its_name_follows_its_sources(tmp_path, monkeypatch):
    before = library.name_of_library()
    other = tmp_path / "handlers.cpp"
    other.write_text("// another one")
    monkeypatch.setattr(library, "SOURCES", (other, *library.SOURCES[1:]))
    assert library.name_of_library() != before


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_can_write_to(folder, mode):
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(RuntimeError, match=rf"{folder} must be writable by this user alone, .* chmod go-w {folder}"):
        library.built()
    folder.chmod(0o700)
    folder.parent.chmod(mode)
    with pytest.raises(RuntimeError, match="or others could have their code run"):
        library.built()
    folder.parent.chmod(0o700)


def test_a_library_that_others_can_write_to(folder):
    folder.mkdir(0o700)
    path = folder / library.name_of_library()
    path.write_bytes(b"")
    path.chmod(0o666)
    with pytest.raises(RuntimeError, match=f"{path} must be writable by this user alone"):
        library.built()


def test_a_folder_that_cannot_be_made(folder):
    folder.write_text("a file")
    with pytest.raises(RuntimeError, match=r"must be a folder to keep the compiled calls in, got .*; name another in"):
        library.built()


def test_no_compiler(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(library.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match=r"got none: no c\+\+ or g\+\+ or clang\+\+; install one, .* name it in CXX"):
        library.built()


def test_a_compiler_that_fails(folder, monkeypatch):
    compiler = fake_compiler(folder, "echo 'fatal error: too old' >&2; exit 1")
    monkeypatch.setenv("CXX", f"{compiler} -O1")
    with pytest.raises(RuntimeError, match=f"got from {compiler}: fatal error: too old; install a compiler of C"):
        library.built()
    assert list(folder.iterdir()) == []


def run(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)


def test_a_program_from_another_process(built_before, monkeypatch):
    pytest.importorskip("flatbuffers")  # by which JAX writes a program
    monkeypatch.setenv("CPUBN_CACHE_DIR", str(built_before))
    exporting = (
        "import jax.export, jax.numpy as jnp; from cpubn.jax import batch_norm; "
        "f = jax.jit(lambda x: batch_norm(x, None, None, training=True)[0]); "
        "of = [jax.export.DisabledSafetyCheck.custom_call('cpubn_forward_1')]; "
        "print(jax.export.export(f, disabled_checks=of)(jnp.zeros((4, 3))).serialize().hex())"
    )
    done = run(exporting)
    assert done.returncode == 0, done.stderr
    running = (
        "import jax.export, numpy as np, cpubn.jax\ncpubn.jax.build(); x = np.eye(4, 3, dtype='f4')\n"
        f"y = jax.export.deserialize(bytearray.fromhex({done.stdout.strip()!r})).call(x); "
        "print(np.array_equal(y, cpubn.batch_norm(x, None, None, training=True)))"
    )
    assert run(running).stdout == "True\n"


def test_without_compiled_kernels():
    done = run(
        "from cpubn.backends.compiled import variants as v; v.absence = lambda _: 'none'; import jax.numpy as jnp; "
        "from cpubn.jax import batch_norm; batch_norm(jnp.ones((2, 3)), jnp.ones(3), jnp.ones(3))"
    )
    assert "RuntimeError: the functions for C are those of the compiled kernels, got none: none;" in done.stderr


def test_without_jax():
    done = run("import sys; sys.modules['jax'] = None; import cpubn.jax")
    assert "ImportError: cpubn.jax needs JAX" in done.stderr
    assert 'install with: pip install "cpubn[jax]"' in done.stderr


@pytest.mark.parametrize("name", cpubn.jax.__all__)
def test_the_example_runs(name, built_before, monkeypatch):
    monkeypatch.setenv("CPUBN_CACHE_DIR", str(built_before))
    names = {"cpubn": cpubn, "jax": jax, "jnp": jax.numpy}
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(getattr(cpubn.jax, name)), names, name, None, None)
    assert test.examples
    told = []
    doctest.DocTestRunner(verbose=False).run(test, out=told.append)
    assert not told, "".join(told)


def test_headers_are_where_they_are_looked_for():
    assert Path(jax.ffi.include_dir(), "xla", "ffi", "api", "ffi.h").exists()
