"""Numba's words, lane by lane against NumPy: on random bits and special values, of every type of samples."""

import importlib.util
import sys
from fractions import Fraction

import cases
import numpy as np
import pytest
from conftest import need_backend
from lane_values import REALS, assert_bits, assert_same, bits, lanes_in, quietly, values

need_backend("numba")

from numba import njit
from numba.core.errors import TypingError

from cpubn.backends.jit import samples
from cpubn.backends.jit.lanes import (
    fma,
    fold,
    lanes,
    last,
    max,
    min,
    narrow,
    pack,
    plus,
    power_of_two,
    select,
    sqrt,
    unpack,
    widen,
)
from cpubn.backends.jit.samples import Bfloats, Halves, at, load, prefetch, store, stream

compiled = njit(error_model="numpy", nogil=True)


@compiled
def arithmetic(a, b, sums, n, step):
    for i in range(0, n, step):
        x, y = load(a, i), load(b, i)
        results = x + y, x - y, x * y, x / y, plus(x, y), sqrt(x)
        for row in range(len(results)):
            store(sums, row * n + i, results[row])


@pytest.mark.parametrize("real", REALS)
def test_arithmetic(real):
    a, b = values(real, "a"), values(real, "b")
    got = np.zeros((6, a.size), real)
    arithmetic(a, b, got.ravel(), a.size, lanes_in(real))
    with np.errstate(all="ignore"):
        want = a + b, a - b, a * b, a / b, a + b, np.sqrt(a)
    for one, other in zip(got, want, strict=True):
        assert_same(one, other)


@compiled
def choices(a, b, chosen, packed, n, step, m):
    for i in range(0, n, step):
        x, y = load(a, i), load(b, i)
        masks = x < y, x <= y, x > y, x >= y, x == y, (x < y) | (x == y), (x <= y) & (x >= y)
        for row in range(len(masks)):
            packed[row, i // step] = pack(masks[row])
        back = unpack(packed[0, i // step], x)
        results = max(x, y), min(x, y), select(x < y, x, y), select(back, x, y), -x, last(x, m), power_of_two(x)
        for row in range(len(results)):
            store(chosen, row * n + i, results[row])


@pytest.mark.parametrize("real", REALS)
def test_choices(real):
    a, b, step, m = values(real, "a"), values(real, "b"), lanes_in(real), 5
    b[::7] = a[::7]
    got, packed = np.zeros((7, a.size), real), np.zeros((7, a.size // step), np.uint32)
    choices(a, b, got.ravel(), packed, a.size, step, m)
    with np.errstate(invalid="ignore"):
        masks = a < b, a <= b, a > b, a >= b, a == b, a <= b, a == b
    for one, other in zip(packed, masks, strict=True):
        np.testing.assert_array_equal(one, (other.reshape(-1, step) << np.arange(step)).sum(1))
    rest = np.where(np.arange(a.size) % step >= step - m, a, real(0))
    power = (bits(a) << (23 if real == np.float32 else 52)).view(real)
    chosen = np.where(masks[0], a, b)
    assert_bits(got, np.array([np.where(masks[0], b, a), np.where(masks[2], b, a), chosen, chosen, -a, rest, power]))


def nearest(exact, real):
    """A fraction rounded to nearest, ties to even."""
    guess = real(float(exact))
    around = np.nextafter(guess, real(-np.inf)), guess, np.nextafter(guess, real(np.inf))
    return sorted(around, key=lambda r: (abs(Fraction(float(r)) - exact), int(bits(np.array([r]))[0]) & 1))[0]


@compiled
def fused(a, b, c, out, n, step):
    for i in range(0, n, step):
        store(out, i, fma(load(a, i), load(b, i), load(c, i)))


@pytest.mark.parametrize("real", REALS)
def test_fma(real):
    rng, n = cases.rng_of("fma"), lanes_in(real) * 16
    a, b = rng.normal(size=(2, n)).astype(real)
    short = bits(a)[::4]
    short[:] = short >> 3 * a.itemsize << 3 * a.itemsize  # among these are halfway cases
    c = (-a * b * rng.choice([0, 1, 1e-7, 1, 1e9], n)).astype(real) + rng.choice([0, 1], n).astype(real)
    out = np.zeros(n, real)
    fused(a, b, c, out, n, lanes_in(real))
    exact = [Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)) for x, y, z in zip(a, b, c, strict=True)]
    np.testing.assert_array_equal(out, np.array([nearest(e, real) for e in exact]))


@compiled
def widths(a, d, wide, narrowed, folded):
    store(wide, 0, widen(load(a, 0), 0))
    for half in range(2):
        store(wide, 16 * half, widen(load(a, 0), half))
    store(narrowed, 0, narrow(load(d, 0), load(d, 16)))
    folded[0] = fold(load(d, 0))


def test_widths():
    for seed in range(20):
        a, d = values(np.float32, f"w{seed}", 1), values(np.float64, f"d{seed}", 2)
        wide, narrowed, folded = np.zeros(32), np.zeros(32, np.float32), np.zeros(1)
        widths(a, d, wide, narrowed, folded)
        assert_same(wide, quietly(a.astype, np.float64))
        assert_same(narrowed, quietly(d.astype, np.float32))
        d = cases.rng_of(seed).normal(size=32) * 10.0 ** np.arange(32)
        widths(a, d, wide, narrowed, folded)
        total = d[:16]
        while total.size > 1:
            total = total[: total.size // 2] + total[total.size // 2 :]
        assert folded[0] == total[0]


@compiled
def copied(source, target, n):
    for i in range(0, n, 32):
        store(target, i, load(source, i))
    prefetch(source, n)


def of_half(half):
    """float16 as float32, NaN with its bits and quiet."""
    wide = quietly(half.view(np.float16).astype, np.float32)
    number = half.astype(np.uint32)
    nan = (number & 0x8000) << 16 | 0x7FC00000 | (number & 0x3FF) << 13
    return np.where(np.isnan(wide), nan, wide.view(np.uint32)).view(np.float32)


def to_half(single):
    number = single.view(np.uint32)
    nan = number >> 16 & 0x8000 | 0x7E00 | number >> 13 & 0x3FF
    return np.where(np.isnan(single), nan, quietly(single.astype, np.float16).view(np.uint16)).astype(np.uint16)


def to_bfloat(single):
    number = single.view(np.uint32).astype(np.uint64)
    nearest = number + 0x7FFF + (number >> 16 & 1) >> 16
    return np.where(np.isnan(single), number >> 16 | 0x40, nearest).astype(np.uint16)


EVERY = np.arange(2**16, dtype=np.uint16)


def edges():
    """float32 numbers about every float16 and bfloat16, and halfway between."""
    centres = np.concatenate((of_half(EVERY).view(np.uint32), EVERY.astype(np.uint32) << 16))
    around = np.concatenate(
        [centres + np.uint32(by % 2**32) for by in (-1, 0, 1, 0xFFF, 0x1000, 0x1001, 0x7FFF, 0x8000)]
    )
    return np.concatenate((around.view(np.float32), values(np.float32, "edges", 1024)))


@pytest.mark.parametrize("hardware", [True, False])
def test_halves(hardware, monkeypatch):
    if not hardware:
        monkeypatch.setattr(samples, "has_half", lambda context: False)
    kernel = njit(copied.py_func, error_model="numpy")
    wide = np.zeros(2**16, np.float32)
    kernel(Halves(EVERY), wide, wide.size)
    assert_bits(wide, of_half(EVERY))
    some = edges()
    half = np.zeros(some.size, np.uint16)
    kernel(some, Halves(half), some.size)
    np.testing.assert_array_equal(half, to_half(some))


def test_bfloats():
    wide = np.zeros(2**16, np.float32)
    copied(Bfloats(EVERY), wide, wide.size)
    np.testing.assert_array_equal(bits(wide), EVERY.astype(np.uint32) << 16)
    some = edges()
    half = np.zeros(some.size, np.uint16)
    copied(some, Bfloats(half), some.size)
    np.testing.assert_array_equal(half, to_bfloat(some))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_integers(dtype):
    whole = EVERY.astype(dtype)
    wide = np.zeros(whole.size, np.float32)
    copied(whole, wide, wide.size)
    np.testing.assert_array_equal(wide, whole.astype(np.float32))


@compiled
def streamed(address, target, n):
    source = at(address, np.float32)
    for i in range(0, n, 32):
        stream(target, i, load(source, i + 1))  # loads need no alignment


@pytest.mark.parametrize("kind", [np.float32, Halves, Bfloats])
def test_stream(kind):
    n = 1024
    x, room = np.arange(n + 1, dtype=np.float32), np.zeros(2 * n + 32, np.uint16)
    y = room[-room.ctypes.data % 64 // 2 :]
    target = y[: 2 * n].view(np.float32) if kind is np.float32 else kind(y[:n])
    streamed(x.ctypes.data, target, n)
    want = {Halves: to_half, Bfloats: to_bfloat}.get(kind, lambda x: x)(x[1:])
    np.testing.assert_array_equal(target if kind is np.float32 else y[:n], want)


def test_samples():
    half, single = np.zeros(4, np.float16), np.zeros(4, np.float32)
    assert type(samples.samples(half)) is Halves
    assert samples.samples(half).bits.base is half
    assert samples.samples(single) is single


def test_errors():
    x = np.zeros(64, np.float32)
    with pytest.raises(TypingError, match=r"samples must be a flat array"):
        copied(x[::2], x, 32)
    with pytest.raises(TypingError, match=r"cannot be stored"):
        copied(x, np.zeros(32, np.uint16), 32)
    with pytest.raises(TypingError, match=r"integers of at most 16 bits"):
        copied(np.zeros(32, int), x, 32)
    with pytest.raises(TypingError):
        arithmetic(x, np.zeros(64), x, 32, 32)


def test_no_contraction():
    @compiled
    def affine(x, y, n, a, b):
        a, b = lanes(a), lanes(b)
        for i in range(0, n, 32):
            store(y, i, load(x, i) * a + b)

    x = cases.rng_of("affine").normal(size=3200).astype(np.float32)
    y, a, b = np.zeros_like(x), np.float32(1.1), np.float32(-0.9)
    affine(x, y, x.size, a, b)
    assert_bits(y, x * a + b)


KERNEL = """
from numba import njit
from cpubn.backends.jit.lanes import lanes
from cpubn.backends.jit.samples import load, store

@njit(cache=True)
def kernel(x, y, a):
    store(y, 0, load(x, 0) * lanes(a))
"""


def test_kept_on_disk(tmp_path):
    path = tmp_path / "kept.py"
    path.write_text(KERNEL)
    x, y = np.ones(32, np.uint16), np.zeros(32, np.uint16)
    for hits in 0, 1:
        spec = importlib.util.spec_from_file_location("kept", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules["kept"] = module
        spec.loader.exec_module(module)
        module.kernel(Halves(x), Bfloats(y), np.float32(2.0**24))
        assert y[0] == 0x3F80  # the least of float16 is 2**-24
        assert sum(module.kernel.stats.cache_hits.values()) == hits
    del sys.modules["kept"]
