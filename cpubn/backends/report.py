"""What was found here and chosen: a report for people and, as JSON, for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import Any, Literal, overload

import numpy as np

from cpubn.backends import choice, threads
from cpubn.backends.compiled import variants
from cpubn.machine import cpus
from cpubn.version import __version__

# Distributions that a backend, a conversion, the demo or the benchmark may use, or that give and take arrays.
PACKAGES = (
    *("numba", "numba-cuda", "llvmlite", "cython", "ml_dtypes", "safetensors", "onnx", "onnxruntime", "openvino"),
    *("torch", "keras", "tensorflow", "jax", "flax", "cupy", "opencv-python-headless", "onednn-cpu-gomp"),
    *("matplotlib", "pillow", "rich", "scikit-learn", "threadpoolctl", "pytest-benchmark"),
)


def config() -> dict[str, Any]:
    """What was found and chosen, ready for JSON: version, CPU, backends, instruction sets, threads, build.

    It imports every backend, so that what it says of them is true; a wrong environment variable is told, not raised.
    """
    numba = choice.kernels("numba") if choice.absence("numba") is None and choice.imports_numba() else None
    return {
        "version": __version__,
        "path": os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": np.__version__,
        "packages": package_versions(),
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith("CPUBN_")},
        "cpu": cpus.model(),
        "backend": _choice(choice.get_backend) | _presence({name: choice.absence(name) for name in choice.BACKENDS}),
        "instruction_set": _choice(variants.instruction_set)
        | _presence({name: variants.absence(name) for name in variants.BY_NAME}),
        "threads": _choice(threads.get_num_threads)
        | {
            "source": _choice(lambda: threads.count().source)["chosen"],
            "limits": threads.limits(),
            "numba_limit": numba and numba.thread_limit(),
            "numba_layer": numba and numba.threading_layer(),
        },
        "build": variants.build_report(),
    }


@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: Literal["stdout", "dicts"] = "stdout") -> dict[str, Any] | None:
    """Print what `cpubn` found here and chose: backends and why one is absent, instruction set, threads, CPU, build.

    Parameters
    ----------
    mode : "stdout", or "dicts" to return it in place of printing it.

    Returns
    -------
    None, or a dict as ``python -m cpubn info --json`` prints it
        With the package's path, the platform, the versions of optional packages and the variables CPUBN_* besides.

    Raises
    ------
    ValueError : another mode.

    Examples
    --------
    >>> cpubn.show_config("dicts")["version"] == cpubn.__version__
    True
    """
    if not isinstance(mode, str) or mode not in ("stdout", "dicts"):
        raise ValueError(f"mode must be 'stdout' or 'dicts', got {mode!r}; pass 'dicts' for what is printed as a dict")
    if mode == "dicts":
        return config()
    told = config()
    threads_, build = told["threads"], told["build"]
    lines = [("cpubn", f"{told['version']}, Python {told['python']}, NumPy {told['numpy']}"), ("CPU", told["cpu"])]
    for title, key in (("backend", "backend"), ("instruction set", "instruction_set")):
        lines.append((title, told[key]["chosen"] or f"none: {told[key]['error']}"))
        lines += [(f"  {name}", "available") for name in told[key]["available"]]
        lines += [(f"  {name}", f"absent: {reason}") for name, reason in told[key]["absent"].items()]
    lines.append(
        ("threads", f"{threads_['chosen']}, from {threads_['source']}" if threads_["chosen"] else threads_["error"])
    )
    lines += [(f"  {name}", "no limit" if n is None else str(n)) for name, n in threads_["limits"].items()]
    if threads_["numba_limit"]:
        clamped = ", to which it clamps the number above" if (threads_["chosen"] or 0) > threads_["numba_limit"] else ""
        layer = threads_["numba_layer"] or "is chosen by its first call"
        lines.append(("  Numba", f"{threads_['numba_limit']} (layer {layer}){clamped}"))
    if build:
        lines.append(("compiler", build["compiler"]))
        lines.append(("OpenMP", "yes" if build["openmp"] else f"no, the extension is serial: {build['openmp_reason']}"))
    for title, text in lines:
        print(f"{title:17}{text.replace(chr(10), chr(10) + ' ' * 17)}")
    return None


def package_versions() -> dict[str, str]:
    """The versions of optional packages that are installed; none of them is imported for it."""
    from importlib import metadata  # here, because few need it: `import cpubn` is to be quick

    versions: dict[str, str] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _choice(choose: Callable[[], str | int]) -> dict[str, Any]:
    try:
        return {"chosen": choose(), "error": None}
    except ValueError as error:
        return {"chosen": None, "error": str(error)}


def _presence(absences: dict[str, str | None]) -> dict[str, Any]:
    return {
        "available": [name for name, reason in absences.items() if reason is None],
        "absent": {name: reason for name, reason in absences.items() if reason is not None},
    }
