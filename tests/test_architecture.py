"""What may import what, how long files are, and how many parameters functions have."""

import ast
import re
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
if not (CHECKOUT / "cpubn" / "backends" / "compiled" / "kernels.pyx").exists():
    pytest.skip("no sources beside these tests", allow_module_level=True)

# From the bottom to the top: each imports what stands in its own row, or in one before it.
ROWS = (
    ("typing", "version", "c"),
    ("maths", "machine"),
    ("backends",),
    ("ask",),
    ("functional", "halves", "frozen", "statistics", "layers", "images", "folding", "recalibration"),
    ("convert", "torch", "sklearn", "dask", "mpi"),
    ("inspection",),
    ("",),  # the package itself, whose names are those of the rows above
    ("bench", "demo", "capi"),
    ("njit", "jax"),
    ("cli", "__main__"),
)
ROW = {name: row for row, names in enumerate(ROWS) for name in names}
# Who imports more than NumPy, beside bench and demo, which run what they show.
LIBRARIES = {"backends.jit": {"numba", "llvmlite"}, "backends.gpu": {"numba"}}
LIBRARIES |= {"inspection.command": {"rich"}, "inspection.table": {"rich"}, "inspection.plot": {"matplotlib"}}
LIBRARIES["mpi"] = {"mpi4py"}
LIBRARIES["recalibration.progress"] = {"rich"}
LIBRARIES["njit"] = {"numba", "llvmlite"}
LIBRARIES |= {"sklearn": {"sklearn", "scipy"}, "dask": {"cloudpickle", "dask"}}
LIBRARIES["jax"] = {"jax", "jaxlib"}
LIBRARIES["frozen"] = {"typing_extensions"}  # for type checkers alone


def module_of(path):
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path):
    """The modules that a file imports or names in a string, wherever in it."""
    if path.suffix in (".pyx", ".pxd"):
        yield from re.findall(r"^\s*(?:from|import|cimport) ([\w.]+)", path.read_text("utf-8"), re.M)
        return
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in whole)
        elif isinstance(node, ast.Constant) and node.value in MODULES and node.value != "cpubn":
            yield node.value


FILES = [path for path in (CHECKOUT / "cpubn").rglob("*") if path.suffix in (".py", ".pyi", ".pyx", ".pxd")]
MODULES = {module_of(path) for path in FILES}
IMPORTS = {path: set(imports_of(path)) - {module_of(path)} for path in FILES}


def row_of(module):
    return ROW[module.removeprefix("cpubn").strip(".").partition(".")[0]]


def test_imports_run_downward():
    upward = {
        (module_of(path), name)
        for path, names in IMPORTS.items()
        for name in names
        if name in MODULES and row_of(name) > row_of(module_of(path))
    }
    assert upward == set()


def test_imports_run_in_no_circle():
    graph = {module_of(path): names & MODULES for path, names in IMPORTS.items() if path.suffix == ".py"}
    TopologicalSorter(graph).prepare()


def test_numpy_alone_is_imported():
    free = re.compile(r"cpubn/(convert|torch|bench|demo)/")
    for path, names in IMPORTS.items():
        if path.suffix != ".py" or free.match(path.relative_to(CHECKOUT).as_posix()):
            continue
        others = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"numpy", "cpubn"}
        allowed = [
            libraries for name, libraries in LIBRARIES.items() if f"{module_of(path)}.".startswith(f"cpubn.{name}.")
        ]
        assert others <= set().union(*allowed), path


def test_formulas_import_each_other_alone():
    for path, names in IMPORTS.items():
        if row_of(module_of(path)) == ROW["maths"]:
            assert {name for name in names if name.startswith("cpubn")} <= {m for m in MODULES if ".maths" in m}, path


def test_no_file_is_long():
    kinds = (".py", ".pyi", ".pyx", ".pxd", ".hpp", ".cpp", ".h", ".c")
    paths = [path for top in ("cpubn", "tests", "benchmarks") for path in (CHECKOUT / top).rglob("*")]
    lines = {p.relative_to(CHECKOUT).as_posix(): p.read_text("utf-8").count("\n") for p in paths if p.suffix in kinds}
    assert {name: count for name, count in lines.items() if count > 300} == {}


# Functions of more than 6 parameters, beside those that Numba compiles, which take arrays and numbers one by one.
PUBLIC = {  # users give most of them by name
    "folding.fold.fold_conv",
    "folding.fold.fold_into_next_conv",
    "folding.verify.verify_fold",
    "frozen.__init__",
    "frozen.quantized",
    "functional.batch_norm",
    "functional.batch_norm_backward",
    "functional.moments",
    "halves.gradient_sums",
    "images.normalize_images",
    "jax.functions.batch_norm",
    "layers.batch_norm.__call__",
    "layers.batch_norm.__init__",
    "recalibration.recalibrate.recalibrate",
    "statistics.update",
}
PASSES = {
    f"backends.{name}.{p}"
    for name in ("reference", "jit.passes", "gpu.passes")
    for p in ("train_forward", "gradient_sums", "backward")
}
FORMULAS = {
    f"maths.algebra.{name}" for name in ("affine", "gradient", "merge", "unmerge")
}  # of numbers as much as of vectors
OTHERS = {
    "backends.jit.totals.sum_pending",
    "backends.jit.sums.take",
    "torch.operators.gradients",  # of an operator of torch, to which tensors and numbers are given one by one
}


def functions_of(node):
    """Of a file or a class, without those that Numba compiles: by a decorator of its, or within another function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from functions_of(child)
        elif isinstance(child, ast.FunctionDef):
            made = {ast.unparse(d).partition("(")[0] for d in child.decorator_list}
            if not made & {"compiled", "inlined", "device", "launched", "overload", "overload_method", "intrinsic"}:
                yield child


def test_functions_have_few_parameters():
    many = set()
    for path in FILES:
        if path.suffix == ".py":
            for function in functions_of(ast.parse(path.read_text("utf-8"))):
                arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
                if len([a for a in arguments if a.arg not in ("self", "cls")]) > 6:
                    many.add(f"{module_of(path).removeprefix('cpubn.')}.{function.name}")
    assert many == PUBLIC | PASSES | FORMULAS | OTHERS


def test_every_file_stands_in_the_design():
    text = (CHECKOUT / "docs" / "design.md").read_text("utf-8")
    tree, folder, named = text[text.index("## The files") : text.index("## Words")], "", set()
    for line in tree.splitlines():
        found = re.match(r"( {4,6})([\w/]+/|[\w.]+\.\w+)(?: |$)", line)
        if found and found[2].endswith("/"):
            folder = found[2]
        elif found:
            named.add((folder if len(found[1]) == 6 else "") + found[2])
    here = {path.relative_to(CHECKOUT / "cpubn").as_posix() for path in (CHECKOUT / "cpubn").rglob("*")}
    others = re.compile(r"(bench|demo|convert)/|(.*/)?__\w+__\.py$|.*\.pyi$")
    kinds = (".py", ".pyx", ".pxd", ".hpp", ".cpp", ".h")
    assert named == {name for name in here if name.endswith(kinds) and not others.match(name)}
