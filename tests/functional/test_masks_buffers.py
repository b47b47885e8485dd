"""Weights that go through buffers of the compiled kernels: few elements, and steps between them."""

import numpy as np
import pytest

import cpubn


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("weights", [np.int64, np.float32, np.float64])
def test_few_rows_whose_weights_go_through_buffers(weights, threads, backend, threads_restored, monkeypatch):
    """Fewer elements than lanes, in all or in what a thread writes, and steps between them."""
    cpubn.set_num_threads(threads)
    monkeypatch.setattr("cpubn.backends.threads.SERIAL_BYTES", 0)
    for rows, step in (2, 1), (50, 1), (50, 3):
        x, own = np.ones((rows * step, 3), np.float32)[::step], np.arange(rows) % 2
        y = cpubn.batch_norm(
            x,
            np.zeros(3),
            np.ones(3),
            eps=0.0,
            layout="NHWC",
            weights=own.astype(weights),
            masked_output=7.0,
            backend=backend,
        )
        np.testing.assert_array_equal(y, np.where(own[:, None] > 0, x, 7))
        m = cpubn.moments(x * own[:, None], layout="NHWC", weights=own.astype(weights), backend=backend)
        np.testing.assert_array_equal([m.count, m.mean, m.m2], [[rows // 2] * 3, [1] * 3, [0] * 3])
