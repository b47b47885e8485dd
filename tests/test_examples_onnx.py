"""The example that trains, writes, folds and runs an ONNX model: what it prints, and what it leaves."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import need_library

for library in ("PIL", "sklearn", "threadpoolctl", "safetensors"):
    need_library(library, "demo")
for library in ("onnx", "onnxruntime"):
    need_library(library, "frameworks")

EXAMPLE = Path(__file__).parents[1] / "examples" / "fold_digits.py"


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=240, check=False)


def test_before_and_after_predict_the_same(tmp_path):
    import onnx

    done = run(EXAMPLE, "--output", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [["pixels", "1"], ["bn1", "16"], ["bn2", "32"]]
    assert "folded 3 of 3 batch norms" in lines
    difference, largest = re.search(r"outputs (\S+), of values up to (\S+) \(onnxruntime, given", done.stdout).groups()
    assert float(difference) < 1e-5 * float(largest)
    assert "360 of 360 predictions are equal." in lines
    rows = [line.split() for line in lines[-2:]]
    assert [row[:2] for row in rows] == [["trained", "9"], ["folded", "6"]]
    assert rows[0][2] == rows[1][2]
    assert float(rows[0][2].rstrip("%")) > 90
    assert all(float(row[3]) > 0 for row in rows)
    for name, norms in (("trained", 3), ("folded", 0)):
        made = onnx.load(tmp_path / f"{name}.onnx")
        assert sum(node.op_type == "BatchNormalization" for node in made.graph.node) == norms
    assert {path.name for path in tmp_path.iterdir()} == {"trained.onnx", "folded.onnx"}


@pytest.mark.parametrize("absent", ["onnx", "onnxruntime"])
def test_missing_library(absent):
    program = (
        f"import sys; sys.path.insert(0, {str(EXAMPLE.parent)!r}); sys.modules[{absent!r}] = None; import fold_digits"
    )
    done = run("-c", program)
    assert done.returncode == 1
    assert done.stderr.startswith("this example needs onnx and onnxruntime; install with: pip install")


def test_a_folder_that_is_not_there():
    done = run(EXAMPLE, "--output", "no/such")
    assert done.returncode == 2
    assert "argument --output: must name a folder that exists, got 'no/such'" in done.stderr
