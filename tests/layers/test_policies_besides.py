"""Policies with accumulation, recalibration and ranks; as arguments and attributes."""

import copy
import pickle
import re

import numpy as np
import pytest
import ranks
from policed import OTHERS, C, check_same, layer, made, spoilt

import cpubn
from cpubn.ask.policies import CHOICES


def test_accumulated_batches(backend):
    """One value counts among those of all; batches with NaN do not, nor do channels without two values move."""
    x = made((9, C))
    bn, whole = (layer(on_single="running", on_nonfinite="skip", backend=backend) for _ in range(2))
    with bn.accumulate():
        bn(x[:8])
        np.testing.assert_array_equal(bn(x[8:]), copy.deepcopy(whole).eval()(x[8:]))
        with pytest.warns(RuntimeWarning, match="channel 1"):
            bn(spoilt(x, "NCHW"))
    whole(x)
    np.testing.assert_allclose(bn.running_mean, whole.running_mean, rtol=1e-6)
    np.testing.assert_allclose(bn.running_var, whole.running_var, rtol=1e-6)
    assert bn.num_batches_tracked == 2
    before = bn.state_dict()
    with bn.accumulate():
        bn(x[:1])
    check_same(bn.state_dict(), before)


def test_accumulated_batches_of_masked_channels(backend):
    x, mask = made((8, C)), np.ones((8, C), bool)
    mask[:, 0] = False
    bn, whole = layer(backend=backend), layer(backend=backend)
    with bn.accumulate():
        for half in (slice(4), slice(4, None)):
            bn(x[half], mask=mask[half])
    whole(x, mask=mask)
    np.testing.assert_allclose(bn.running_mean, whole.running_mean, rtol=1e-6)
    np.testing.assert_allclose(bn.running_var, whole.running_var, rtol=1e-6)


def test_recalibration(backend):
    x = np.concatenate([made((9, C)), spoilt(made((4, C)), "NCHW")])
    bn = layer(on_single="running", on_nonfinite="skip", backend=backend)
    with pytest.warns(RuntimeWarning, match="channel 1"):
        cpubn.recalibrate(bn, bn, [x[:8], x[8:9], x[9:]], progress=False)
    np.testing.assert_allclose(bn.running_var, x[:9].var(axis=0, ddof=1, dtype=float), rtol=1e-6)
    before = bn.state_dict()
    bn.on_nonfinite = "raise"
    with pytest.raises(ValueError, match="got others in channel 1"):
        cpubn.recalibrate(bn, bn, [x[:8], x[9:]], progress=False)
    check_same(bn.state_dict(), before)


def test_one_value_on_all_ranks_together(backend):
    x, dy = made((1, C)), made((1, C), seed=2)

    def work(rank, comm):
        bn = layer(on_single="running", backend=backend)
        before, bn.comm = bn.state_dict(), comm
        y = bn(x[rank:])
        dx = bn.backward(dy[rank:])
        check_same(bn.state_dict(), before)
        return y, dx

    other = layer(backend=backend).eval()
    (y, dx), (nothing, _) = ranks.run(2, work)
    np.testing.assert_allclose(y, other(x), rtol=1e-6)
    np.testing.assert_allclose(dx, other.backward(dy), rtol=1e-6)
    assert nothing.shape == (0, C)


@pytest.mark.parametrize(
    ("policy", "parts", "match"),
    [
        ({"on_empty": "raise"}, [(0, C), (0, C)], "each channel must have values"),
        ({"on_nonfinite": "raise"}, [(4, C), (6, C)], "got others in channel 1"),
        ({"on_nonfinite": "skip"}, [(1, C), (0, C)], "got 1 on all ranks together"),
    ],
)
def test_all_ranks_refuse_alike(policy, parts, match):
    def work(rank, comm):
        bn = layer(**policy)
        before, bn.comm = bn.state_dict(), comm
        x = made(parts[rank])
        given = spoilt(x, "NCHW") if x.size and rank == 1 else x
        out = given.copy()
        try:
            return bn(out, out=out)
        finally:
            np.testing.assert_array_equal(out, given)
            check_same(bn.state_dict(), before)

    for error in ranks.run(2, work):
        assert isinstance(error, ValueError)
        assert re.search(match, str(error))


@pytest.mark.filterwarnings("ignore:mean and variance of a batch should be finite")
def test_all_ranks_skip_alike(backend):
    def work(rank, comm):
        bn = layer(on_nonfinite="skip", backend=backend)
        before, bn.comm = bn.state_dict(), comm
        y = bn(spoilt(made((4, C)), "NCHW") if rank else made((4, C)))
        check_same(bn.state_dict(), before)
        return y, bn.backward(np.ones_like(y))

    for y, dx in ranks.run(2, work):
        np.testing.assert_array_equal(np.isnan(y).any(axis=0), [False, True, False])
        np.testing.assert_array_equal(np.isnan(dx).any(axis=0), [False, True, False])


@pytest.mark.parametrize("without", [{"track_running_stats": False}, {"affine": False}])
def test_layers_without_statistics_or_parameters(without, backend):
    bn = cpubn.BatchNorm1d(C, on_nonfinite="raise", on_empty="raise", backend=backend, **without)
    np.testing.assert_allclose(bn(made((6, C))).mean(axis=0), 0, atol=1e-6)
    with pytest.raises(ValueError, match="got others in channel 1"):
        bn(spoilt(made((6, C)), "NCHW"))


def test_eval_mode_has_no_policies(backend):
    bn = layer(on_empty="raise", on_nonfinite="raise", backend=backend).eval()
    assert np.isnan(bn(spoilt(made((6, C)), "NCHW"))).any()
    assert bn(np.ones((0, C))).shape == (0, C)


def test_arrays_of_other_kinds(backend):
    x = made((6, C), np.float64)
    running = np.zeros(C), np.ones(C)
    got = cpubn.batch_norm(x.tolist(), *running, training=True, on_nonfinite="raise", backend=backend)
    np.testing.assert_allclose(got, cpubn.batch_norm(x, None, None, training=True, backend=backend), rtol=1e-6)
    assert running[0].any()


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", ["ignore", None, True, 1.0, np.ones(3), ["raise"]])
def test_what_is_no_policy(name, value):
    match = f"{name} must be {re.escape(' or '.join(map(repr, CHOICES[name][-2:])))}|{name} must be 'propagate', "
    with pytest.raises(ValueError, match=match):
        cpubn.BatchNorm1d(C, **{name: value})
    for training in (True, False):
        with pytest.raises(ValueError, match=match):
            cpubn.batch_norm(np.ones((4, C)), np.zeros(C), np.ones(C), training=training, **{name: value})
    bn = cpubn.BatchNorm1d(C)
    with pytest.raises(ValueError, match=match):
        setattr(bn, name, value)
    assert getattr(bn, name) == CHOICES[name][0]


@pytest.mark.parametrize(("name", "value"), OTHERS)
def test_kept_by_copies_and_pickles_where_they_are_other_than_usual(name, value):
    usual, bn = cpubn.BatchNorm1d(C), cpubn.BatchNorm1d(C, **{name: value})
    assert "on_" not in repr(usual)
    assert not [key for key in usual.__getstate__() if "polic" in key or key.startswith("on_")]
    assert f", {name}={value!r})" in repr(bn)
    assert repr(eval(repr(bn), {"BatchNorm1d": cpubn.BatchNorm1d})) == repr(bn)
    for other in (copy.copy(bn), copy.deepcopy(bn), pickle.loads(pickle.dumps(bn))):
        assert getattr(other, name) == value
    assert bn.__getstate__()[name] == value
    assert bn.state_dict().keys() == usual.state_dict().keys()
    setattr(bn, name, CHOICES[name][0])
    assert repr(bn) == repr(usual)
    assert bn.__getstate__().keys() == usual.__getstate__().keys()
