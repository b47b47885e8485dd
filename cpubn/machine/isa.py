"""The instruction sets that the Cython kernels are compiled for: one table for setup.py, for dispatch and for tests.

It imports nothing of the package, so that setup.py can load it from its path before there is a package to import.
"""

from typing import NamedTuple

X86_64 = frozenset({"x86_64", "amd64"})


class InstructionSet(NamedTuple):
    """One variant of the extension: the same source, compiled for more than every CPU has."""

    name: str  # as in CPUBN_ISA, and the module's in cpubn.backends.compiled
    feature: str | None  # what the CPU must have, as in planner.cpu_features(); None: nothing
    machines: frozenset[str] | None  # lower-case platform.machine() that it can be built for; None: any
    flags: dict[str, tuple[str, ...]]  # by compiler family, after FLAGS


# Baseline first, best last. Baseline takes the compiler's default, which is x86-64-v1 unless a distribution raised it.
# -mfma is for exact products: -ffp-contract=off keeps the compiler from contracting others, which would round once in
# one instruction set and twice in another. -mf16c needs no test of its own: every CPU with AVX2 and FMA has F16C.
# -Wno-uninitialized is for GCC 12, which warns of its own AVX-512 header over a thousand times.
INSTRUCTION_SETS = (
    InstructionSet("baseline", None, None, {"unix": (), "msvc": ()}),
    InstructionSet("avx2", "avx2", X86_64, {"unix": ("-mavx2", "-mfma", "-mf16c"), "msvc": ("/arch:AVX2",)}),
    InstructionSet(
        "avx512",
        "avx512",
        X86_64,
        {
            "unix": (
                *("-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
                "-Wno-uninitialized",
            ),
            "msvc": ("/arch:AVX512",),
        },
    ),
)

# -fno-fast-math undoes a -ffast-math in the user's CFLAGS, which stand before these, and -g0 a -g. -fno-math-errno
# changes no result: sqrt becomes one correctly rounded instruction instead of a call that may set errno, which nobody
# reads. Nor does -fno-trapping-math: both sides of a selection may be computed.
FLAGS: dict[str, tuple[str, ...]] = {
    "unix": (
        *("-O3", "-g0", "-std=c++17", "-fno-fast-math", "-ffp-contract=off"),
        *("-fno-math-errno", "-fno-trapping-math"),
    ),
    "msvc": ("/O2", "/std:c++17", "/fp:precise"),
}
