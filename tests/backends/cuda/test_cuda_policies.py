"""Batches that give no statistics, or wrong ones, on a GPU: as on the host."""

import gpu
import numpy as np
import pytest
from gpu import get, put

import cpubn

pytestmark = gpu.SILENT
C = 3


def made(shape, seed=0):
    return np.random.default_rng(seed).normal(2, 3, shape).astype(np.float32)


def layers(**how):
    """One on the host, one on the GPU."""
    made_alike = [cpubn.BatchNorm1d(C, backend="numpy", **how), cpubn.BatchNorm1d(C, **how)]
    for bn in made_alike:
        bn.running_mean[:], bn.weight[:] = [1, 2, 3], [1.5, -2, 0.5]
    made_alike[1].to_device()
    return made_alike


def check_state(on_gpu, expected):
    for name, value in expected.items():
        np.testing.assert_allclose(on_gpu.state_dict()[name], value, rtol=1e-6)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("kind", ["one value", "one value in a channel", "none in a channel"])
def test_single_values(kind, activation):
    shape = (1, C) if kind == "one value" else (6, C)
    x, dy, mask = made(shape), made(shape, 1), np.ones(shape, bool)
    mask[1 if "one" in kind else 0 :, 0] = False
    how = {} if kind == "one value" else {"mask": mask}
    results = []
    for bn, to in zip(layers(on_single="running", activation=activation), (np.asarray, put), strict=True):
        y = bn(to(x), **how)
        dx = bn.backward(to(dy))
        results.append([np.asarray(a) if to is np.asarray else get(a) for a in (y, dx, bn.weight_grad, bn.bias_grad)])
        results[-1] += bn.state_dict().values()
    for expected, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_empty_channels():
    _, bn = layers(on_empty="raise")
    before, mask = bn.state_dict(), np.ones((6, C), bool)
    mask[:, 1] = False
    with pytest.raises(ValueError, match="got none in channel 1"):
        bn(put(made((6, C))), mask=mask)
    with pytest.raises(ValueError, match="got none; leave out"):
        bn(put(made((0, C))))
    check_state(bn, before)


def test_what_is_not_finite():
    x = made((6, C))
    x[2, 1] = np.nan
    _, bn = layers(on_nonfinite="raise")
    before = bn.state_dict()
    given = put(x)
    with pytest.raises(ValueError, match="got others in channel 1"):
        bn(given, out=given)
    np.testing.assert_array_equal(get(given), x)
    with pytest.raises(ValueError, match="got others in channel 1"):
        bn(given)
    check_state(bn, before)
    bn.on_nonfinite = "skip"
    with pytest.warns(RuntimeWarning, match="got others in channel 1"):
        y = get(bn(given))
    np.testing.assert_array_equal(np.isnan(y).any(axis=0), [False, True, False])
    check_state(bn, before)


@pytest.mark.parametrize("policy", [{"on_nonfinite": "raise"}, {"on_nonfinite": "skip"}, {"on_empty": "raise"}])
def test_batches_without_fault(policy):
    x = made((6, C))
    _, bn = layers(**policy)
    _, usual = layers()
    np.testing.assert_array_equal(get(bn(put(x))), get(usual(put(x))))
    check_state(bn, usual.state_dict())
    running = put((np.zeros(C), np.ones(C)))
    cpubn.batch_norm(put(x), *running, training=True, **policy)
    np.testing.assert_allclose(get(running[0]), 0.1 * x.mean(axis=0, dtype=float), rtol=1e-6)
