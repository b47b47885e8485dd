"""Other names of the two layouts: each does what its own does, and the layout's own name is what is kept."""

import typing

import cases
import numpy as np
import pytest

import cpubn
from cpubn import convert
from cpubn.ask import check

FIRST = ("NCHW", "nchw", "channels_first", "Channels_First", "NCL", "ncl", "NCDHW", "NC", "nC")
LAST = ("NHWC", "nhwc", "channels_last", "CHANNELS_LAST", "NLC", "NDHWC", "ndhwc")
NAMES = [(name, "NCHW") for name in FIRST] + [(name, "NHWC") for name in LAST]
X = np.random.default_rng(0).normal(size=(4, 3, 5, 3)).astype(np.float32)
VECTORS = np.arange(3.0), np.arange(1.0, 4.0), np.arange(2.0, 5.0), np.ones(3)
OTHER = {"NCHW": "NHWC", "NHWC": "NCHW"}

names = pytest.mark.parametrize(("name", "order"), NAMES)


def check_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@names
def test_functions(name, order, backend):
    def results(layout, out_layout):
        batch = cpubn.moments(X, layout=layout, backend=backend)
        yield from (batch.mean, batch.m2)
        yield cpubn.batch_norm(X, *VECTORS, layout=layout, backend=backend)
        yield cpubn.batch_norm(X, *VECTORS, layout=layout, out_layout=layout, backend=backend)
        yield cpubn.batch_norm(X, *VECTORS, layout=OTHER[order], out_layout=out_layout, backend=backend)
        yield cpubn.batch_norm(X, *VECTORS, layout=layout, out_layout=OTHER[order], dtype="float16", backend=backend)
        yield cpubn.batch_norm(X, None, None, training=True, layout=layout, backend=backend)
        yield from cpubn.batch_norm_backward(X, X, batch, batch.var(), layout=layout, backend=backend)
        how = {"activation": "relu", "residual": X, "layout": layout, "backend": backend}
        yield from cpubn.batch_norm_backward(X, X, batch, batch.var(), **how)

    check_same(results(name, name), results(order, order))


@names
def test_views_and_lists(name, order, backend):
    for x in (X.transpose(0, 3, 2, 1)[::2], X[:1, ::-1].tolist()):
        got, expected = (cpubn.batch_norm(x, *VECTORS, layout=layout, backend=backend) for layout in (name, order))
        np.testing.assert_array_equal(got, expected)


@names
def test_layers(name, order, backend):
    one, other = (cpubn.BatchNorm2d(3, layout=layout, backend=backend) for layout in (name, order))
    assert one.layout == order
    assert repr(one) == repr(other)
    check_same((one(X), one.backward(X), one.eval()(X)), (other(X), other.backward(X), other.eval()(X)))
    assert one.freeze().layout == order


@names
def test_frozen(name, order, backend):
    for out in (None, name):
        one, other = (
            cpubn.FrozenBatchNorm(
                **cases.named(*VECTORS), layout=layout, out_layout=out and out_layout, backend=backend
            )
            for layout, out_layout in ((name, name), (order, order))
        )
        assert (one.layout, one.out_layout) == (order, order)
        assert repr(one) == repr(other)
        np.testing.assert_array_equal(one(X), other(X))
    crossed = cpubn.FrozenBatchNorm(**cases.named(*VECTORS), layout=OTHER[order], out_layout=name, backend=backend)
    expected = cpubn.FrozenBatchNorm(**cases.named(*VECTORS), layout=OTHER[order], out_layout=order, backend=backend)(X)
    np.testing.assert_array_equal(crossed(X), expected)


@names
def test_quantized(name, order, backend):
    how = {"scale": 0.1, "zero_point": 0, "out_scale": 0.1, "out_zero_point": 0, "backend": backend}
    x = X.astype(np.int8)
    one, other = (
        cpubn.FrozenBatchNorm.quantized(**cases.named(*VECTORS), **how, layout=layout) for layout in (name, order)
    )
    assert one.layout == order
    np.testing.assert_array_equal(one(x), other(x))


@names
def test_convert(name, order, tmp_path):
    norm = convert.Norm(*VECTORS[:2], 1e-5, momentum=0.1, variance="unbiased", layout=name)
    assert norm.layout == norm.freeze().layout == norm.layer(cpubn.BatchNorm2d).layout == order
    assert norm.freeze(layout=name).layout == order
    convert.to_npz({"": norm}, tmp_path / "norm.npz")
    assert convert.from_npz(tmp_path / "norm.npz")[""].layout == order
    _, config = convert.to_keras({"": norm}, values_per_channel=None)
    assert config[""]["axis"] == (1 if order == "NCHW" else -1)


@names
def test_folds(name, order):
    """They take the layout from the norm."""
    norm = cpubn.FrozenBatchNorm(**cases.named(*VECTORS), layout=name)
    weight = np.random.default_rng(1).normal(size=(3, 3, 1, 1))
    x = X if order == "NCHW" else np.moveaxis(X, 1, -1)
    assert cpubn.verify_fold(weight, None, norm, cpubn.fold_conv(weight, None, norm), x) < 1e-12


def test_the_type_names_them_all():
    named = typing.get_args(cpubn.typing.Layout)
    assert {name.upper() for name in named} == set(check.LAYOUTS)
    assert {check.LAYOUTS[name.upper()] for name in named} == set(typing.get_args(cpubn.typing.AxisOrder))


@pytest.mark.parametrize("order", ["NCHW", "NHWC"])
def test_a_name_made_at_run_time_is_known(order, backend):
    made = "".join(list(order))
    assert made is not order
    got, expected = (cpubn.batch_norm(X, *VECTORS, layout=layout, backend=backend) for layout in (made, order))
    np.testing.assert_array_equal(got, expected)
