"""The gradients that a layer adds up: arrays of the user's own, of any strides and either type, or a clear error."""

import numpy as np
import pytest
import views
from test_layers import batches

import cpubn

LAYOUTS = {
    "contiguous": np.copy,
    "float32": lambda v: v.astype(np.float32),
    "every other one": lambda v: views.stepped(v, 2),
    "backwards": views.backwards,
    "byte-swapped": views.swapped,
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
def test_gradients_add_up_where_they_are(make, training, backend):
    bn = cpubn.BatchNorm1d(6, backend=backend).train(training)
    x, _, dy = batches((40, 6))
    bn(x)
    bn.backward(dy, retain=True)
    dweight, dbias = bn.weight_grad.copy(), bn.bias_grad.copy()
    start = np.arange(6.0)
    totals = bn.weight_grad, bn.bias_grad = make(start), make(-start)
    bn.backward(dy)
    assert bn.weight_grad is totals[0]
    assert bn.bias_grad is totals[1]
    np.testing.assert_array_equal(bn.weight_grad, (start + dweight).astype(totals[0].dtype))
    np.testing.assert_array_equal(bn.bias_grad, (dbias - start).astype(totals[0].dtype))


@pytest.mark.parametrize("absent", [("weight_grad",), ("bias_grad",), ("weight_grad", "bias_grad")])
def test_gradients_that_were_set_to_none_begin_anew(absent, backend):
    bn = cpubn.BatchNorm1d(6, backend=backend)
    x, _, dy = batches((40, 6))
    bn(x)
    bn.backward(dy, retain=True)
    once = {name: getattr(bn, name).copy() for name in ("weight_grad", "bias_grad")}
    for name in absent:
        setattr(bn, name, None)
    bn.backward(dy)
    for name, gradient in once.items():
        np.testing.assert_array_equal(getattr(bn, name), gradient if name in absent else 2 * gradient)


def test_gradients_of_a_subclass_are_added_to(backend):
    class Labelled(np.ndarray):
        pass

    bn = cpubn.BatchNorm1d(6, backend=backend)
    x, _, dy = batches((40, 6))
    bn(x)
    bn.backward(dy, retain=True)
    expected = bn.weight_grad.copy()
    total = bn.weight_grad = np.zeros(6).view(Labelled)
    bn.backward(dy)
    assert bn.weight_grad is total
    np.testing.assert_array_equal(np.asarray(total), expected)


BAD = {
    "shape": (lambda bn, x: np.zeros(5), ValueError, r"weight_grad must have shape \(6,\), the channels of x"),
    "read-only": (
        lambda bn, x: views.read_only(np.zeros(6)),
        ValueError,
        "weight_grad must be writeable, because backward updates it",
    ),
    "whole numbers": (lambda bn, x: np.zeros(6, int), TypeError, "weight_grad must be an array of float32 or float64"),
    "zero strides": (
        lambda bn, x: np.lib.stride_tricks.as_strided(np.zeros(1), (6,), (0,)),
        ValueError,
        "must not overlap itself",
    ),
    "the other one": (lambda bn, x: bn.bias_grad, ValueError, "weight_grad and bias_grad must be two arrays"),
    "the input": (lambda bn, x: x[0], ValueError, "weight_grad must not overlap the last input"),
    "the weight": (lambda bn, x: bn.weight, ValueError, "weight_grad must not overlap weight"),
}


@pytest.mark.parametrize(("make", "error", "match"), BAD.values(), ids=BAD)
def test_gradients_that_cannot_be_added_to(make, error, match, backend):
    bn = cpubn.BatchNorm1d(6, dtype="float64", backend=backend)
    x, _, dy = (a.astype(np.float64) for a in batches((40, 6)))
    bn(x)
    before = bn.weight_grad
    bn.weight_grad = make(bn, x)
    kept = bn.weight_grad.copy(), bn.bias_grad.copy(), bn.weight.copy(), x.copy()
    with pytest.raises(error, match=match):
        bn.backward(dy, out=dy)
    for now, then in zip((bn.weight_grad, bn.bias_grad, bn.weight, x), kept, strict=True):
        np.testing.assert_array_equal(now, then)
    bn.weight_grad = before
    bn.backward(dy)
