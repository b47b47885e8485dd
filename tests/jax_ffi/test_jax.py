"""cpubn.jax gives what cpubn gives, bit for bit, and its gradients, through what JAX makes of a function."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from conftest import need_library

need_library("jax", "frameworks")
from in_jax import given, jax, registered, same, x64  # noqa: F401  (fixtures)

import cpubn
from cpubn.backends import threads
from cpubn.jax import batch_norm, formulas
from cpubn.maths.activations import TABLE

jnp = jax.numpy
pytestmark = pytest.mark.usefixtures("registered", "x64")
ACTIVATIONS = [
    *(e.name if not e.parameters else (e.name, *(-0.5, 1.5)[: len(e.parameters)]) for e in TABLE),
    ("leaky_relu", 0.1),
]


def by_cpubn(x, vectors, **how):
    """y and, in training, the running statistics, and the Moments."""
    mean, var, weight, bias = (None if v is None else v.copy() for v in vectors)
    y, batch = cpubn.batch_norm(x, mean, var, weight, bias, return_moments=True, backend="cython", **how)
    return (y, mean, var) if how["training"] else y, batch


@pytest.mark.parametrize(
    ("activation", "dtype"),
    [
        *((activation, "float32") for activation in (None, *ACTIVATIONS)),
        *((activation, d) for d in ("float64", "float16", "bfloat16") for activation in (None, "relu", "silu")),
    ],
    ids=str,
)
@pytest.mark.parametrize(("training", "added"), [(True, False), (False, True)])
def test_y_and_gradients(training, added, activation, dtype):
    (x, dy, residual), vectors = given(dtype=dtype)
    residual = residual if added else None
    how = {"training": training, "activation": activation, "eps": 1e-3}
    expected, batch = by_cpubn(x, vectors, residual=residual, momentum=0.3, **how)

    def of(x, weight, bias, residual):
        return batch_norm(x, *vectors[:2], weight, bias, residual=residual, momentum=0.3, **how)

    results, pull = jax.vjp(jax.jit(of), x, *vectors[2:], residual)
    jax.tree.map(same, results, expected)

    y = expected[0] if training else expected
    dx, dweight, dbias, *g = cpubn.batch_norm_backward(
        *(dy, x, batch if training else vectors[0], batch.var() if training else vectors[1], vectors[2]),
        **how, bias=vectors[3], residual=residual, y=None if x.itemsize == 2 else y, backend="cython",
    )  # fmt: skip
    kind = vectors[2].dtype
    wanted = dx, dweight.astype(kind), dbias.astype(kind), g[0] if added else None
    zeros = (jnp.zeros_like(v) for v in vectors[:2])
    jax.tree.map(same, pull((jnp.asarray(dy), *zeros) if training else jnp.asarray(dy)), wanted)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        *[((7, 3), "NCHW"), ((7, 1), "NHWC"), ((4, 1, 9), "NCHW"), ((4, 9, 1), "NHWC"), ((300, 2), "channels_last")],
        *[((3, 70, 5, 5), "NCHW"), ((3, 5, 5, 70), "NHWC"), ((2, 3, 4, 5, 6), "NCHW"), ((2, 4, 5, 6, 3), "NDHWC")],
        *[((1, 3, 300, 300), "NCHW"), ((2, 200, 200, 5), "NHWC")],
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_shapes(training, shape, layout):
    channel = 1 if layout == "NCHW" else len(shape) - 1
    (x, dy, _), vectors = given(shape, channel=channel)
    expected, batch = by_cpubn(x, vectors, training=training, layout=layout)
    of = jax.jit(lambda x: batch_norm(x, *vectors, training=training, layout=layout))
    jax.tree.map(same, of(x), expected)
    mean, var = (batch, batch.var()) if training else vectors[:2]
    wanted = cpubn.batch_norm_backward(dy, x, mean, var, vectors[2], training=training, layout=layout)[0]
    same(jax.jit(jax.grad(lambda x: ((of(x)[0] if training else of(x)) * dy).sum()))(x), wanted)


def test_without_float64():
    jax.config.update("jax_enable_x64", False)
    (x, dy, _), vectors = given()
    expected, batch = by_cpubn(x + 1000, vectors, training=True)
    jax.tree.map(same, batch_norm(x + 1000, *vectors, training=True), expected)
    got = jax.grad(lambda x, w, b: (batch_norm(x, None, None, w, b, True)[0] * dy).sum(), (0, 1, 2))(
        x + 1000, *vectors[2:]
    )
    wanted = cpubn.batch_norm_backward(dy, x + 1000, batch, batch.var(), vectors[2])
    jax.tree.map(same, got, tuple(v.astype(np.float32) for v in wanted))


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_types_of_vectors(kind):
    (x, dy, _), vectors = given()
    vectors = [v.astype(jnp.dtype(kind)) for v in vectors]
    wide = [v.astype("float64") for v in vectors]
    same(batch_norm(x, *vectors), by_cpubn(x, wide, training=False)[0])
    gradients = jax.grad(lambda *v: (batch_norm(x, *v) * dy).sum(), (0, 1, 2, 3))(*vectors)
    assert [g.dtype.name for g in gradients] == [kind] * 4


def test_no_vectors():
    (x, _, _), _ = given()
    y, mean, var = batch_norm(x, None, None, training=True)
    same(y, cpubn.batch_norm(x, None, None, training=True))
    assert mean is var is None


def test_the_batch_s_own_statistics_by_momentum_1():
    (x, _, _), vectors = given()
    _, mean, var = batch_norm(x, *vectors, training=True, momentum=1.0)
    np.testing.assert_allclose(mean, x.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(var, x.var((0, 2, 3), ddof=1), rtol=1e-6)


def test_an_empty_batch():
    (x, _, _), vectors = given((0, 6, 4))
    y, mean, var = jax.jit(lambda x: batch_norm(x, *vectors, training=True))(x)
    same(y, x)
    same(mean, vectors[0])
    same(var, vectors[1])


def test_running_statistics_have_gradients_in_inference_alone():
    (x, dy, _), vectors = given(dtype="float64")

    def by_jax(x, mean, var):
        mean, var, weight, bias = (jnp.reshape(v, (-1, 1, 1)) for v in (mean, var, *vectors[2:]))
        return jax.nn.silu((x - mean) / jnp.sqrt(var + 1e-5) * weight + bias)

    def of(x, mean, var, training):
        return jax.tree.leaves(batch_norm(x, mean, var, *vectors[2:], training, activation="silu"))

    got, wanted = (
        jax.grad(lambda *p, f=f: (f(*p) * dy).sum(), (0, 1, 2))(x, *vectors[:2])
        for f in (lambda *p: of(*p, False)[0], by_jax)
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12), got, wanted)
    for g in jax.grad(lambda *p: sum(map(jnp.sum, of(*p, True)[1:])), (0, 1, 2))(x, *vectors[:2]):
        assert not g.any()


@pytest.mark.parametrize(
    ("training", "activation"),
    [*((True, a) for a in (None, *ACTIVATIONS)), (False, None), (False, "silu")],
    ids=str,
)
def test_gradients_of_gradients(training, activation):
    (x, dy, residual), vectors = given((3, 2, 5), "float64")
    name, *numbers = activation if isinstance(activation, tuple) else (activation,)
    act = (lambda z: z) if activation is None else partial(formulas.ACTIVATIONS[name])

    def by_jax(x, mean, var, weight, bias, residual):
        if training:
            mean, var = x.mean((0, 2)), x.var((0, 2))
        mean, var, weight, bias = (v[:, None] for v in (mean, var, weight, bias))
        return act((x - mean) / jnp.sqrt(var + 1e-5) * weight + bias + residual, *numbers)

    def by_cpubn(*primals):
        *vectors, residual = primals
        return jax.tree.leaves(batch_norm(*vectors, training, residual=residual, activation=activation))[0]

    def penalty(f, *primals):
        gradients = jax.grad(lambda *p: (jnp.sin(f(*p)) * dy).sum(), range(6))(*primals)
        return sum((jnp.tanh(g) * (k + 1)).sum() for k, g in enumerate(gradients))

    primals = [x, *vectors, residual]
    got, wanted = (jax.grad(partial(penalty, f), range(6))(*primals) for f in (jax.jit(by_cpubn), by_jax))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-8), got, wanted)
    if activation is not None or not training:
        return
    again, wanted = (
        jax.grad(lambda x, f=f: jax.grad(partial(penalty, f))(x, *primals[1:]).sum())(x) for f in (by_cpubn, by_jax)
    )
    np.testing.assert_allclose(again, wanted, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("training", [False, True])
def test_vmap(training):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, 3, 4, 5, 6)), rng.normal(size=(3, 5))
    mean, var = rng.normal(size=5), rng.uniform(0.5, 2.0, size=(2, 5))

    def of(x, weight, var):
        return batch_norm(x, mean, var, weight, None, training, activation="gelu")

    def slope(x, weight, var):
        return jax.grad(lambda *p: (jax.tree.leaves(of(*p))[0] ** 2).sum(), (0, 1))(x, weight, var)

    for f in (of, slope):
        inner = jax.vmap(f, (0, 0, None))
        got = jax.jit(jax.vmap(inner, (0, None, 0)))(x, weight, var)
        for i in range(2):
            for j in range(3):
                jax.tree.map(lambda a, b, i=i, j=j: same(a[i, j], b), got, f(x[i, j], weight[j], var[i]))
    shared = jax.vmap(lambda bias: of(x[0, 0], bias, var[0]))(weight)
    jax.tree.map(lambda a: same(a[1], jax.tree.leaves(of(x[0, 0], weight[1], var[0]))[0]), jax.tree.leaves(shared)[:1])


def test_scan_and_checkpoint():
    (x, _, _), vectors = given()

    def step(carry, x):
        y, *carry = batch_norm(x, *carry, *vectors[2:], True)
        return tuple(carry), y

    (mean, var), ys = jax.lax.scan(step, tuple(vectors[:2]), jnp.stack([x, 2 * x]))
    running = [v.copy() for v in vectors[:2]]
    for k in range(2):
        same(ys[k], cpubn.batch_norm((k + 1) * x, *running, *vectors[2:], training=True))
    same(mean, running[0])
    same(var, running[1])

    def loss(x):
        return (batch_norm(x, None, None, training=True, activation="relu")[0] ** 3).sum()

    same(jax.grad(jax.checkpoint(loss))(x), jax.grad(loss)(x))


@pytest.mark.usefixtures("threads_restored")
def test_threads_change_no_bit():
    (x, _, _), vectors = given((4, 16, 90, 90))
    of = jax.jit(lambda x: batch_norm(x, *vectors, training=True)[0])
    expected = of(x)
    for n in (1, 2, 5):
        cpubn.set_num_threads(n)
        same(of(x), expected)
    with ThreadPoolExecutor(8) as pool:
        for y in pool.map(of, [x] * 32):
            same(y, expected)
    both = jax.jit(lambda x: [batch_norm(x + k, *vectors, training=True)[0] for k in range(4)])(x)
    for k in range(4):
        same(both[k], of(x + np.float32(k)))


@pytest.mark.usefixtures("threads_restored")
def test_calls_are_told_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(threads, "_followers", [])
    told = []
    threads.follow(told.append)
    default = cpubn.get_num_threads()
    cpubn.set_num_threads(3)
    cpubn.set_num_threads(None)
    assert told == [default, 3, cpubn.get_num_threads()]


def test_a_variance_that_is_not_there():
    (x, _, _), (mean, var, *_) = given()
    with pytest.raises(RuntimeError, match=r"cpubn.jax.batch_norm: var \+ eps must be above 0 in every channel"):
        jax.block_until_ready(jax.jit(batch_norm)(x, mean, -var))


X, ONES = np.ones((2, 3, 4), np.float32), np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("x", "vectors", "how", "message"),
    [
        (X[0, 0], (ONES, ONES), {}, r"x must have 2 to 5 dimensions, got 1 with shape \(4,\); a single sample needs"),
        (X.astype(int), (ONES, ONES), {}, r"x must be an array of .*, got one of int64; convert it, .* with x.astype"),
        (np.ma.array(X), (ONES, ONES), {}, "x must be a plain array, got a masked array"),
        (X, (ONES[:2], ONES), {}, r"running_mean must have shape \(3,\), the channels of x"),
        (X, (ONES, ONES, ONES[:2]), {}, r"weight must have shape \(3,\)"),
        (X, (ONES, None), {}, "running_mean and running_var must come together, got no running_var"),
        (X, (None, None), {}, "running_mean and running_var must be given where training=False"),
        (X, (ONES.astype("f2"), ONES), {"training": True}, "running_mean must be an array of float32 or float64, got"),
        (X[:1, :, :1], (None, None), {"training": True}, "need more than 1 value per channel"),
        (X, (ONES, ONES), {"eps": 0.0, "training": True}, "eps must be above 0 in training"),
        (X, (ONES, ONES), {"momentum": 2.0}, "momentum must be a number from 0 to 1"),
        (X, (ONES, ONES), {"layout": "CHWN"}, "layout must be 'NCHW'"),
        (X, (ONES, ONES), {"activation": "swish"}, "activation must be one of 'relu'"),
        (X, (ONES, ONES), {"activation": jax.nn.relu}, "in JAX, got .*; call a function of your own on the result"),
        (X, (ONES, ONES), {"residual": X[:1]}, r"residual must have the result's shape \(2, 3, 4\)"),
        (X, (ONES, ONES), {"residual": X.astype("f2")}, "residual must have the result's dtype float32"),
        (X, (ONES, ONES), {"training": 1}, "training must be True or False"),
    ],
)
def test_what_is_refused(x, vectors, how, message):
    with pytest.raises((TypeError, ValueError), match=message):
        batch_norm(x, *vectors, **how)


@pytest.mark.parametrize("name", ["training", "momentum", "eps"])
def test_constants(name):
    with pytest.raises(
        TypeError, match=rf"{name} must be known while .*; make it a constant, .*static_argnames='{name}'"
    ):
        jax.jit(lambda value: batch_norm(X, ONES, ONES, **{name: value}))(0.1)


def test_forward_mode_is_refused():
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda x: batch_norm(x, ONES, ONES), (X,), (X,))
