"""The checks in environments of their own: `nox` runs the tests on every Python that is installed, then the rest."""

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["tests", "lint", "types", "docs"]


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    session.install("--editable", ".[test]")
    session.run("pytest", *session.posargs)
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session(venv_backend="none")
def fast(session: nox.Session) -> None:
    """In the environment that nox runs in: what is checked, computed and refused, without what Numba compiles."""
    folders = [f"tests/{name}" for name in ("ask", "folding", "frozen", "inspection", "layers", "maths")]
    files = [f"tests/{name}.py" for name in ("functional/test_extremes", "test_architecture")]
    chosen = ["-m", "not slow", "-k", "not numba", "--numprocesses=2"]
    session.run("python", "-m", "pytest", *chosen, *folders, *files, *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Which lines of the Python part the tests run, frameworks included; fails below the share in pyproject.toml."""
    session.install("torch", "--extra-index-url", "https://download.pytorch.org/whl/cpu")
    session.install("--editable", ".[frameworks]", "pytest-cov")
    session.run("pytest", "--cov", "--cov-report=term-missing:skip-covered", *session.posargs)


@nox.session
def frameworks(session: nox.Session) -> None:
    """The same with torch, Keras, Flax and onnxruntime; from another index than PyPI, torch comes without CUDA."""
    session.install("torch", "--extra-index-url", "https://download.pytorch.org/whl/cpu")
    session.install("--editable", ".[frameworks]")
    session.run("pytest", *session.posargs)


@nox.session
def cuda(session: nox.Session) -> None:
    """The tests of the CUDA backend under numba-cuda, which takes the place of Numba's own: simulated, and on a GPU."""
    session.install("--editable", ".[test,cuda]", "numba-cuda[cu12]")
    session.run("pytest", "tests/backends/cuda", *session.posargs, env={"NUMBA_ENABLE_CUDASIM": "1"})
    session.run("pytest", "tests/backends/cuda", *session.posargs)


# What the tests of the kernels need: neither Numba nor torch, whose code no compiler chosen here has made.
KERNELS = ["hypothesis", "ml_dtypes", "numpy", "pytest>=8", "pytest-timeout", "pytest-xdist>=3.7"]
KERNELS += nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "build")


@nox.session
def sanitize(session: nox.Session) -> None:
    """The tests of the kernels, and hostile arguments, under AddressSanitizer and UndefinedBehaviorSanitizer."""
    session.install(*KERNELS)
    session.run("python", "tools/sanitize.py", "address", *session.posargs)


@nox.session
def races(session: nox.Session) -> None:
    """The tests of the kernels under ThreadSanitizer."""
    session.install(*KERNELS)
    session.run("python", "tools/sanitize.py", "thread", *session.posargs)


@nox.session
def clang(session: nox.Session) -> None:
    """The kernels by clang: their tests, and whether their bits are those of the checkout's built extensions."""
    session.install(*KERNELS)
    chosen = {"CC": "clang", "CXX": "clang++"}
    chosen |= dict.fromkeys(["CFLAGS", "CXXFLAGS"], "-Wno-unused-function")  # of Cython's, which GCC takes silently
    session.run("python", "tools/elsewhere.py", "build/clang", *session.posargs, env=chosen)


@nox.session
def aarch64(session: nox.Session) -> None:
    """The same on aarch64, by a cross compiler and under an emulator."""
    session.install(*KERNELS)
    session.run("python", "tools/aarch64.py", *session.posargs)


@nox.session(venv_backend="none")
def wheel(session: nox.Session) -> None:
    """A wheel for old systems, tried in environments of its own; interpreters and tests may follow."""
    session.run("python", "tools/wheel.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    session.install(*nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def docs(session: nox.Session) -> None:
    """The manual, in docs/_build/html."""
    session.install("--editable", ".", *nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "docs"))
    session.run("make", "-C", "docs", "html", "PYTHON=python", external=True)


@nox.session
def types(session: nox.Session) -> None:
    session.install(*nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "lint"))
    session.install("--editable", ".[demo]")
    session.run("mypy")
    session.install("pyright[nodejs]")  # mypy reads this program in the tests
    session.run("pyright", "tests/typing_program.py")
    session.run("pyright", "--verifytypes", "cpubn", "--ignoreexternal", env={"PYTHONPATH": "."})
    session.run(
        "stubtest",
        "--mypy-config-file",
        "pyproject.toml",
        *(f"cpubn.backends.compiled.{name}" for name in ("planner", "calls", "entries")),
    )
