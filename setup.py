"""The extensions: kernels once for each instruction set from one source, and what enters them; each is optional.

A report says what is missing and why.
"""

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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

COMPILED = "cpubn/backends/compiled"
PACKAGE = COMPILED.replace("/", ".")
REPORT = f"{COMPILED}/_build.json"
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
    "freethreading_compatible": True,  # what they keep is set once, or belongs to the caller
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
    spec = importlib.util.spec_from_file_location("isa", "cpubn/machine/isa.py")
    isa = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(isa)
    return isa


ISA = load_isa()
VARIANTS = {f"{PACKAGE}.{variant.name}": variant for variant in ISA.INSTRUCTION_SETS}
# Extensions of the baseline, which all variants are entered by: without them there are no kernels.
COMMON = {f"{PACKAGE}.{name}": f"{COMPILED}/{name}.pyx" for name in ("planner", "calls", "entries", "tensors")}


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


def spawned(output: list[str], command: Sequence[str], **_: Any) -> None:
    """Run a compiler's command; what it says goes to stderr, and to a list."""
    done = subprocess.run(list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    output += done.stdout.splitlines()
    print(done.stdout, end="", file=sys.stderr)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed with exit code {done.returncode}")


class BuildVariants(build_ext):
    """Build every variant that this machine and compiler can, and say in _build.json why another is missing."""

    has_kernels = True

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
        for extension in self.extensions:
            variant = VARIANTS.get(extension.name, ISA.INSTRUCTION_SETS[0])
            extension.extra_compile_args = [*ISA.FLAGS[self.family], *variant.flags[self.family]]
            # Of symbols that no loader asks for, 110 KB.
            extension.extra_link_args = ["-Wl,--strip-all"] if sys.platform.startswith("linux") else []
            if extension.name in COMMON:
                extension.extra_compile_args += openmp[0]
                extension.extra_link_args += openmp[1]
        reasons = self.build_each()
        self.has_kernels = reasons[ISA.INSTRUCTION_SETS[0].name] is None
        report = {
            "compiler": self.no_compiler or self.version(),
            "openmp": openmp_failure is None,
            "openmp_reason": openmp_failure,
            "variants": {name: {"built": reason is None, "reason": reason} for name, reason in reasons.items()},
        }
        for root in (self.build_lib, "."):
            path = Path(root, REPORT)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

    def build_each(self) -> dict[str, str | None]:
        """Build all extensions, side by side where messages can be told apart; why each variant is missing."""
        failures = {extension.name: self.translate(extension) for extension in self.extensions}
        with ThreadPoolExecutor((os.cpu_count() or 1) if self.family == "unix" else 1) as pool:
            built = pool.map(self.attempt, [e for e in self.extensions if failures[e.name] is None])
            failures |= dict(built)
        common = next((failures[name] for name in COMMON if failures[name]), None)
        reasons = {variant.name: failures[name] or common for name, variant in VARIANTS.items()}
        for name, reason in reasons.items():
            if reason and REQUIRED and not reason.startswith("not for "):
                raise SystemExit(f"CPUBN_REQUIRE_EXT is set, and the {name} kernels were not built: {reason}")
            if reason:
                print(f"cpubn: warning: the {name} kernels are not built: {reason}", file=sys.stderr)
        for extension in self.extensions:
            if failures[extension.name]:
                self.remove_stale(extension)
        return reasons

    def translate(self, extension: Extension) -> str | None:
        """Cython's part, in a folder for each, as variants have one source; why there is nothing to compile."""
        variant = VARIANTS.get(extension.name)
        machine = platform.machine()
        if variant and variant.machines is not None and machine.lower() not in variant.machines:
            return f"not for {machine}"
        if self.no_compiler:
            return self.no_compiler
        try:
            with captured() as output:
                from Cython.Build import cythonize  # here, so that its absence is one more reason
                from numpy import get_include

                extension.include_dirs = [COMPILED, "cpubn/include", get_include()]
                folder = f"build/cython/{extension.name.rpartition('.')[2]}"
                [made] = cythonize([extension], build_dir=folder, compiler_directives=DIRECTIVES)
                extension.sources = made.sources
        except Exception as error:
            return self.said(error, output)
        return None

    def attempt(self, extension: Extension) -> tuple[str, str | None]:
        """Build one extension; return its name and what went wrong."""
        print(f"cpubn: building {extension.name}", file=sys.stderr)
        output: list[str] = []
        try:
            if self.family == "unix":
                # A compiler of this thread's own, whose commands' messages go to no other.
                mine = copy(self)
                mine.compiler = copy(self.compiler)
                mine.compiler.spawn = partial(spawned, output)
                build_ext.build_extension(mine, extension)
            else:
                with captured() as output:
                    super().build_extension(extension)
        except Exception as error:  # the compiler's, the linker's: the install goes on without this one
            return extension.name, self.said(error, output)
        return extension.name, None

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
        for path in (built, Path(COMPILED, built.name)):
            path.unlink(missing_ok=True)

    def get_outputs(self) -> list[str]:
        outputs = [*super().get_outputs(), str(Path(self.build_lib, REPORT))]
        return [path for path in outputs if Path(path).exists()]  # setuptools names optional ones that failed as well

    def get_output_mapping(self) -> dict[str, str]:
        mapping = {path: source for path, source in super().get_output_mapping().items() if Path(path).exists()}
        return mapping | {str(Path(self.build_lib, REPORT)): REPORT} if self.inplace else mapping


class TaggedWheel(bdist_wheel):
    """A wheel without kernels is py3-none-any, as pure Python is: where one with them is offered, pip takes that."""

    def get_tag(self) -> tuple[str, str, str]:
        if not self.get_finalized_command("build_ext").has_kernels:
            self.root_is_pure = True
        return super().get_tag()


SOURCES = dict.fromkeys(VARIANTS, f"{COMPILED}/kernels.pyx") | COMMON
setup(
    ext_modules=[
        Extension(
            name,
            [source],
            language="c++",
            depends=[
                "setup.py",
                "cpubn/machine/isa.py",
                *sorted(
                    glob(f"{COMPILED}/*.px[dy]") + glob(f"{COMPILED}/*.hpp") + ["cpubn/include/cpubn.h", "cpubn/c.pxd"]
                ),
            ],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
            optional=True,
        )
        for name, source in SOURCES.items()
    ],
    cmdclass={"build_ext": BuildVariants, "bdist_wheel": TaggedWheel},
)
