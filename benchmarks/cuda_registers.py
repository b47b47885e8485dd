"""Registers, spills and shared memory of every CUDA kernel, compiled for several GPUs without one: a table, or JSON.

    python benchmarks/cuda_registers.py [--json] [75 80 90]

It needs the CUDA toolkit (CUDA_HOME, or /usr/local/cuda). The backend's functions are called as ever, with arrays that
are nowhere, and a launch that writes down the kernel and the types of what it was given.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

ARCHITECTURES = 75, 80, 90
TYPES = "float32", "float16", "bfloat16", "float64"
SHAPE = 4, 3, 5
ABSENT = 2  # exit status without the toolkit


class Kernel(NamedTuple):
    """Of a backend's function, as it is launched for arrays of a type."""

    name: str
    function: Any
    types: tuple[Any, ...]


class Figures(NamedTuple):
    kernel: str
    architecture: int
    local: bool  # whether it has arrays in local memory, which is slow
    registers: int | None  # None without ptxas
    spilled: int | None
    shared: int | None


def absence() -> str | None:
    """Why nothing can be compiled, or None."""
    try:
        from numba.cuda.cudadrv import nvvm

        nvvm.NVVM()
        nvvm.LibDevice()
    except Exception as error:
        return f"Numba finds no libNVVM: {' '.join(str(error).split())}"
    return None


def assemblers() -> list[str]:
    """Every ptxas that is here: it must not be older than the libNVVM that Numba found."""
    spec = find_spec("nvidia")
    folders = [Path(folder) / "cuda_nvcc" for folder in (spec and spec.submodule_search_locations) or ()]
    folders += [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")), Path("/usr/local/cuda")]
    found = [shutil.which("ptxas"), *(folder / "bin" / "ptxas" for folder in folders)]
    return [str(path) for path in found if path and Path(path).exists()]


def kernels() -> list[Kernel]:
    """All that are launched, each once."""
    from cpubn.ask.options import floating
    from cpubn.backends.epilogue import PLAIN, Activation, Epilogue
    from cpubn.backends.gpu import launch as launching, passes, target, vectors
    from cpubn.backends.gpu.arrays import DeviceArray
    from cpubn.backends.prologue import NO_PROLOGUE, Bits, Prologue, Statistics, bytes_of
    from cpubn.maths.activations import CODES

    found: dict[Any, Kernel] = {}
    label = ""

    def launch(kernel: Any, blocks: int, threads: int, x: DeviceArray, arguments: tuple[Any, ...]) -> None:
        types = tuple(map(launching._type_of, arguments))
        name = kernel.py_func.__qualname__.partition(".")[0]
        found.setdefault((kernel, types), Kernel(f"{label}: {name}", kernel.py_func, types))

    def new(size: int, device: int) -> tuple[Any, int]:
        memory = np.empty(size, np.uint8)
        return memory, memory.ctypes.data

    def array(shape: tuple[int, ...], dtype: Any = np.float64) -> DeviceArray:
        return DeviceArray(np.empty(shape, dtype), None, 0, 0)

    def constant(x: DeviceArray, count: int, value: float) -> DeviceArray:
        return array((count,))

    launching.launch, target.new = launch, new
    vectors.constant = passes.constant = constant
    v, stats, sums, affine = array((3,)), array((3, 3)), array((2, 3)), array((3, 3))
    silu, bits = Activation(CODES["silu"]), array((bytes_of(60),), np.uint8)
    training = Statistics(v, v, v, v, 1e-5, training=True)
    inference, signs = training._replace(training=False), Bits(bits, (15, 5, 1), 0.1)
    for name in TYPES:
        x, y, flat = array(SHAPE, floating(name)), array(SHAPE, floating(name)), array((60,), floating(name))
        fused = Epilogue(silu, y)
        calls: dict[str, tuple[Any, ...]] = {
            "moments": (passes.moments, x, stats, 1),
            "normalize": (passes.normalize, x, affine, PLAIN, y, 1),
            "normalize with silu and a residual": (passes.normalize, x, affine, fused, y, 1),
            "train_forward": (passes.train_forward, x, v, v, 1e-5, stats, PLAIN, y, 1),
            "gradient_sums": (passes.gradient_sums, x, y, training, NO_PROLOGUE, sums, 1),
            "backward": (passes.backward, x, y, training, NO_PROLOGUE, sums, y, 1),
            "backward of inference": (passes.backward, x, y, inference, NO_PROLOGUE, sums, y, 1),
            "backward through silu": (passes.backward, x, y, training, Prologue(silu, v, y), sums, x, 1),
            "backward by signs": (passes.backward, x, y, training, Prologue(signs=signs), sums, x, 1),
            "pack_signs": (passes.pack_signs, flat, 0.0, 6.0, True, bits, 1),
            "copy": (passes.copy, x, y),
        }
        for call, (function, *arguments) in calls.items():
            label = f"{name} {call}"
            function(*arguments)
    label = "channels"
    for dtype in (np.float32, np.float64):
        vectors.affine(np.dtype(dtype), (v, v, v), v, v, 1e-5)
    vectors.reordered(bits, (3, 4, 5), (1, 15, 3))
    vectors.weight_gradient(sums, v, 1e-5)
    vectors.update_running(v, v, None, stats, 20, 0.1)
    vectors.variance(v, 20.0)
    vectors.merge(20, (v, v, v), 20, (v, v, v))
    vectors.accumulate((v, v), (v, v))
    vectors.fill(v, 0.0)
    return list(found.values())


def ptx_of(kernel: Kernel, architecture: int) -> str:
    from numba import cuda
    from numba.cuda import dispatcher

    capability = divmod(architecture, 10)
    dispatcher.get_current_device = lambda: SimpleNamespace(
        compute_capability=capability
    )  # device functions ask for it
    ptx, _ = cuda.compile_ptx(kernel.function, kernel.types, cc=capability)
    return ptx


def figures_of(kernel: Kernel, architecture: int) -> Figures:
    ptx = ptx_of(kernel, architecture)
    told = assembled(ptx, architecture)
    numbers: list[int | None] = [None] * 3
    if told is not None:
        patterns = r"Used (\d+) registers", r"(\d+) bytes spill stores", r"(\d+) bytes smem"
        found = [re.search(pattern, told) for pattern in patterns]
        numbers = [int(match[1]) if match else 0 for match in found]
    return Figures(kernel.name, architecture, "__local_depot" in ptx, *numbers)


def assembled(ptx: str, architecture: int) -> str | None:
    """What ptxas tells of it, or None without one that takes it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        options = ["-v", f"-arch=sm_{architecture}", str(source), "-o", str(source.with_suffix(".cubin"))]
        for ptxas in assemblers():
            done = subprocess.run([ptxas, *options], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return done.stderr
    return None


def main(arguments: list[str]) -> int:
    reason = absence()
    if reason is not None:
        print(f"{reason}; install the CUDA toolkit, or set CUDA_HOME", file=sys.stderr)
        return ABSENT
    architectures = [int(a) for a in arguments if a.isdigit()] or ARCHITECTURES
    table = [figures_of(kernel, architecture) for kernel in kernels() for architecture in architectures]
    if "--json" in arguments:
        print(json.dumps([figures._asdict() for figures in table]))
        return 0
    print("| kernel | sm | registers | spilled bytes | shared bytes | local arrays |\n|---|---|---|---|---|---|")
    for name, architecture, local, *numbers in table:
        print("|", *(f"{value} |" for value in (name, architecture, *numbers, "yes" if local else "no")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
