"""The extensions: one per instruction set from one source, each optional, and a report of what is missing and why."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNELS = "cpubn/kernels"
REPORT = f"{KERNELS}/_build.json"
REQUIRED = os.environ.get("CPUBN_REQUIRE_EXT", "") not in ("", "0")
DIRECTIVES = {
    "language_level": 3,
    "binding": True,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "auto_pickle": False,
    "autotestdict": False,
}
# (compiler flags, linker flags) to try in turn. Apple's clang has no -fopenmp of its own and needs a libomp that it can
# find: CFLAGS=-I.../libomp/include LDFLAGS=-L.../libomp/lib.
OPENMP = {
    "unix": [(["-fopenmp"], ["-fopenmp"])],
    "msvc": [(["/openmp"], [])],
}
if sys.platform == "darwin":
    OPENMP["unix"].append((["-Xpreprocessor", "-fopenmp"], ["-lomp"]))
EMPTY_PROGRAM = "int cpubn_nothing(void) { return 0; }"
OPENMP_PROGRAM = """
#include <omp.h>
int cpubn_threads(void) {
    int n = 0;
    #pragma omp parallel reduction(+:n)
    n += 1;
    return n + omp_get_max_threads();
}
"""


def load_isa() -> Any:
    spec = importlib.util.spec_from_file_location("isa", "cpubn/_isa.py")
    isa = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(isa)
    return isa


ISA = load_isa()
VARIANTS = {f"cpubn.kernels.{variant.module}": variant for variant in ISA.INSTRUCTION_SETS}


@contextmanager
def captured() -> Iterator[list[str]]:
    """Collect in a list what this process and its children write meanwhile, and pass it on to stderr."""
    lines: list[str] = []
    with tempfile.TemporaryFile("w+", errors="replace") as file:
        saved = [(number, os.dup(number)) for number in (1, 2)]
        for number, _ in saved:
            os.dup2(file.fileno(), number)
        try:
            yield lines
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in saved:
                os.dup2(copy, number)
                os.close(copy)
            file.seek(0)
            lines += file.read().splitlines()
            for line in lines:
                print(line, file=sys.stderr)


class BuildVariants(build_ext):
    """Build every variant that this machine and compiler can, and say in _build.json why another is missing."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = None  # `captured` could not tell the compilers' messages apart

    def run(self) -> None:
        super().run()
        if not self.inplace:
            # The package lies flat in the repository: `python -m cpubn`, started there, imports the source tree.
            self.copy_extensions_to_source()

    def build_extensions(self) -> None:
        self.family = "msvc" if self.compiler.compiler_type == "msvc" else "unix"
        self.name = " ".join(self.compiler.compiler_so[:1]) if self.family == "unix" else "msvc"
        failure = self.failure(EMPTY_PROGRAM)
        self.no_compiler = failure and f"no C compiler: {self.name} cannot compile an empty program: {failure}"
        openmp, openmp_failure = self.find_openmp()
        known = [flag for flag in ISA.OPTIONAL_FLAGS[self.family] if self.failure(EMPTY_PROGRAM, [flag]) is None]
        self.reasons: dict[str, str | None] = {}
        for extension in self.extensions:
            variant = VARIANTS[extension.name]
            extension.extra_compile_args = [*ISA.FLAGS[self.family], *known, *variant.flags[self.family], *openmp[0]]
            extension.extra_link_args = openmp[1]
        super().build_extensions()
        report = {
            "compiler": self.no_compiler or self.version(),
            "options": known,
            "openmp": openmp_failure is None,
            "openmp_reason": openmp_failure,
            "variants": {name: {"built": reason is None, "reason": reason} for name, reason in self.reasons.items()},
        }
        for root in (self.build_lib, "."):
            path = Path(root, REPORT)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

    def build_extension(self, extension: Extension) -> None:
        variant = VARIANTS[extension.name]
        machine = platform.machine()
        if variant.machines is not None and machine.lower() not in variant.machines:
            reason = f"not for {machine}"
        else:
            reason = self.no_compiler or self.attempt(extension)
            if reason and REQUIRED:
                raise SystemExit(f"CPUBN_REQUIRE_EXT is set, and the {variant.name} kernels were not built: {reason}")
        self.reasons[variant.name] = reason
        if reason:
            print(f"cpubn: warning: the {variant.name} kernels are not built: {reason}", file=sys.stderr)
            self.remove_stale(extension)

    def attempt(self, extension: Extension) -> str | None:
        """Build one extension; return what went wrong."""
        print(f"cpubn: building {extension.name}", file=sys.stderr)
        try:
            with captured() as output:
                self.cythonize(extension)
                super().build_extension(extension)
        except Exception as error:  # Cython's, the compiler's, the linker's: the install goes on without this one
            return self.said(error, output)
        return None

    def cythonize(self, extension: Extension) -> None:
        from Cython.Build import cythonize  # here, so that its absence is one more reason
        from numpy import get_include

        extension.include_dirs = [KERNELS, get_include()]
        [made] = cythonize([extension], build_dir="build/cython", compiler_directives=DIRECTIVES)
        extension.sources = made.sources

    def find_openmp(self) -> tuple[tuple[list[str], list[str]], str | None]:
        """The first flags with which a small program compiles and links, and why there are none."""
        if self.no_compiler:
            return ([], []), self.no_compiler
        for flags in OPENMP[self.family]:
            failure = self.failure(OPENMP_PROGRAM, *flags)
            if failure is None:
                return flags, None
        print(f"cpubn: warning: no OpenMP, so the kernels are built serial: {failure}", file=sys.stderr)
        return ([], []), failure

    def failure(self, program: str, compile_flags: Sequence[str] = (), link_flags: Sequence[str] = ()) -> str | None:
        """Compile and link a small program; return what went wrong."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "program.c")
            source.write_text(program, encoding="utf-8")
            library = str(Path(folder, "program.so"))
            try:
                with captured() as output:
                    objects = self.compiler.compile(
                        [str(source)], output_dir=folder, extra_postargs=list(compile_flags)
                    )
                    self.compiler.link_shared_object(objects, library, extra_postargs=list(link_flags))
            except Exception as error:
                return self.said(error, output)
        return None

    def said(self, error: Exception, output: list[str]) -> str:
        """The last lines of what Cython or the compiler said, without the commands that setuptools prints."""
        if self.family == "unix" and shutil.which(self.name) is None:
            return f"{self.name} was not found"
        noise = (self.name, "Compiling ", "[1/1] ", "building ")
        lines = [line for line in output if line.strip() and not line.startswith(noise)]
        return "\n".join(lines[-8:]) or f"it failed without a word ({type(error).__name__})"

    def version(self) -> str:
        if self.family == "msvc":
            return self.name
        answer = subprocess.run([self.name, "--version"], capture_output=True, text=True, check=False)
        return answer.stdout.partition("\n")[0] or self.name

    def remove_stale(self, extension: Extension) -> None:
        """An extension of an earlier build must not stand beside a report that says it is not there."""
        built = Path(self.get_ext_fullpath(extension.name))
        for path in (built, Path(KERNELS, built.name)):
            path.unlink(missing_ok=True)

    def get_outputs(self) -> list[str]:
        outputs = [*super().get_outputs(), str(Path(self.build_lib, REPORT))]
        return [path for path in outputs if Path(path).exists()]  # setuptools names optional ones that failed as well

    def get_output_mapping(self) -> dict[str, str]:
        mapping = {path: source for path, source in super().get_output_mapping().items() if Path(path).exists()}
        return mapping | {str(Path(self.build_lib, REPORT)): REPORT} if self.inplace else mapping


setup(
    ext_modules=[
        Extension(
            name,
            [f"{KERNELS}/{variant.module}.pyx"],
            depends=["setup.py", "cpubn/_isa.py", *sorted(glob(f"{KERNELS}/*.px[di]") + glob(f"{KERNELS}/*.h"))],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
            optional=not REQUIRED,
        )
        for name, variant in VARIANTS.items()
    ],
    cmdclass={"build_ext": BuildVariants},
)
