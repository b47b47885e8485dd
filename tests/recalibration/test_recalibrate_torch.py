"""torch's update_bn, which a layer with momentum=None and this package's page say the same of."""

import warnings

import numpy as np
from conftest import need_library

import cpubn

need_library("torch", "frameworks")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    import torch
    from torch.optim.swa_utils import update_bn


def test_update_bn_averages_batches():
    rng = np.random.default_rng(0)
    parts = [rng.normal(level, 1, (n, 3)) for level, n in ((0, 64), (2, 64), (50, 2))]
    theirs, ours, exact = torch.nn.BatchNorm1d(3).double(), cpubn.BatchNorm1d(3, momentum=None), cpubn.BatchNorm1d(3)
    update_bn([torch.from_numpy(part) for part in parts], theirs)
    for part in parts:
        ours(part)
    cpubn.recalibrate(exact, exact, parts)
    np.testing.assert_allclose(ours.running_mean, theirs.running_mean, rtol=1e-12)
    np.testing.assert_allclose(ours.running_var, theirs.running_var, rtol=1e-12)
    whole = np.concatenate(parts)
    np.testing.assert_allclose(exact.running_var, whole.var(0, ddof=1), rtol=1e-12)
    assert (exact.running_var > 10 * ours.running_var).all()
