"""Norms, and whole models as named arrays: what is converted, what is asked for, what is refused."""

import re
import subprocess
import sys
from dataclasses import replace

import bad
import numpy as np
import pytest
from norms import BIAS, CLOSE, EPS, LAST, WEIGHT, C, M, X, check_same, trained_layer

import cpubn
from cpubn import convert

ONES, ZEROS = np.ones(3), np.zeros(3)
TORCH = {"running_mean": ZEROS, "running_var": ONES, "weight": ONES, "bias": ZEROS}
KERAS = {"moving_mean": ZEROS, "moving_variance": ONES, "gamma": ONES, "beta": ZEROS}
FLAX = {"params": {"scale": ONES, "bias": ZEROS}, "batch_stats": {"mean": ZEROS, "var": ONES}}
READERS = {
    "torch": (convert.from_torch, TORCH, "eps", 0.1),
    "keras": (convert.from_keras, KERAS, "epsilon", 0.9),
    "flax": (convert.from_flax, FLAX, "epsilon", 0.9),
}


def test_reading_arrays_imports_no_framework(tmp_path):
    program = (
        "import sys, numpy as np, cpubn; assert 'cpubn.convert' not in sys.modules; "
        "from cpubn import convert; a = np.ones(3); "
        "convert.from_torch({'running_mean': a, 'running_var': a}, eps=1e-5); "
        "convert.from_keras({'moving_mean': a, 'moving_variance': a}, epsilon=1e-3); "
        "convert.from_flax({'batch_stats': {'mean': a, 'var': a}}, epsilon=1e-5); "
        "convert.to_npz({'': convert.Norm(a, a, 1e-5)}, sys.argv[1]); convert.from_npz(sys.argv[1]); "
        "print(*{'torch', 'keras', 'jax', 'flax', 'onnx', 'safetensors', 'ml_dtypes', 'h5py'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "norms.npz")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("affine", [True, False])
def test_a_layer_comes_back_as_it_was(layout, affine):
    bn, x = trained_layer(layout, affine=affine), X if layout == "NCHW" else LAST
    norm = convert.Norm.of(bn)
    other = norm.layer(cpubn.BatchNorm2d)
    assert repr(other) == repr(bn.train())
    np.testing.assert_array_equal(other.train()(x), bn.train()(x))
    for name, expected in bn.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], expected)
    np.testing.assert_array_equal(norm.freeze()(x), convert.Norm.of(norm.layer(cpubn.BatchNorm2d)).freeze()(x))


@pytest.mark.parametrize("kind", [cpubn.BatchNorm1d, cpubn.BatchNorm2d, cpubn.BatchNorm3d])
def test_layers_take_their_options(kind):
    norm = convert.Norm(ZEROS, ONES, EPS, momentum=0.3, variance="unbiased")
    bn = norm.layer(kind, momentum=0.5, layout="NHWC", dtype="float64", backend="numpy")
    assert type(bn) is kind
    assert (bn.momentum, bn.layout, bn.backend, bn.weight, bn.eps) == (0.5, "NHWC", "numpy", None, EPS)


@pytest.mark.parametrize(("given", "other"), [("weight", "bias"), ("bias", "weight")])
def test_half_of_an_affine_layer_gets_the_other_half(given, other):
    norm = convert.Norm(ZEROS, ONES, EPS, momentum=0.1, variance="unbiased", **{given: np.full(3, 2.0)})
    bn = norm.layer(cpubn.BatchNorm1d)
    np.testing.assert_array_equal(getattr(bn, given), 2.0)
    np.testing.assert_array_equal(getattr(bn, other), 1.0 if other == "weight" else 0.0)


def test_a_frozen_batch_norm_knows_nothing_of_training():
    frozen = trained_layer().freeze()
    norm = convert.Norm.of(frozen)
    np.testing.assert_array_equal(norm.freeze()(X), frozen(X))
    assert norm.momentum is norm.variance is norm.num_batches_tracked is convert.UNKNOWN
    with pytest.raises(ValueError, match=r"momentum must be given for the layer, got UNKNOWN.*momentum="):
        norm.layer(cpubn.BatchNorm2d, values_per_channel=None)
    with pytest.raises(ValueError, match=r"variance must be known to make it unbiased, got UNKNOWN.*replace"):
        norm.layer(cpubn.BatchNorm2d, momentum=0.1)


def test_variances_convert_by_the_number_of_values():
    norm = convert.Norm.of(trained_layer())
    biased = norm.with_variance("biased", M)
    np.testing.assert_allclose(biased.running_var, norm.running_var * (M - 1) / M, rtol=1e-15)
    np.testing.assert_allclose(biased.with_variance("unbiased", M).running_var, norm.running_var, rtol=1e-15)
    check_same(norm.with_variance("unbiased"), norm)
    kept = norm.with_variance("biased", None)
    assert kept.variance == "biased"
    np.testing.assert_array_equal(kept.running_var, norm.running_var)


@pytest.mark.parametrize(
    ("count", "error", "match"),
    [
        (convert.UNKNOWN, ValueError, "values_per_channel must be given.*unbiased running variance biased, got none"),
        (1, ValueError, "values_per_channel must be at least 2, got 1"),
        (0, ValueError, "values_per_channel must be at least 2, got 0"),
        (-1, ValueError, "values_per_channel must be at least 0, got -1"),
        (8.0, TypeError, "values_per_channel must be a whole number, got 8.0"),
    ],
)
@pytest.mark.parametrize("write", [convert.to_keras, convert.to_flax])
def test_the_number_of_values_is_asked_for(write, count, error, match):
    with pytest.raises(error, match=f"batch norm 'bn': {match}"):
        write({"bn": trained_layer()}, values_per_channel={"bn": count})


def test_the_cumulative_average_needs_its_count():
    norm = convert.Norm(ZEROS, ONES, EPS, momentum=None, variance="unbiased")
    for use in (lambda: norm.layer(cpubn.BatchNorm1d), lambda: convert.to_torch({"bn": norm})):
        with pytest.raises(ValueError, match="num_batches_tracked must be given where momentum is None"):
            use()
    assert replace(norm, num_batches_tracked=7).layer(cpubn.BatchNorm1d).num_batches_tracked == 7
    assert convert.to_torch({"": replace(norm, momentum=0.1)})["num_batches_tracked"] == 0
    with pytest.raises(ValueError, match="'bn': momentum must be a number for Keras, got None"):
        convert.to_keras({"bn": norm}, values_per_channel=None)


@pytest.mark.parametrize("dtype", bad.NO_DTYPE, ids=repr)
@pytest.mark.parametrize("write", [convert.to_torch, convert.to_keras, convert.to_flax])
def test_dtypes_that_are_none_are_refused(write, dtype):
    norm = convert.Norm(np.zeros(3), np.ones(3), 1e-5, momentum=0.1, variance="unbiased")
    with pytest.raises(TypeError, match=r"dtype must be float16, .*got"):
        write({"bn": norm}, values_per_channel=None, dtype=dtype)


# field, value, error, message
BAD = {
    "a NaN": ("weight", [1, np.nan, 1], ValueError, "weight must be finite, got nan in channel 1"),
    "an infinity": ("running_mean", [1, 1, np.inf], ValueError, "running_mean must be finite, got inf in channel 2"),
    "a NaN variance": ("running_var", [np.nan, 1, 1], ValueError, "running_var must be finite, got nan in channel 0"),
    "a negative variance": ("running_var", [1, -2, 1], ValueError, r"running_var \+ eps .* got running_var -2.0"),
    "another length": (
        "bias",
        np.ones(4),
        ValueError,
        r"bias must have shape \(3,\), that of running_mean, got \(4,\)",
    ),
    "another rank": ("bias", np.ones((3, 1)), ValueError, r"bias must have shape \(C,\), got \(3, 1\)"),
    "integers": ("weight", np.ones(3, int), TypeError, "weight must be .*float16, bfloat16.*got .*int64"),
    "complex": ("weight", np.ones(3, complex), TypeError, "weight must be .*float16, bfloat16.*got .*complex128"),
    "strings": ("weight", ["a", "b", "c"], TypeError, "weight must be .*float16, bfloat16.*got .*<U1"),
    "a ragged list": ("weight", [[1], [1, 2]], TypeError, "weight must be an array, got list"),
    "a masked array": ("weight", np.ma.ones(3), TypeError, "weight must be a plain array, got a masked array"),
    "no mean": ("running_mean", None, TypeError, "running_mean must be an array of .*got NoneType"),
    "a negative eps": ("eps", -1e-5, ValueError, "eps must be a finite number of at least 0, got -1e-05"),
    "an eps of text": ("eps", "1e-5", TypeError, "eps must be .* got '1e-5'"),
    "a momentum above 1": ("momentum", 1.5, ValueError, "momentum must be a number from 0 to 1.*got 1.5"),
    "a momentum of text": ("momentum", "0.1", TypeError, "momentum must be a number from 0 to 1.*got '0.1'"),
    "a count of -1": ("num_batches_tracked", -1, ValueError, "num_batches_tracked must be at least 0, got -1"),
    "a variance of 1": ("variance", 1, ValueError, "variance must be 'unbiased' .*'biased'.*got 1"),
    "a layout of text": ("layout", "CHWN", ValueError, "layout must be 'NCHW'.*got 'CHWN'"),
}


@pytest.mark.parametrize(("field", "value", "error", "match"), BAD.values(), ids=list(BAD))
def test_bad_numbers_are_refused(field, value, error, match):
    fields = {"running_mean": ZEROS, "running_var": ONES, "eps": EPS} | {field: value}
    if field in ("weight", "bias", "running_var", "running_mean") and error is ValueError:
        fields[field] = np.asarray(value, np.float64)
    with pytest.raises(error, match=match):
        convert.Norm(**fields)


def test_norms_are_copies_that_cannot_change():
    mean = np.zeros(3)
    norm = convert.Norm(mean, ONES, EPS)
    mean[0] = 7
    assert norm.running_mean[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        norm.running_mean[0] = 1


def test_norms_are_of_layers_of_cpubn():
    with pytest.raises(TypeError, match=r"bn must be BatchNorm1d.*got int"):
        convert.Norm.of(3)
    with pytest.raises(ValueError, match=r"the layer must have running statistics.*track_running_stats=False"):
        convert.Norm.of(cpubn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(TypeError, match=r"kind must be BatchNorm1d.*got 2"):
        convert.Norm(ZEROS, ONES, EPS).layer(2)
    with pytest.raises(TypeError, match="norms must be a mapping from names to batch norms, got BatchNorm1d"):
        convert.to_torch(cpubn.BatchNorm1d(3))
    with pytest.raises(TypeError, match="batch norm 'a': bn must be"):
        convert.to_torch({"a": "b"})


@pytest.mark.parametrize(("read", "source", "eps", "momentum"), READERS.values(), ids=list(READERS))
def test_what_weights_do_not_hold_is_asked_for(read, source, eps, momentum):
    with pytest.raises(
        ValueError, match=f"{eps} must be given, .* does not hold it, got none for ''; pass {eps}=(1e-05|0.001) if"
    ):
        read(source)
    norm = read(source, **{eps: EPS})[""]
    assert norm.eps == EPS
    with pytest.raises(ValueError, match="momentum must be given for the layer, got UNKNOWN"):
        norm.layer(cpubn.BatchNorm2d, values_per_channel=None)
    assert read(source, **{eps: EPS}, momentum=momentum)[""].momentum == 0.1
    with pytest.raises(ValueError, match=r"momentum must be a number from 0 to 1.* got 1\.5"):
        read(source, **{eps: EPS}, momentum=1.5)
    with pytest.raises(ValueError, match=f"{eps} must be one value, or a mapping by .* '', got 'bn'"):
        read(source, **{eps: {"bn": EPS}})
    with pytest.raises(ValueError, match=f"{eps} must be given"):
        read(source, **{eps: {}})


@pytest.mark.parametrize(("read", "source", "eps", "momentum"), READERS.values(), ids=list(READERS))
def test_what_is_no_model_state_is_refused(read, source, eps, momentum):
    for nothing in ([1, 2], None, {1: ONES}):
        with pytest.raises((TypeError, ValueError), match=r"must (be|hold) .*, got"):
            read(nothing, **{eps: EPS})
    with pytest.raises(ValueError, match=r"must hold a batch norm's .*, got the keys none"):
        read({}, **{eps: EPS})
    with pytest.raises(ValueError, match=r"must hold a batch norm's .*, got the keys kernel, a.* and 6 more; "):
        read({"kernel": ONES, **{f"a{i}": ONES for i in range(9)}}, **{eps: EPS})


@pytest.mark.parametrize(
    ("read", "arrays", "match"),
    [
        (convert.from_torch, {"a.running_mean": ONES}, "running_mean and running_var of .*'a', got no a.running_var"),
        (convert.from_torch, {"a.running_var": ONES}, "running_mean and running_var of .*'a', got no a.running_mean"),
        (convert.from_keras, {"a/moving_mean": ONES}, "of batch norm 'a', got no a/moving_variance"),
        (convert.from_flax, {"batch_stats": {"a": {"var": ONES}}}, "of batch norm 'a', got no a/mean"),
    ],
)
def test_half_of_the_statistics_is_refused(read, arrays, match):
    with pytest.raises(ValueError, match=match):
        read(arrays)


def test_torch_has_no_bias_without_weight():
    with pytest.raises(ValueError, match=r"must hold weight where it holds bias, got no a.weight"):
        convert.from_torch({f"a.{name}": v for name, v in TORCH.items() if name != "weight"}, eps=EPS)


@pytest.mark.parametrize("count", [np.float64(1), "1", np.array([1, 2]), None])
def test_a_count_is_a_whole_number(count):
    with pytest.raises(TypeError, match="batch norm '': num_batches_tracked must be a whole number, got"):
        convert.from_torch(TORCH | {"num_batches_tracked": count}, eps=EPS)


@pytest.mark.parametrize(("keyword", "name"), [("center", "beta"), ("scale", "gamma")])
def test_keras_config_and_weights_agree(keyword, name):
    assert convert.from_keras(KERAS, epsilon=EPS, **{keyword: True})
    with pytest.raises(ValueError, match=f"{name} must be there where {keyword}=True .*got {keyword}=False and {name}"):
        convert.from_keras(KERAS, epsilon=EPS, **{keyword: False})
    without = {field: vector for field, vector in KERAS.items() if field != name}
    assert convert.from_keras(without, epsilon=EPS, **{keyword: False})
    with pytest.raises(ValueError, match=f"{name} must be there .*got {keyword}=True and no {name}"):
        convert.from_keras(without, epsilon=EPS, **{keyword: True})


@pytest.mark.parametrize("axis", [0, -2, 5, True, None, "last", [1, 2]])
@pytest.mark.parametrize(("read", "source"), [(convert.from_keras, KERAS), (convert.from_flax, FLAX)])
def test_an_axis_is_the_second_or_the_last(read, source, axis):
    with pytest.raises(ValueError, match=f"axis must be -1 .channels last; .* or 1, got {re.escape(repr(axis))}"):
        read(source, epsilon=EPS, axis=axis)


def test_a_flax_tree_holds_each_name_once():
    with pytest.raises(ValueError, match="must hold each name once, got 'a/b/mean' twice"):
        convert.from_flax({"batch_stats": {"a/b": {"mean": ONES}, "a": {"b": {"mean": ONES}}}}, epsilon=EPS)


@pytest.mark.parametrize("missing", ["scale", "mean"])
def test_flax_variables_are_replaced_by_others_of_their_shape(missing):
    norm = convert.from_flax(FLAX, epsilon=EPS, momentum=0.9)
    into = {kind: {name: v for name, v in vectors.items() if name != missing} for kind, vectors in FLAX.items()}
    with pytest.raises(ValueError, match=rf"into must hold {missing} of the shape that is given, \(3,\), got none"):
        convert.to_flax(norm, into)
    longer = {kind: {name: np.ones(4) for name in vectors} for kind, vectors in FLAX.items()}
    with pytest.raises(ValueError, match=r"into must hold scale of the shape that is given, \(3,\), got \(4,\)"):
        convert.to_flax(norm, longer)


@pytest.mark.parametrize("write", [convert.to_torch, convert.to_keras, convert.to_flax])
def test_vectors_must_fit_the_dtype(write):
    norm = convert.Norm(np.full(3, 1e39), ONES, EPS, momentum=0.1, variance="unbiased")
    with pytest.raises(ValueError, match=r"a.*mean must fit float32, got 1e\+39"):
        write({"a": norm}, values_per_channel=None)
    write({"a": norm}, values_per_channel=None, dtype="float64")


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.01, 0.001, 0.25, 0.3, 1.0, np.float64(0.1)])
def test_momentum_is_turned_over_without_rounding(momentum):
    norm = convert.Norm(ZEROS, ONES, EPS, momentum=momentum)
    _, config = convert.to_keras({"": norm}, values_per_channel=None)
    assert convert.from_keras(KERAS, epsilon=EPS, momentum=config[""]["momentum"])[""].momentum == momentum
    assert config[""]["momentum"] == round(1 - momentum, 15)


def test_values_per_channel_and_dtype_reach_torch():
    norm = replace(convert.Norm.of(trained_layer()), variance="biased")
    state = convert.to_torch({"a": norm}, values_per_channel={"a": M}, dtype=np.float64)
    np.testing.assert_allclose(state["a.running_var"], norm.running_var * M / (M - 1), **CLOSE)
    np.testing.assert_array_equal(state["a.weight"], WEIGHT)
    np.testing.assert_array_equal(state["a.bias"], BIAS)
    assert len(state["a.weight"]) == C
