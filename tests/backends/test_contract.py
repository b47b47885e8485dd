"""The contract of backends: the same passes over samples, and on host and GPU the same operations on vectors."""

import ast
import inspect
from pathlib import Path

import pytest
from conftest import need_backend

import cpubn
from cpubn.backends import choice
from cpubn.backends.compiled import variants

BACKENDS = Path(cpubn.__file__).parent / "backends"
PASSES = {
    "moments": ["x", "stats", "threads", "weights"],
    "normalize": ["x", "affine", "epilogue", "y", "threads", "weights"],
    "train_forward": ["x", "weight", "bias", "eps", "stats", "epilogue", "y", "threads", "weights"],
    "gradient_sums": ["dy", "x", "statistics", "prologue", "sums", "threads", "weights"],
    "backward": ["dy", "x", "statistics", "prologue", "sums", "dx", "threads", "weights"],
    "pack_signs": ["y", "low", "high", "nan", "bits", "threads"],
}
# Of arrays on a GPU alone: the way there and back, and what NumPy does on the host.
ON_THE_WAY = {"array_of", "to_device", "to_host", "upload", "without_nan", "sums_of"}


def functions_of(*names):
    """Public functions by name, with their arguments, defaults included, as files have them; nothing is imported."""
    found = {}
    for name in names:
        for node in ast.parse((BACKENDS / name).read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                for argument in ast.walk(node.args):
                    if isinstance(argument, ast.arg):
                        argument.annotation = None
                found[node.name] = ast.unparse(node.args)
    return found


def test_all_backends_have_the_same_passes(backend):
    """Same functions, in the same order, with the same arguments."""
    module = choice.kernels(backend)
    named = vars(module) if inspect.ismodule(module) else [n for kind in type(module).__mro__ for n in vars(kind)]
    public = [name for name in named if name in PASSES and callable(getattr(module, name))]
    assert public == list(PASSES)
    assert {name: list(inspect.signature(getattr(module, name)).parameters) for name in PASSES} == PASSES


@pytest.mark.parametrize("name", ["reference.py", "jit/passes.py", "gpu/passes.py"])
def test_all_files_of_passes_have_the_same(name):
    """Also where neither Numba nor a GPU is."""
    found = functions_of(name)
    assert [name for name in found if name in PASSES] == list(PASSES)
    assert {name: found[name].removesuffix("=None").split(", ") for name in PASSES} == PASSES


@pytest.mark.parametrize(
    ("module", "kind", "names"),
    [("planner", "CompiledKernels", variants.NAMES), ("calls", "Calls", variants.CALLS)],
    ids=["kernels", "calls"],
)
def test_the_stubs_name_what_compiled_code_must_have(module, kind, names):
    stub = ast.parse((BACKENDS / "compiled" / f"{module}.pyi").read_text("utf-8"))
    node = next(node for node in stub.body if isinstance(node, ast.ClassDef) and node.name == kind)
    named = [n.target.id if isinstance(n, ast.AnnAssign) else n.name for n in node.body]
    assert [name for name in named if name != "name" and not name.startswith("__")] == [*names]
    if kind == "CompiledKernels":
        methods = {n.name: [a.arg for a in n.args.args[1:]] for n in node.body if isinstance(n, ast.FunctionDef)}
        assert {name: methods.get(name) for name in PASSES} == PASSES


def test_all_instruction_sets_have_the_same_names(isa):
    need_backend("cython")
    assert type(variants.load(isa)) is type(variants.load("baseline"))
    assert variants.load(isa).name == isa


def test_host_and_gpu_have_the_same_operations_on_vectors():
    on_host, on_gpu = functions_of("host.py"), functions_of("gpu/memory.py", "gpu/vectors.py")
    del on_gpu["take"], on_gpu["workspace"]  # kernels' own
    assert {name: on_gpu.get(name) for name in on_host} == on_host
    assert set(on_gpu) - set(on_host) == ON_THE_WAY
    # place_of looks for all of them in one module, which must have those of memory.py, too.
    imported = {
        alias.name
        for node in ast.parse((BACKENDS / "gpu" / "vectors.py").read_text("utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(on_host) <= imported | set(functions_of("gpu/vectors.py"))
