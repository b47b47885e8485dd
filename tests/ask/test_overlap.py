"""Overlap: an output shares memory with nothing but the array that it replaces, nor do running statistics."""

import numpy as np
import pytest

import cpubn


def check_refused(match, memory, call):
    expected = memory.copy()
    with pytest.raises(ValueError, match=match):
        call()
    np.testing.assert_array_equal(memory, expected)


def shifted(shape=(4, 3)):
    """One memory, and two arrays of `shape` in it, a row apart."""
    memory = np.arange(1.0 + (shape[0] + 1) * np.prod(shape[1:]))
    row = int(np.prod(shape[1:]))
    size = shape[0] * row
    return memory, memory[:size].reshape(shape), memory[row : row + size].reshape(shape)


def f64(memory):
    """24 float32 seen as (4, 3) float64."""
    return memory.view(float).reshape(4, 3)


OVERLAPS = {
    "a row apart": shifted,
    "a row apart, rank 4": lambda: shifted((4, 3, 2, 2)),
    "reversed": lambda: (m := np.arange(12.0).reshape(4, 3), m, m[::-1]),
    "transposed": lambda: (m := np.arange(9.0).reshape(3, 3), m, m.T),
    "interleaved columns": lambda: (m := np.arange(24.0).reshape(4, 6), m[:, :3], m[:, 2:5]),
    "half a number apart": lambda: (m := np.ones(26, "f4"), f64(m[:24]), f64(m[1:25])),
}  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", OVERLAPS)
def test_forward_refuses_an_out_that_partly_overlaps_x(name, training, backend):
    memory, x, out = OVERLAPS[name]()
    running = np.zeros(3), np.ones(3)
    check_refused(
        "out must .*x.*got memory that .*overlap.*pass",
        memory,
        lambda: cpubn.batch_norm(x, *running, training=training, out=out, backend=backend),
    )
    np.testing.assert_array_equal(running, [[0] * 3, [1] * 3])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("other", ["dy", "x"])
@pytest.mark.parametrize("name", OVERLAPS)
def test_backward_refuses_an_out_that_partly_overlaps_dy_or_x(name, other, training, backend):
    memory, a, out = OVERLAPS[name]()
    dy, x = (a, np.ones_like(a)) if other == "dy" else (np.ones_like(a), a)
    check_refused(
        f"out must .*{other}.*got memory that .*overlap.*pass",
        memory,
        lambda: cpubn.batch_norm_backward(dy, x, np.zeros(3), np.ones(3), training=training, out=out, backend=backend),
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["running_mean", "running_var", "weight", "bias"])
def test_forward_refuses_an_out_that_overlaps_a_vector(name, training):
    out = np.ones((4, 3))
    arguments = {"running_mean": np.zeros(3), "running_var": np.ones(3), name: out[2]}
    check_refused(
        f"out must not overlap {name}, got",
        out,
        lambda: cpubn.batch_norm(np.zeros((4, 3)), **arguments, training=training, out=out),
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["mean", "var", "weight"])
def test_backward_refuses_an_out_that_overlaps_a_vector(name, training):
    out = np.ones((4, 3))
    arguments = {"mean": np.zeros(3), "var": np.ones(3), name: out[2]}
    check_refused(
        f"out must not overlap {name}, got",
        out,
        lambda: cpubn.batch_norm_backward(np.ones((4, 3)), np.zeros((4, 3)), **arguments, training=training, out=out),
    )


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
@pytest.mark.parametrize("other", ["x", "weight", "bias"])
def test_training_refuses_running_statistics_within_another_argument(other, name):
    memory = np.arange(12.0).reshape(4, 3)
    arguments = {"x": np.ones((4, 3)), "running_mean": np.zeros(3), "running_var": np.ones(3)}
    arguments |= {other: memory if other == "x" else memory[1], name: memory[1]}
    check_refused(
        f"{name} must not overlap {other}, got .*copy", memory, lambda: cpubn.batch_norm(**arguments, training=True)
    )


@pytest.mark.parametrize(
    ("mean", "var"), [(slice(3), slice(3)), (slice(3), slice(2, 5)), (slice(3), slice(2, None, -1))], ids=str
)
def test_training_refuses_running_mean_and_running_var_of_one_memory(mean, var):
    memory = np.ones(5)
    running = memory[mean], memory[var][:3]
    check_refused(
        "running_mean and running_var must .*got .*cop",
        memory,
        lambda: cpubn.batch_norm(np.zeros((4, 3)), *running, training=True),
    )


def test_running_mean_and_running_var_may_be_interleaved(backend):
    x = np.arange(12.0).reshape(4, 3)
    expected = np.zeros(3), np.ones(3)
    cpubn.batch_norm(x, *expected, training=True, backend=backend)
    memory = np.array([[0.0, 1.0]] * 3)
    cpubn.batch_norm(x, memory[:, 0], memory[:, 1], training=True, backend=backend)
    np.testing.assert_array_equal(memory.T, expected)


def test_dy_may_be_x(backend):
    x = np.arange(12.0).reshape(4, 3)
    expected = cpubn.batch_norm_backward(x.copy(), x, np.zeros(3), np.ones(3), backend=backend)
    got = cpubn.batch_norm_backward(x, x, np.zeros(3), np.ones(3), out=x, backend=backend)
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_array_equal(g, e)
