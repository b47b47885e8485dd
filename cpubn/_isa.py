"""The instruction sets that the Cython kernels are compiled for: one table for setup.py, for dispatch and for tests.

It imports nothing of the package, so that setup.py can load it from its path before there is a package to import.
"""

from typing import NamedTuple

X86_64 = frozenset({"x86_64", "amd64"})


class InstructionSet(NamedTuple):
    """One variant of the extension: the same source, compiled for more than every CPU has."""

    name: str  # as in CPUBN_ISA
    module: str  # in cpubn.kernels; its .pyx has the same name
    feature: str | None  # what the CPU must have, as in _cython.cpu_features(); None: nothing
    machines: frozenset[str] | None  # lower-case platform.machine() that it can be built for; None: any
    flags: dict[str, tuple[str, ...]]  # by compiler family, after FLAGS


# Baseline first, best last. Baseline takes the compiler's default, which is x86-64-v1 unless a distribution raised it.
# -mfma is for exact products: -ffp-contract=off keeps the compiler from contracting others, which would round once in
# one instruction set and twice in another. -mf16c needs no test of its own: every CPU with AVX2 and FMA has F16C.
INSTRUCTION_SETS = (
    InstructionSet("baseline", "_cython", None, None, {"unix": (), "msvc": ()}),
    InstructionSet(
        "avx2", "_cython_avx2", "avx2", X86_64, {"unix": ("-mavx2", "-mfma", "-mf16c"), "msvc": ("/arch:AVX2",)}
    ),
    InstructionSet(
        "avx512",
        "_cython_avx512",
        "avx512",
        X86_64,
        {
            "unix": ("-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"),
            "msvc": ("/arch:AVX512",),
        },
    ),
)

# -fno-fast-math undoes a -ffast-math in the user's CFLAGS, which stand before these. -fno-math-errno changes no result:
# sqrt becomes one correctly rounded instruction instead of a call that may set errno, which nobody reads. Nor does
# -fno-trapping-math: both sides of a selection may be computed, without which GCC makes vectors of most activations in
# AVX-512 alone, and they take 4 to 60 times as long in AVX2. What is declared inline must be: GCC, which weighs a whole
# file's growth, left exp a call in the loops of silu and tanh, which then took 10 times as long.
FLAGS = {
    "unix": (
        *("-O3", "-fno-fast-math", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
        "-DCYTHON_INLINE=inline __attribute__((always_inline))",
    ),
    "msvc": ("/O2", "/fp:precise", "/DCYTHON_INLINE=__forceinline"),
}

# Taken where the compiler knows them. This one keeps GCC from unrolling loops over 8 lanes, of which it then makes no
# vectors: 1.8x where runs are short.
OPTIONAL_FLAGS = {"unix": ("--param=max-completely-peel-times=7",), "msvc": ()}
