"""Layers: torch.nn's modes, running statistics and gradients, on top of the functions."""

import cases
import numpy as np
import oracle
import pytest

import cpubn

LAYERS = [
    (cpubn.BatchNorm1d, (40, 6)),
    (cpubn.BatchNorm1d, (10, 6, 7)),
    (cpubn.BatchNorm2d, (5, 6, 4, 7)),
    (cpubn.BatchNorm3d, (3, 6, 2, 3, 4)),
]
each_layer = pytest.mark.parametrize(
    ("make", "shape", "layout"), [(make, shape, layout) for make, shape in LAYERS for layout in ("NCHW", "NHWC")]
)


def batches(shape, layout="NCHW", dtype=np.float32, count=3):
    return [cases.make("offset 1", shape, layout, dtype) * (k + 1) + k for k in range(count)]


def with_parameters(bn):
    weight, bias = cases.vectors(bn.num_features)
    bn.weight[...], bn.bias[...] = weight, bias
    return bn


@each_layer
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_training_then_inference(make, shape, layout, dtype, backend):
    bn = with_parameters(make(6, layout=layout, backend=backend))
    mean, var = np.zeros(6), np.ones(6)
    for x in batches(shape, layout, dtype):
        expected = oracle.batch_norm(x, weight=bn.weight, bias=bn.bias, layout=layout)
        got = bn(x)
        assert got.dtype == dtype
        assert oracle.worst(got, expected.y, expected.bound) <= 1
        count = x.size // 6
        mean = 0.9 * mean + 0.1 * expected.mean
        var = 0.9 * var + 0.1 * expected.var * count / (count - 1)
    assert bn.num_batches_tracked == 3
    np.testing.assert_allclose(bn.running_mean, mean.astype(float), rtol=1e-6)
    np.testing.assert_allclose(bn.running_var, var.astype(float), rtol=1e-6)

    bn.eval()
    kept = bn.running_mean.copy(), bn.running_var.copy()
    expected = oracle.batch_norm(x, *kept, bn.weight, bn.bias, layout=layout)
    got = bn(x)
    assert oracle.worst(got, expected.y, expected.bound) <= 1
    assert bn.num_batches_tracked == 3
    np.testing.assert_array_equal((bn.running_mean, bn.running_var), kept)


@each_layer
@pytest.mark.parametrize("training", [True, False])
def test_backward(make, shape, layout, training, backend):
    bn = with_parameters(make(6, layout=layout, backend=backend))
    x, _, _ = batches(shape, layout)
    bn(x)
    bn.train(training)
    bn(x)
    dy = cases.make_gradient("correlated", x, layout)
    batch = cpubn.moments(x, layout=layout, backend=backend)
    statistics = (batch.mean, batch.var()) if training else (bn.running_mean, bn.running_var)
    expected = oracle.batch_norm_backward(dy, x, *statistics, bn.weight, 1e-5, training, layout)
    got = bn.backward(dy)
    assert oracle.worst(got, expected.dx, expected.dx_bound) <= 1
    assert oracle.worst(bn.weight_grad, expected.dweight, expected.dweight_bound) <= 1
    assert oracle.worst(bn.bias_grad, expected.dbias, expected.dbias_bound) <= 1


def test_gradients_accumulate_until_zero_grad(backend):
    bn = cpubn.BatchNorm1d(6, backend=backend)
    expected_weight, expected_bias = np.zeros(6), np.zeros(6)
    for x in batches((40, 6)):
        bn(x)
        batch = cpubn.moments(x, backend=backend)
        dy = cases.make_gradient("correlated", x)
        _, dweight, dbias = cpubn.batch_norm_backward(dy, x, batch, batch.var(), bn.weight, backend=backend)
        expected_weight += dweight
        expected_bias += dbias
        bn.backward(dy)
    np.testing.assert_array_equal(bn.weight_grad, expected_weight)
    np.testing.assert_array_equal(bn.bias_grad, expected_bias)
    bn.zero_grad()
    np.testing.assert_array_equal((bn.weight_grad, bn.bias_grad), np.zeros((2, 6)))


def test_momentum_none_is_the_cumulative_average(backend):
    bn = cpubn.BatchNorm2d(6, momentum=None, backend=backend)
    many = batches((5, 6, 4, 7), count=7)
    for x in many:
        bn(x)
    axes = (0, 2, 3)
    np.testing.assert_allclose(bn.running_mean, np.mean([x.mean(axes, dtype=float) for x in many], 0), rtol=1e-6)
    np.testing.assert_allclose(bn.running_var, np.mean([x.astype(float).var(axes, ddof=1) for x in many], 0), rtol=1e-6)
    assert bn.num_batches_tracked == 7


@pytest.mark.parametrize("training", [True, False])
def test_an_untracked_layer_always_normalizes_with_the_batch(training, backend):
    bn = cpubn.BatchNorm1d(6, track_running_stats=False, backend=backend).train(training)
    assert bn.running_mean is None
    assert bn.running_var is None
    x, _, dy = batches((10, 6, 7))
    expected = oracle.batch_norm(x)
    got = bn(x)
    assert oracle.worst(got, expected.y, expected.bound) <= 1
    expected = oracle.batch_norm_backward(dy, x, expected.mean, expected.var)
    assert oracle.worst(bn.backward(dy), expected.dx, expected.dx_bound) <= 1
    bn.reset_running_stats()


def test_a_layer_without_parameters(backend):
    bn = cpubn.BatchNorm1d(6, affine=False, backend=backend)
    assert bn.weight is bn.bias is bn.weight_grad is bn.bias_grad is None
    x, _, dy = batches((10, 6, 7))
    expected = oracle.batch_norm(x)
    got = bn(x)
    assert oracle.worst(got, expected.y, expected.bound) <= 1
    expected = oracle.batch_norm_backward(dy, x, expected.mean, expected.var)
    assert oracle.worst(bn.backward(dy), expected.dx, expected.dx_bound) <= 1
    bn.zero_grad()


def test_running_statistics_keep_at_a_large_mean_what_float32_would_lose(backend):
    bn = cpubn.BatchNorm1d(3, momentum=None, backend=backend)
    x = cases.make("offset 1e+07", (400, 3))
    bn(x)
    mean, _ = oracle.moments(x)
    assert bn.running_mean.dtype == bn.running_var.dtype == np.float64
    np.testing.assert_allclose(bn.running_mean, mean.astype(float), rtol=1e-13)
    expected = oracle.batch_norm(x, bn.running_mean, bn.running_var)
    got = bn.eval()(x)
    assert oracle.worst(got, expected.y, expected.bound) <= 1


@pytest.mark.parametrize("dtype", [*cases.DTYPES, "float32", "float64"])
def test_dtype_is_that_of_weight_and_bias(dtype, backend):
    bn = cpubn.BatchNorm1d(6, dtype=dtype, backend=backend)
    assert bn.weight.dtype == bn.bias.dtype == dtype
    assert bn.weight_grad.dtype == bn.bias_grad.dtype == np.float64
    np.testing.assert_array_equal((bn.weight, bn.bias), [[1] * 6, [0] * 6])
    assert bn(np.ones((4, 6), np.float32)).dtype == np.float32
    assert bn(np.ones((4, 6), np.float64)).dtype == np.float64


def test_train_eval_and_reset(backend):
    bn = cpubn.BatchNorm1d(6, backend=backend)
    assert bn.training is True
    assert bn.eval() is bn
    assert bn.training is False
    assert bn.train() is bn
    assert bn.training is True
    assert bn.train(False).training is False
    bn.train()(batches((40, 6))[1])
    bn.reset_running_stats()
    np.testing.assert_array_equal((bn.running_mean, bn.running_var), [[0] * 6, [1] * 6])
    assert bn.num_batches_tracked == 0


def change_in_place(bn):
    bn.weight[2] = 5
    bn.running_var[3] = 0.25


def change_arrays(bn):
    bn.bias = np.arange(6.0)
    bn.running_mean = np.arange(6.0)


def change_by_training(bn):
    bn.train()(batches((40, 6))[2])
    bn.eval()


def change_by_loading(bn):
    bn.load_state_dict(with_parameters(cpubn.BatchNorm1d(6)).state_dict())


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("change", [change_in_place, change_arrays, change_by_training, change_by_loading])
def test_inference_sees_every_change_of_the_layer(change, dtype, backend):
    bn = cpubn.BatchNorm1d(6, backend=backend).eval()
    x, _, dy = batches((40, 6), dtype=dtype)
    bn(x)
    change(bn)
    expected = oracle.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)
    got = bn(x)
    assert oracle.worst(got, expected.y, expected.bound) <= 1
    expected = oracle.batch_norm_backward(dy, x, bn.running_mean, bn.running_var, bn.weight, training=False)
    assert oracle.worst(bn.backward(dy), expected.dx, expected.dx_bound) <= 1


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shape", [(0, 6), (4, 6, 0)])
def test_an_empty_batch_leaves_statistics_and_count_alone(shape, momentum, backend):
    bn = cpubn.BatchNorm1d(6, momentum=momentum, backend=backend)
    bn(batches((40, 6))[0])
    expected = bn.state_dict()
    x = np.empty(shape, np.float32)
    assert bn(x).shape == shape
    assert bn.backward(x).shape == shape
    got = bn.state_dict()
    assert got.keys() == expected.keys()
    for name in got:
        np.testing.assert_array_equal(got[name], expected[name])
    np.testing.assert_array_equal((bn.weight_grad, bn.bias_grad), np.zeros((2, 6)))


def test_zero_channels(backend):
    bn = cpubn.BatchNorm1d(0, backend=backend)
    assert bn(np.empty((4, 0), np.float32)).shape == (4, 0)
    assert bn.backward(np.empty((4, 0), np.float32)).shape == (4, 0)


def test_out_and_in_place(backend):
    bn = cpubn.BatchNorm1d(6, momentum=0, backend=backend)
    x, _, dy = batches((40, 6))
    expected = bn(x)
    expected_dx = bn.backward(dy)
    out = np.empty_like(x)
    assert bn(x, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert bn.backward(dy, out=dy) is dy
    np.testing.assert_array_equal(dy, expected_dx)
    assert bn(x, out=x) is x
    np.testing.assert_array_equal(x, expected)


def test_an_out_beside_x_in_one_memory_is_not_in_place(backend):
    bn = cpubn.BatchNorm1d(6, backend=backend)
    x, _, dy = batches((40, 6))
    bn(x)
    expected = bn.backward(dy)
    memory = np.empty((40, 6, 2), np.float32)
    memory[..., 0] = x
    bn(memory[..., 0], out=memory[..., 1])
    np.testing.assert_array_equal(bn.backward(dy), expected)


def test_repr_shows_how_the_layer_was_made():
    got = repr(cpubn.BatchNorm2d(6, eps=1e-3, momentum=None, affine=False, layout="NHWC"))
    for expected in ["BatchNorm2d(6", "eps=0.001", "momentum=None", "affine=False", "track_running_stats=True", "NHWC"]:
        assert expected in got


@pytest.mark.parametrize("layer", [
    cpubn.BatchNorm1d(3), cpubn.BatchNorm2d(6, 1e-3, None, False, layout="NHWC").eval(),
    cpubn.BatchNorm3d(2, track_running_stats=False, activation=("clip", -1.0, 2.0), dtype=np.float64, backend="numpy"),
])  # fmt: skip
def test_repr_is_an_expression_for_a_layer_like_it(layer):
    twin = eval(repr(layer), {name: getattr(cpubn, name) for name in ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d")})
    assert repr(twin) == repr(layer)
    assert (twin.training, twin.affine) == (layer.training, layer.affine)
    assert [(p.name, p.value.dtype) for p in twin.parameters()] == [(p.name, p.value.dtype) for p in layer.parameters()]


def test_what_a_layer_is_can_be_read():
    bn = cpubn.BatchNorm2d(6, affine=False, track_running_stats=False)
    assert (bn.num_features, bn.affine, bn.track_running_stats, bn.layout) == (6, False, False, "NCHW")


def test_tracking_can_be_stopped_and_gone_on_with(backend):
    """As in torch: the statistics that there are stay, and are used in eval mode."""
    bn = cpubn.BatchNorm1d(6, backend=backend)
    x, other, _ = batches((40, 6))
    bn(x)
    before = bn.state_dict()
    bn.track_running_stats = False
    bn(other)
    for name, value in bn.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    y = bn.eval()(other)
    np.testing.assert_array_equal(y, bn.freeze()(other))
    bn.track_running_stats = np.True_
    bn.train()(other)
    assert bn.num_batches_tracked == 2
    assert (bn.running_mean != before["running_mean"]).all()


@pytest.mark.parametrize("activation", [None, "relu", ("leaky_relu", 0.1), ("clip", -1.0, 2.0)])
def test_the_activation_is_told_as_it_was_given(activation):
    bn = cpubn.BatchNorm1d(3, activation=activation)
    assert bn.activation == activation
    assert bn.freeze().activation == activation
    with pytest.raises(AttributeError):
        bn.activation = "silu"
