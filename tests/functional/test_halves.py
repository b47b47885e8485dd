"""The two halves of backward: sums of parts, and dx of each part by the sums of the whole."""

from itertools import pairwise

import cases
import numpy as np
import pytest

import cpubn

SHAPES = [("NCHW", (13, 5, 40)), ("NCHW", (13, 7, 3)), ("NHWC", (13, 33, 2)), ("NCHW", (13, 4))]
CUTS = [0, 3, 3, 4, 13]  # an empty part, and one of a single sample


def batch(layout, shape, dtype):
    x = cases.place(
        100 + cases.rng_of("halves").standard_normal((shape[1], 13 * int(np.prod(shape[2:])))), shape, layout, dtype
    )
    return x, cases.make_gradient("independent", x, layout)


@pytest.mark.parametrize("activation", [None, ("leaky_relu", 0.125), "gelu"], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("layout", "shape"), SHAPES)
def test_the_halves_are_the_whole(backend, layout, shape, dtype, activation):
    if backend == "numba" and activation == "gelu":
        pytest.skip("Numba compiles three loops for each of them and each type: one is enough")
    x, dy = batch(layout, shape, dtype)
    weight, bias = cases.vectors(shape[1])
    residual = x[::-1] / 100 if activation else None
    m = cpubn.moments(x, layout=layout, backend=backend)
    how = {"layout": layout, "bias": bias, "activation": activation, "backend": backend}
    expected = cpubn.batch_norm_backward(dy, x, m, m.var(), weight, residual=residual, **how)
    parts = [slice(*cut) for cut in pairwise(CUTS)]

    def given(part):
        return {"residual": None if residual is None else residual[part], **how}

    sums = sum(cpubn.gradient_sums(dy[p], x[p], m, m.var(), weight, **given(p)) for p in parts)
    got = [cpubn.batch_norm_backward(dy[p], x[p], m, m.var(), weight, sums=sums, **given(p)) for p in parts]
    tolerance = 1e-12 if dtype == np.float64 else 2e-6
    apart = 4 * tolerance * (1 + abs(expected[0]).max())
    for part, (dx, dweight, dbias, *g) in zip(parts, got, strict=True):
        assert dx.dtype == dtype
        np.testing.assert_allclose(dx, expected[0][part], rtol=0, atol=apart)
        np.testing.assert_allclose(dweight, expected[1], rtol=0, atol=x.size * tolerance)
        np.testing.assert_allclose(dbias, expected[2], rtol=0, atol=x.size * tolerance)
        for array in g:
            np.testing.assert_allclose(array, expected[3][part], rtol=0, atol=apart)


def test_sums_in_place_of_dy_and_of_any_strides(backend):
    x, dy = batch("NCHW", (13, 5, 40), np.float32)
    m = cpubn.moments(x)
    sums = cpubn.gradient_sums(dy, x, m, m.var(), backend=backend)
    expected = cpubn.batch_norm_backward(dy, x, m, m.var(), backend=backend)[0]
    for y in (np.asfortranarray(dy), np.repeat(dy, 2, 2)[:, :, ::2]):
        out = y.copy(order="K")
        got = cpubn.batch_norm_backward(y, x, m, m.var(), sums=sums, out=out, backend=backend)
        assert got[0] is out
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5)


def test_bad_sums(backend):
    x, dy = batch("NCHW", (13, 5, 40), np.float32)
    m = cpubn.moments(x)
    how = {"backend": backend}
    with pytest.raises(ValueError, match=r"sums must have shape \(2, 5\).*cpubn.gradient_sums"):
        cpubn.batch_norm_backward(dy, x, m, m.var(), sums=np.zeros((2, 4)), **how)
    with pytest.raises(TypeError, match="sums must be an array of float64"):
        cpubn.batch_norm_backward(dy, x, m, m.var(), sums=np.zeros((2, 5), np.float32), **how)
    with pytest.raises(TypeError, match="mean must be the Moments of the whole batch"):
        cpubn.batch_norm_backward(dy, x, m.mean, m.var(), sums=np.zeros((2, 5)), **how)
    with pytest.raises(TypeError, match="mean must be the Moments of the whole batch"):
        cpubn.gradient_sums(dy, x, m.mean, m.var(), **how)
    with pytest.raises(ValueError, match="training must be True with sums"):
        cpubn.batch_norm_backward(dy, x, m, m.var(), training=False, sums=np.zeros((2, 5)), **how)
