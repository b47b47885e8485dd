"""Every CUDA kernel compiled for real GPUs, without one: it must not spill, nor keep arrays in local memory."""

import json
from pathlib import Path

import pytest
from conftest import need_library
from test_cuda import run

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cuda_registers.py"
ABSENT = 2  # its exit status without the CUDA toolkit
REGISTERS = 65536  # of a multiprocessor


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [75, 80, 90])
def test_every_kernel_compiles_and_keeps_to_registers(architecture):
    need_library("numba", "cuda")
    if not SCRIPT.exists():
        pytest.skip("no checkout around these tests")
    done = run(str(SCRIPT), "--json", str(architecture))
    if done.returncode == ABSENT:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    kernels = {row["kernel"].rpartition(": ")[2] for row in got}
    assert kernels >= {"chunk_sums", "merge_moments", "merge_gradients", "elementwise", "copy", "pack_signs", "merge"}
    assert {row["kernel"].partition(" ")[0] for row in got} >= {"float32", "float16", "bfloat16", "float64"}
    assert [row for row in got if row["local"] or row["spilled"]] == []
    assert [row for row in got if 2 * 256 * (row["registers"] or 0) > REGISTERS] == [], "two blocks fit side by side"
