"""Layers whose batch is spread over ranks: the same as one layer of the whole batch, and errors on all ranks."""

import copy
import pickle
import re

import cases
import numpy as np
import pytest
import ranks

import cpubn
from cpubn.ask import exchange

C, IMAGES = 5, 11
KINDS = {"1d": (cpubn.BatchNorm1d, (IMAGES, C)), "2d": (cpubn.BatchNorm2d, (IMAGES, C, 4, 3))}
KINDS["3d"] = cpubn.BatchNorm3d, (IMAGES, C, 2, 3, 2)


def place(shape, dtype, layout, mean=50.0):
    rows = cases.rng_of("comm", shape).standard_normal((C, IMAGES * int(np.prod(shape[2:])))) + mean
    x = cases.place(rows, shape, layout, dtype)
    return x, cases.make_gradient("independent", x, layout), np.ascontiguousarray(x[::-1]) / 50


def close(got, expected, dtype, size=1):
    np.testing.assert_allclose(got, expected, rtol=0, atol=size * (1e-11 if dtype == np.float64 else 1e-5))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize(("kind", "dtype", "activation", "layout"), [
    ("1d", np.float32, None, "NCHW"), ("2d", np.float32, "relu", "NHWC"), ("2d", np.float64, "gelu", "NCHW"),
    ("3d", np.float32, "sigmoid", "NCHW"),
])  # fmt: skip
def test_ranks_are_one_batch(backend, count, kind, dtype, activation, layout):
    make, shape = KINDS[kind]
    x, dy, residual = place(shape, dtype, layout)
    how = {"layout": layout, "activation": activation, "backend": backend}
    whole, at = make(C, **how), ranks.cuts(count, IMAGES)
    y, dx = whole(x, residual), whole.backward(dy)

    def work(rank, comm):
        part = slice(at[rank], at[rank + 1])
        bn = make(C, **how, comm=comm)
        got = bn(x[part], residual[part]), bn.backward(dy[part])
        return bn, *got, comm.calls

    done = ranks.run(count, work)
    for rank, (bn, own_y, own_dx, calls) in enumerate(done):
        part = slice(at[rank], at[rank + 1])
        assert calls == 2
        assert own_y.dtype == own_dx.dtype == dtype
        close(own_y, y[part], dtype)
        close(own_dx, dx[part], dtype)
        close(bn.residual_grad, whole.residual_grad[part], dtype)
        for name in ("running_mean", "running_var"):
            np.testing.assert_array_equal(getattr(bn, name), getattr(done[0][0], name))
            np.testing.assert_allclose(getattr(bn, name), getattr(whole, name), rtol=1e-6, atol=0)
        assert bn.num_batches_tracked == 1
    for name in ("weight_grad", "bias_grad"):
        close(sum(getattr(bn, name) for bn, *_ in done), getattr(whole, name), dtype, size=100)


def test_the_mean_keeps_both_words(backend):
    x, dy, _ = place((IMAGES, C), np.float64, "NCHW", mean=1e6)
    whole = cpubn.BatchNorm1d(C, backend=backend)
    y, dx = whole(x), whole.backward(dy)

    def work(rank, comm):
        bn, part = cpubn.BatchNorm1d(C, backend=backend, comm=comm), slice(3 * rank, 3 + 8 * rank)
        return part, bn(x[part]), bn.backward(dy[part])

    for part, own_y, own_dx in ranks.run(2, work):
        close(own_y, y[part], np.float64)
        close(own_dx, dx[part], np.float64)


def test_one_value_a_channel_on_each_rank_is_enough():
    x = np.random.default_rng(0).normal(size=(3, C))
    expected = cpubn.BatchNorm1d(C)(x)
    got = ranks.run(3, lambda rank, comm: cpubn.BatchNorm1d(C, comm=comm)(x[rank : rank + 1]))
    close(np.concatenate(got), expected, np.float64)


@pytest.mark.parametrize("images", [0, 1])
def test_too_few_values_on_all_ranks_together(images):
    def work(rank, comm):
        bn = cpubn.BatchNorm1d(C, comm=comm)
        try:
            return bn(np.ones((images if rank else 0, C)))
        finally:
            assert bn.num_batches_tracked == 0
            np.testing.assert_array_equal(bn.running_var, 1)

    for got in ranks.run(2, work):
        if images == 0:
            assert got.shape == (0, C)
        else:
            assert isinstance(got, ValueError)
            assert "got 1 on all ranks together" in str(got)


def test_nan_is_no_error_and_reaches_all_ranks():
    x = np.random.default_rng(0).normal(size=(6, C))
    x[0, 1] = np.nan
    for y in ranks.run(2, lambda rank, comm: cpubn.BatchNorm1d(C, comm=comm)(x[3 * rank : 3 * rank + 3])):
        np.testing.assert_array_equal(np.isnan(y).all(0), np.arange(C) == 1)


BAD = {
    "a wrong shape": (lambda bn: bn(np.ones((4, C + 1))), "ValueError: x must have 5 channels"),
    "a wrong type": (lambda bn: bn(np.ones((4, C), complex)), "TypeError: x must be an array of"),
    "a residual": (
        lambda bn: bn(np.ones((4, C)), np.ones((4, C + 1))),
        "ValueError: residual must have the result's shape",
    ),
    "a mask": (lambda bn: bn(np.ones((4, C)), mask=np.ones(4, bool)), "ValueError: comm must be None with mask"),
    "a wrong mask": (lambda bn: bn(np.ones((4, C)), mask=np.ones(3, bool)), "ValueError: mask must have shape"),
    "an out": (lambda bn: bn(np.ones((4, C)), out=np.ones((1, C))), "ValueError: out must have the result's shape"),
}


@pytest.mark.parametrize("bad", BAD)
def test_an_error_on_one_rank_is_one_on_all(bad):
    call, message = BAD[bad]

    def work(rank, comm):
        bn = cpubn.BatchNorm1d(C, comm=comm)
        try:
            return call(bn) if rank == 1 else bn(np.random.default_rng(rank).normal(size=(4, C)))
        finally:
            np.testing.assert_array_equal(bn.running_var, 1)

    errors = ranks.run(3, work)
    name, text = message.split(": ", 1)
    assert type(errors[1]).__name__ == name
    assert str(errors[1]).startswith(text)
    for error in (errors[0], errors[2]):
        assert isinstance(error, RuntimeError)
        assert str(error).startswith(f"every rank must get through, got an error on rank 1: {message}")


@pytest.mark.parametrize("bad", ["dy", "no forward"])
def test_an_error_in_backward_is_one_on_all(bad):
    def work(rank, comm):
        bn, x = cpubn.BatchNorm1d(C, comm=comm), np.random.default_rng(rank).normal(size=(4, C))
        bn(x)
        if rank and bad == "no forward":
            bn.reset_running_stats()
            bn.__setstate__(bn.__getstate__())  # as a layer that was loaded
        return bn.backward(x[:, : C - rank] if bad == "dy" else x)

    first, second = ranks.run(2, work)
    assert str(first).startswith(f"every rank must get through, got an error on rank 1: {type(second).__name__}: ")
    assert str(second)[:20] in str(first)


def test_ranks_in_different_passes():
    def work(rank, comm):
        bn, x = cpubn.BatchNorm1d(C, comm=comm), np.random.default_rng(rank).normal(size=(4, C))
        bn(x)
        return bn(x) if rank else bn.backward(x)

    for error in ranks.run(2, work):
        assert re.search("got backward of 5 channels on rank 0; forward of 5 channels on rank 1", str(error))


def test_layers_of_different_width():
    def work(rank, comm):
        return cpubn.BatchNorm1d(30 + 30 * rank, comm=comm)(np.random.default_rng(0).normal(size=(4, 30 + 30 * rank)))

    for error in ranks.run(2, work):
        assert "allgather must give a row of shape" in str(error)


def test_eval_asks_nobody():
    bn = cpubn.BatchNorm1d(C, comm=ranks.Threads(0, None, None)).eval()
    x = np.ones((4, C))
    bn(x)
    bn.backward(x)
    assert bn.comm.calls == 0


def test_comm_is_checked_and_kept():
    with pytest.raises(TypeError, match=r"comm must have a method allgather\(array\), got int"):
        cpubn.BatchNorm1d(C, comm=3)
    bn = cpubn.BatchNorm1d(C)
    bn.comm = comm = ranks.Threads(0, None, None)
    assert bn.comm is comm
    assert copy.deepcopy(bn).comm.rank == 0
    old = bn.__getstate__()
    del old["comm"]
    loaded = pickle.loads(pickle.dumps(cpubn.BatchNorm1d(C)))
    loaded.__setstate__(old)
    assert loaded.comm is None


def test_text_is_cut_to_the_room():
    text = "ä" * 500
    assert exchange._unpacked(exchange._packed(text, 10)) == "ä" * 30


def test_accumulation_over_ranks():
    x = np.random.default_rng(0).normal(3, 2, (16, C))

    def work(rank, comm):
        bn = cpubn.BatchNorm1d(C, momentum=1.0, comm=comm)
        with bn.accumulate():
            for step in range(2):
                bn(x[8 * step + 3 * rank : 8 * step + 3 + 5 * rank])
        return bn

    for bn in ranks.run(2, work):
        np.testing.assert_allclose(bn.running_mean, x.mean(0), rtol=1e-12)
        np.testing.assert_allclose(bn.running_var, x.var(0, ddof=1), rtol=1e-12)
