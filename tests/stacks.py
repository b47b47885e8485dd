"""How deep the stacks of threads become in every pass: a program that test_stack runs, with a backend's name.

A thread's stack starts as zeros, so that what was written shows. Workers' are found by their size, STACK; one that had
nothing to do tells what a thread takes before it enters a kernel. Prints the most bytes above that, and the pass in
which they were reached first; or, called with a number of bytes besides, computes in a Python thread of so much stack.
"""

import ctypes
import re
import sys
import threading
from mmap import PAGESIZE

import cases
import numpy as np
import passes

import cpubn
from cpubn.backends import threads

STACK = 1003520
MANY = ("relu", "gelu", "tanh")
FEW = ("silu",)  # of Numba, which compiles for each of them


def batches():
    """Name and Batch: of every type, contiguous and strided, of values that float32 holds and others."""
    for layout, shape in passes.SHAPES:
        samples = shape[0] * int(np.prod(shape[2:]))
        b = passes.batch(cases.offset(1)(cases.rng_of(shape), shape[1], samples), layout, shape)
        wide = passes.batch(passes.wide_rows(shape[1], samples), layout, shape, eps=1e-70)
        kinds = {name: b.astype(passes.dtype_of(name)) for name in ("float64", *passes.HALVES)}
        kinds |= {"float32": b, "float32, strided": b.stepped(), "float16, strided": kinds["float16"].stepped()}
        kinds |= {"float32, wide": wide, "bytes and others": b}
        for kind, one in kinds.items():
            yield f"{layout} {shape}, {kind}", one


def every_call(backend):
    for name, b in batches():
        if "bytes" in name:
            calls = passes.converted(b, backend)
        else:
            calls = list(passes.plain(b, backend))
            for activation in FEW if backend == "numba" else MANY:
                calls += passes.fused(b, activation, backend)
        for which, call in calls:
            yield f"{name}: {which}", call


def stacks():
    """The workers' stacks, from the lowest address on, as words; a guard page may be a part of STACK.

    LLVM's OpenMP asks for some bytes more, of each thread others, which make a page more.
    """
    with open("/proc/self/maps", encoding="ascii") as maps:
        for line in maps:
            if found := re.match(r"(\w+)-(\w+) rw-p 0+ 00:00 0\s*$", line):
                start, stop = (int(address, 16) for address in found.groups())
                if abs(stop - start - STACK) <= PAGESIZE:
                    yield np.ctypeslib.as_array((ctypes.c_uint64 * ((stop - start) // 8)).from_address(start))


def depth(stack):
    """Bytes from the deepest word that was written on."""
    return stack.nbytes - 8 * int(np.argmax(stack != 0))


def measure(backend):
    cpubn.moments(np.ones((70000, 1), np.float32), backend=backend)  # two chunks, so that other threads have none
    team, deepest, where = list(stacks()), 0, ""
    idle = min(map(depth, team))
    for name, call in every_call(backend):
        call()
        if (now := max(map(depth, team))) > deepest:
            deepest, where = now, name
    print(deepest - idle, where, sep="|")


def compute(backend, done):
    for name, call in every_call(backend):
        call()
        done.append(name)


def in_a_small_thread(backend, stack):
    """After first calls, which import, compile and so on, as is no kernel's need."""
    done, again = [], []
    compute(backend, done)
    threading.stack_size(stack)
    thread = threading.Thread(target=compute, args=(backend, again))
    thread.start()
    thread.join()
    print("done" if again == done else f"ended after {again[-1:]}")


if __name__ == "__main__":
    cpubn.set_num_threads(4)
    threads.SERIAL_BYTES = 0
    np.seterr(all="ignore")
    if len(sys.argv) == 2:
        measure(sys.argv[1])
    else:
        in_a_small_thread(sys.argv[1], int(sys.argv[2]))
