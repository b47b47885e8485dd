"""StandardScaler: scikit-learn's results and types, exact in float32, and a state that a failed fit leaves alone."""

import pickle

import numpy as np
import pytest
from conftest import need_library

need_library("sklearn", "sklearn")
from scipy import sparse
from sklearn.base import clone
from sklearn.preprocessing import StandardScaler as Theirs

import cpubn
from cpubn.sklearn import StandardScaler

ATTRIBUTES = "mean_", "var_", "scale_", "n_samples_seen_"
FLAGS = [(True, True), (True, False), (False, True), (False, False)]


def data(dtype=np.float32, rows=300, mean=20.0, seed=0):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(rows, 5)) * [1, 2, 3, 4, 0] + mean).astype(dtype)
    return x, rng.uniform(0.5, 2.0, rows)


def with_nan(x):
    x = x.copy()
    x[::3, 0] = x[1, :] = np.nan
    return x


def state(scaler):
    return {name: np.copy(vars(scaler)[name]) for name in ATTRIBUTES if vars(scaler).get(name) is not None}


def assert_same_state(a, b, rtol=1e-12):
    mine, theirs = state(a), state(b)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        np.testing.assert_allclose(value, theirs[name], rtol=rtol, atol=rtol, err_msg=name)
        assert value.shape == theirs[name].shape


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32])
@pytest.mark.parametrize(("with_mean", "with_std"), FLAGS)
def test_attributes_and_results_are_theirs(with_mean, with_std, dtype, gaps, weighted):
    x, weights = data(dtype)
    x = with_nan(x) if gaps and dtype != np.int32 else x
    weights = weights.astype(np.float16).astype(np.float64) if weighted else None
    ours, theirs = (
        kind(with_mean=with_mean, with_std=with_std).fit(x, sample_weight=weights) for kind in (StandardScaler, Theirs)
    )
    for batch, part in ((x[:7], slice(0, 7)), (x[7:40], slice(7, 40)), (np.asfortranarray(x), slice(None))):
        for scaler in (ours, theirs):
            scaler.partial_fit(batch, sample_weight=None if weights is None else weights[part])
    # Where nothing is asked for, theirs counts without weights, and those of float16 data it adds up in float16.
    if weights is None or with_mean or with_std:
        assert_same_state(ours, theirs, 1e-3 if dtype == np.float16 else 1e-6)
    z, wanted = ours.transform(x), theirs.transform(x)
    assert z.dtype == wanted.dtype
    tolerance = {np.float16: 0.05, np.float32: 2e-5}.get(dtype, 1e-12)
    np.testing.assert_allclose(z, wanted, rtol=0, atol=tolerance * np.nanmax(abs(wanted.astype(float))))
    back = ours.inverse_transform(z)
    np.testing.assert_allclose(back, x, rtol=0, atol=tolerance * 40)


def test_counts_are_whole_without_weights():
    x, weights = data()
    assert isinstance(StandardScaler().fit(x).partial_fit(x).n_samples_seen_, np.int64)
    assert StandardScaler().fit(with_nan(x)).n_samples_seen_.dtype == np.int64
    for dtype in (np.float16, np.float32, np.float64):
        counted = weights.astype(np.promote_types(dtype, np.float32)).astype(np.float64)
        seen = StandardScaler().fit(x.astype(dtype), sample_weight=weights).n_samples_seen_
        assert seen == pytest.approx(counted.sum(), rel=1e-14)


@pytest.mark.parametrize("mean", [1e3, 1e5, 1e7])
def test_float32_is_exact_at_a_large_mean(mean):
    """Theirs is off by mean / std * 2**-24 deviations."""
    x, _ = data(rows=20000, mean=mean)
    z = StandardScaler().fit_transform(x[:, :4])
    wide = x[:, :4].astype(np.longdouble)
    wanted = (wide - wide.mean(0)) / np.sqrt(((wide - wide.mean(0)) ** 2).mean(0))
    assert (abs(z - wanted) <= 1e-6 * np.maximum(1, abs(wanted))).all()


def test_every_backend_serves_it(backend):
    x, _ = data()
    with cpubn.use_backend(backend):
        scaler = StandardScaler().fit(x[:100]).partial_fit(x[100:])
        z = scaler.transform(x)
    np.testing.assert_allclose(z, Theirs().fit_transform(x.astype(np.float64)), rtol=0, atol=4e-6)
    np.testing.assert_allclose(scaler.inverse_transform(z), x, rtol=1e-6)


@pytest.mark.parametrize("gaps", [False, True])
def test_a_stream_gives_what_the_whole_gives(gaps):
    x, _ = data(np.float64, rows=20000, mean=1e3)
    x = with_nan(x) if gaps else x
    cuts = np.sort(np.random.default_rng(1).choice(np.arange(1, len(x)), 999, replace=False))
    stream = StandardScaler()
    for batch in np.split(x, cuts):
        stream.partial_fit(batch)
    assert_same_state(stream, StandardScaler().fit(x))


def test_constant_features_are_only_centred():
    x, _ = data(mean=1e5)
    scaler = StandardScaler().fit(x)
    assert scaler.var_[4] == 0
    assert scaler.scale_[4] == 1
    assert (scaler.transform(x)[:, 4] == 0).all()


@pytest.mark.parametrize(("size", "right"), [(1e150, True), (1e200, False)])
def test_numbers_whose_squares_overflow(size, right):
    """Without a warning; NaN, never numbers that look right."""
    z = StandardScaler().fit_transform(np.array([[1.0], [3.0], [1.0], [3.0]]) * size)
    np.testing.assert_allclose(z[:, 0], [-1, 1, -1, 1] if right else [np.nan] * 4, rtol=1e-12)


def test_a_feature_without_values_waits_for_some():
    """Theirs stays NaN from then on."""
    x, _ = data(np.float64)
    blank = x.copy()
    blank[:, 1] = np.nan
    scaler = StandardScaler().fit(blank)
    assert np.isnan(scaler.mean_[1])
    assert scaler.n_samples_seen_[1] == 0
    scaler.partial_fit(x).partial_fit(blank)
    np.testing.assert_allclose(scaler.mean_, x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(scaler.var_, x.var(0), rtol=1e-12)
    assert list(scaler.n_samples_seen_) == [900, 300, 900, 900, 900]


@pytest.mark.parametrize("order", ["C", "F"])
def test_without_copy_the_input_is_written(order):
    x = np.array(data()[0], order=order)
    scaler = StandardScaler(copy=False).fit(x)
    wanted = scaler.transform(x, copy=True)
    assert wanted.flags.f_contiguous == x.flags.f_contiguous
    kept = x.copy()
    assert scaler.transform(x) is x
    assert np.array_equal(x, wanted)
    assert scaler.inverse_transform(x) is x
    np.testing.assert_allclose(x, kept, rtol=1e-6)
    x.flags.writeable = False
    assert scaler.transform(x) is not x


def test_infinity_is_refused_and_nothing_changes():
    x, _ = data()
    scaler = StandardScaler().fit(x)
    kept = state(scaler)
    words = r"^Input X contains infinity or a value too large|^Input contains infinity"
    for bad in (np.inf, -np.inf):
        worse = x.copy()
        worse[5, 2] = bad
        for refuse in (scaler.partial_fit, scaler.transform, scaler.inverse_transform):
            with pytest.raises(ValueError, match=words):
                refuse(worse)
        with pytest.raises(ValueError, match=words):
            scaler.partial_fit(worse, sample_weight=np.arange(len(x)) != 5)
    for refuse, shape in ((scaler.partial_fit, (4, 6)), (scaler.transform, (4, 6)), (scaler.inverse_transform, (4, 6))):
        with pytest.raises(ValueError, match="6"):
            refuse(np.ones(shape, np.float32))
    with pytest.raises(ValueError, match="weights must be finite and at least 0"):
        scaler.partial_fit(x, sample_weight=np.linspace(-1, 1, len(x)))
    for name, value in state(scaler).items():
        np.testing.assert_array_equal(value, kept[name])


@pytest.mark.parametrize("turned_on", ["with_mean", "with_std"])
def test_flags_cannot_be_turned_on_between_batches(turned_on):
    x, _ = data()
    scaler = StandardScaler(with_mean=False, with_std=False).fit(x)
    setattr(scaler, turned_on, True)
    for refuse in (scaler.partial_fit, scaler.transform, scaler.inverse_transform):
        with pytest.raises(ValueError, match="call fit, which begins anew"):
            refuse(x)
    assert_same_state(scaler.fit(x), StandardScaler(**scaler.get_params()).fit(x))


def test_sparse_and_dense_batches_add_up():
    x, _ = data(np.float64)
    scaler = StandardScaler(with_mean=False).fit(sparse.csr_array(x[:100])).partial_fit(x[100:200])
    scaler.partial_fit(sparse.csc_array(x[200:]))
    assert_same_state(scaler, StandardScaler(with_mean=False).fit(x), 1e-10)
    assert abs(scaler.transform(sparse.csr_array(x)) - scaler.transform(x)).max() < 1e-14


def test_what_is_set_by_hand_is_used_and_kept():
    x, _ = data(np.float64)
    theirs = Theirs().fit(x[:, :4])
    ours = StandardScaler()
    vars(ours).update({name: np.copy(value)[()] for name, value in vars(theirs).items()})
    for scaler in (ours, pickle.loads(pickle.dumps(ours))):
        np.testing.assert_allclose(scaler.transform(x[:, :4]), theirs.transform(x[:, :4]), rtol=1e-12, atol=1e-12)
    ours.scale_[0] *= 2
    np.testing.assert_allclose(ours.transform(x[:, :4])[:, 0] * 2, theirs.transform(x[:, :4])[:, 0], rtol=1e-12)
    assert_same_state(ours.partial_fit(x[:50, :4]), theirs.partial_fit(x[:50, :4]))
    assert not hasattr(clone(ours), "mean_")
    assert list(ours.get_feature_names_out(["a", "b", "c", "d"])) == ["a", "b", "c", "d"]
