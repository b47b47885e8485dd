"""Batches with NaN or infinity, and those without: on_nonfinite of the layers and batch_norm."""

import numpy as np
import pytest
from policed import OTHERS, C, arrays, check_same, each_activation, each_dtype, each_shape, layer, made, spoilt

import cpubn


@pytest.mark.parametrize("out", [False, True])
@each_dtype
@each_shape
def test_batches_without_fault_give_the_bits_they_ever_did(layout, shape, dtype, out, backend):
    x, dy = made(shape, dtype), made(shape, dtype, 2)
    expected = layer(layout=layout, backend=backend)
    y, dx = expected(x), expected.backward(dy)
    for name, value in [*OTHERS, ("mask", None)]:
        how = {"mask": np.ones(shape, bool)} if name == "mask" else {}
        others = {"on_nonfinite": "skip"} if name == "mask" else {name: value}
        bn = layer(layout=layout, backend=backend, **others)
        given = x.copy()
        got = bn(given, out=np.empty_like(x) if out else None, **how)
        if name == "mask":
            np.testing.assert_allclose(got, y, rtol=1e-2 if dtype == "float16" else 1e-5, atol=1e-5)
            continue
        np.testing.assert_array_equal(got, y)
        np.testing.assert_array_equal(bn.backward(dy), dx)
        check_same(arrays(bn), arrays(expected))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("inplace", [False, True])
@each_dtype
@each_shape
def test_raise_leaves_every_array_as_it_was(layout, shape, dtype, inplace, value, backend):
    x = spoilt(made(shape, dtype), layout, value)
    bn = layer(layout=layout, on_nonfinite="raise", backend=backend)
    before, given = arrays(bn), x.copy()
    with pytest.raises(ValueError, match="must be finite with on_nonfinite='raise', got others in channel 1; look for"):
        bn(given, out=given if inplace else None)
    np.testing.assert_array_equal(given, x)
    check_same(arrays(bn), before)
    assert bn.num_batches_tracked == 1
    running = np.zeros(C, np.float32), np.ones(C, np.float32)
    with pytest.raises(ValueError, match="got others in channel 1"):
        cpubn.batch_norm(
            given, *running, training=True, layout=layout, out=given if inplace else None,
            on_nonfinite="raise", backend=backend,
        )  # fmt: skip
    np.testing.assert_array_equal(given, x)
    np.testing.assert_array_equal(running, [np.zeros(C), np.ones(C)])


@each_activation
@pytest.mark.parametrize("value", [np.nan, np.inf])
@each_shape
def test_skip_normalizes_as_ever_and_moves_nothing(layout, shape, value, activation, backend):
    x, dy = spoilt(made(shape), layout, value), made(shape, seed=2)
    how = {"layout": layout, "activation": activation, "backend": backend}
    bn, other = layer(on_nonfinite="skip", **how), layer(**how)
    before = bn.state_dict()
    with pytest.warns(RuntimeWarning, match="should be finite, got others in channel 1; running statistics stay") as w:
        y = bn(x)
    assert w[0].filename == __file__
    np.testing.assert_array_equal(y, other(x))
    check_same(bn.state_dict(), before)
    np.testing.assert_array_equal(bn.backward(dy), other.backward(dy))
    np.testing.assert_array_equal(bn.bias_grad, other.bias_grad)
    bn(x)  # once is enough
    other = layer(**how)
    np.testing.assert_array_equal(bn(np.nan_to_num(x, posinf=0)), other(np.nan_to_num(x, posinf=0)))
    check_same(bn.state_dict(), other.state_dict())


def test_skip_by_the_function(backend):
    x, running = spoilt(made((6, C)), "NCHW", channel=2), (np.zeros(C), np.ones(C))
    expected = cpubn.batch_norm(x, None, None, training=True, backend=backend)
    with pytest.warns(RuntimeWarning, match="channel 2") as said:
        y, batch = cpubn.batch_norm(
            x, *running, training=True, on_nonfinite="skip", return_moments=True, out=x, backend=backend
        )
    assert said[0].filename == __file__
    assert y is x
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(np.isnan(batch.mean), [False, False, True])
    np.testing.assert_array_equal(running, [np.zeros(C), np.ones(C)])


def test_what_is_masked_is_no_fault(backend):
    x = spoilt(made((6, C)), "NCHW")
    for how in ({"mask": ~np.isnan(x)}, {"nan": "omit"}):
        bn = layer(on_nonfinite="raise", backend=backend)
        assert np.isfinite(bn(x, **how)).all()
        assert bn.num_batches_tracked == 2
        x[0, 0] = np.inf
        with pytest.raises(ValueError, match="got others in channel 0"):
            bn(x, **how)
        x[0, 0] = 0


def test_variances_that_overflow_are_named(backend):
    x = made((6, C), np.float64)
    x[:, ::2] *= 1e300
    with pytest.raises(ValueError, match="got others in channels 0, 2"):
        layer(on_nonfinite="raise", backend=backend)(x)


def test_many_channels_are_not_all_named():
    with pytest.raises(ValueError, match=r"channels 0, 1, 2, 3, 4, 5, 6, 7, \.\.\.; look"):
        cpubn.batch_norm(np.full((4, 99), np.nan), None, None, training=True, on_nonfinite="raise")


@pytest.mark.parametrize("wrong", ["read-only", "overlap", "shape", "out", "residual"])
@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_other_errors_come_before_anything_is_written(policy, wrong, backend):
    x = made((6, C), np.float64)
    memory = np.zeros(2 * C)
    running, out, residual = [memory[:C], memory[C:]], np.zeros_like(x), None
    if wrong == "read-only":
        running[1] = running[1].copy()
        running[1].flags.writeable = False
    elif wrong == "overlap":
        running[1] = memory[1 : C + 1]
    elif wrong == "shape":
        running[1] = np.ones(C + 1)
    elif wrong == "out":
        running[0] = out[0]
    else:
        residual = x[1:]
    before = memory.copy(), out.copy()
    with pytest.raises(ValueError, match=r"running_var must|running_mean and running_var must|overlap|residual must"):
        cpubn.batch_norm(x, *running, training=True, out=out, residual=residual, on_nonfinite=policy, backend=backend)
    np.testing.assert_array_equal(memory, before[0])
    np.testing.assert_array_equal(out, before[1])
