"""Batch norm inside JAX's compiled code, on the CPU: the kernels of cpubn as calls of XLA, with their gradients.

    from cpubn.jax import batch_norm

    @jax.jit
    def loss(parameters, x): ...
        y, running_mean, running_var = batch_norm(x, running_mean, running_var, weight, bias, training=True)

The calls are compiled on this machine when the first one is traced, which takes a C++ compiler and some seconds, and
kept in a cache folder from then on; `build` does it beforehand. Importing this module imports JAX.
"""

from __future__ import annotations

from cpubn.machine import libraries

refusal = libraries.refusal("cpubn.jax", {"jax": "JAX"}, "jax")
refusal = refusal or libraries.refusal("cpubn.jax", {"jax.ffi": "JAX 0.5 or later"}, "jax")
if refusal is not None:
    raise ImportError(refusal)

from cpubn.jax.functions import batch_norm  # noqa: E402  (which needs JAX)
from cpubn.jax.library import build  # noqa: E402

__all__ = ["batch_norm", "build"]
