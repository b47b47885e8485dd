"""Layers and norms that the folding tests share."""

import numpy as np

import cpubn

RNG = np.random.default_rng(0)
WEIGHT, BIAS = RNG.normal(size=(6, 2, 3, 2)), RNG.normal(size=6)  # groups=2: 4 channels to 6
FORM = {"groups": 2}
MATRIX = RNG.normal(size=(6, 4))


def norm_of(features, layout="NCHW", **changes):
    rng = np.random.default_rng(features)
    weight, bias, mean = rng.normal(size=(3, features))
    vectors = {"weight": weight, "bias": bias, "running_mean": mean, "running_var": rng.uniform(0.2, 3.0, features)}
    for name, (channel, value) in changes.items():
        vectors[name][channel] = value
    return cpubn.FrozenBatchNorm(**vectors, layout=layout)
