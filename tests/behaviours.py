"""Digests of every pass under other control registers: a program that test_register runs, with a backend's name.

Prints JSON: {"digests": {"behaviour, threads": {pass: digest}}, "changed": [passes that left another register]}.
"""

import json
import sys

import cases
import numpy as np
import passes
import register
from digests import digest

import cpubn
from cpubn.backends import choice, threads

# Threads are begun under the first of them, which they inherit.
BEHAVIOURS = {"flushes": (2, 1), "rounds upward": (2, 1), "usual": (1,)}
MANY = ("relu", "silu", "tanh")
FEW = ("silu",)  # of Numba, which compiles for each of them
SHAPES = passes.SHAPES[::2]


def batches():
    """Name and Batch: of subnormal numbers beside others, in x, dy and results."""
    for layout, shape in SHAPES:
        samples = shape[0] * int(np.prod(shape[2:]))
        rows, tiny = (cases.FAMILIES[name](cases.rng_of(shape), shape[1], samples) for name in ("mixed scales", "tiny"))
        rows[::3] = tiny[::3]
        b = passes.batch(rows, layout, shape)
        b = b._replace(weight=b.weight * 1e-38, bias=b.bias * 1e-40, dy=b.dy * np.float32(1e-38))
        yield f"{layout}, float32", b
        yield f"{layout}, float32, strided", b.stepped()
        yield f"{layout}, float32, hardly an eps", b._replace(eps=1e-80)
        double = b.astype("float64")
        yield f"{layout}, float64", double._replace(x=double.x * 1e-270, dy=double.dy * 1e-300, eps=1e-300)
        for half in passes.HALVES:
            yield f"{layout}, {half}", b.astype(passes.dtype_of(half))
        yield f"{layout}, bytes and others", b


def every_call(backend):
    for name, b in batches():
        calls = list((passes.converted if "bytes" in name else passes.plain)(b, backend))
        if name.endswith(("32", "16")):
            for activation in FEW if backend == "numba" else MANY:
                calls += passes.fused(b, activation, backend)
        for which, call in calls:
            yield f"{name}: {which}", call


def main(backend):
    threads.SERIAL_BYTES = 0
    choice.kernels(backend)
    calls = dict(every_call(backend))
    digests, changed = {}, []
    for behaviour, counts in BEHAVIOURS.items():
        for count in counts:
            cpubn.set_num_threads(count)
            way = digests[f"{behaviour}, {count}"] = {}
            for name, call in calls.items():
                with register.behaving(behaviour):
                    before = register.read()
                    arrays = call()
                    after = register.read()
                way |= {f"{name}: {of}": digest([a]) for of, a in arrays.items()}
                if after != before:
                    changed.append(f"{behaviour}: {name}")
    print(json.dumps({"digests": digests, "changed": changed}))


if __name__ == "__main__":
    np.seterr(all="ignore")
    main(sys.argv[1])
