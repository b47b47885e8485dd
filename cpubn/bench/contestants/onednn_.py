"""oneDNN itself, through a page of C++ that is compiled here: in the two plain memory layouts and its own.

Its own has blocks of 16 channels with AVX-512 and of 8 without, where it has no vector code for 16: training of
(8, 256, 56, 56) with AVX2 took 1500 ms in nChw16c, and 4 in nChw8c.

Where its output starts at a cache line, it stores past the caches, as it seems even what they would hold: inference of
(1, 64, 112, 112) in nChw16c took 63 to 116 us so, and 37 to 41 us with an output 16 bytes further; in NHWC, that was
ten times slower. Its own arrays are aligned, so that is oneDNN as it is used; onednn-unaligned is the other, in every
layout, since the faster of the two is what it can do.

It comes from the packages onednn-cpu-gomp and onednn-devel-cpu-gomp, whose files are looked up in their metadata.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from importlib import metadata

import numpy as np

from cpubn.bench.case import EPS, Case, Prepared, aligned, images
from cpubn.bench.contestants import Contestant
from cpubn.bench.native import compile_page
from cpubn.typing import Array

PACKAGE, HEADERS = "onednn-cpu-gomp", "onednn-devel-cpu-gomp"
VERSION = metadata.version(PACKAGE)
NOTE = "in its own memory layouts; every rank as (N, C, H, W); into a reused output, called through ctypes"
NOTE_UNALIGNED = "its output starts between cache lines; see onednn"


def contestants(threads: int) -> list[Contestant]:
    page = load()
    layouts = ("NCHW", "NHWC", f"nChw{page.block()}c")

    def prepare(case: Case, layout: str) -> Prepared:
        return prepared(case, layout, case.y(layout))

    def prepare_unaligned(case: Case, layout: str) -> Prepared:
        return prepared(case, layout, aligned(np.full_like(case.y(layout), np.nan), offset=16))

    def prepared(case: Case, layout: str, y: Array) -> Prepared:
        primitive, run = Pass(page, case, layout, threads, y), page.run
        return Prepared(lambda: run(primitive), lambda: y)

    passes = dict.fromkeys(("eval", "train", "backward", "overhead", "relu"), prepare)
    unaligned = dict.fromkeys(("eval", "train", "backward", "relu"), prepare_unaligned)
    return [
        *(Contestant("onednn", layout, passes, NOTE) for layout in layouts),
        *(Contestant("onednn-unaligned", layout, unaligned, NOTE_UNALIGNED) for layout in layouts),
    ]


@cache
def load() -> ctypes.CDLL:
    library, header = find(PACKAGE, "libdnnl.so.3"), find(HEADERS, "include/dnnl.hpp")
    page = compile_page("onednn.cpp", f"-I{os.path.dirname(header)}", library, f"-Wl,-rpath,{os.path.dirname(library)}")
    page.prepare.restype = ctypes.c_void_p
    page.prepare.argtypes = [
        *(ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_float, ctypes.c_int),
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p),
    ]
    page.run.restype = page.release.restype = None
    return page


def find(package: str, ending: str) -> str:
    for file in metadata.files(package) or ():
        if str(file).endswith(ending):
            return str(file.locate().resolve())  # type: ignore[attr-defined]
    raise ImportError(f"{package} has no {ending}")


class Pass(ctypes.c_void_p):
    """The address of a primitive, which is freed with this object, and the arrays that it works on."""

    def __init__(self, page: ctypes.CDLL, case: Case, layout: str, threads: int, y: Array) -> None:
        op = "eval" if case.op == "overhead" else case.op
        x = case.x(layout)
        dy = case.dy(layout) if op == "backward" else y
        self.page: ctypes.CDLL = page
        self.arrays: list[Array] = [x, y, dy, *vectors(case)]
        addresses = [a.ctypes.data for a in self.arrays]
        dims = images(case.x()).shape
        super().__init__(
            page.prepare(
                *(op.encode(), layout.encode(), (ctypes.c_int64 * 4)(*dims), EPS, threads),
                *(*addresses[:3], (ctypes.c_void_p * 6)(*addresses[3:])),
            )
        )
        if not self:
            raise RuntimeError(f"oneDNN refuses {op} of {case.layer.name} in {layout}")

    def __del__(self) -> None:
        self.page.release(self)


def vectors(case: Case) -> list[Array]:
    """Scale, shift, mean, variance and the gradients of scale and shift, of a length that oneDNN may read as blocks."""
    statistics = (case.mean, case.var) if case.computes in ("eval", "overhead") else (case.batch_mean, case.batch_var)
    given = (case.weight, case.bias, *statistics)
    padded = np.zeros((6, -(-len(case.weight) // 16) * 16), np.float32)
    for row, vector in zip(padded, given, strict=False):
        row[: len(vector)] = vector
    return list(padded)
