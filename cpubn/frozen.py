"""FrozenBatchNorm: batch norm as inference calls it, with everything per channel worked out beforehand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cpubn import _check, _dispatch, _plan
from cpubn._types import Array, Layout
from cpubn.functional import affine_of


class FrozenBatchNorm:
    """y = (x - running_mean) / sqrt(running_var + eps) * weight + bias, with constants.

    Parameters
    ----------
    weight, bias : (C,) float32 or float64, or None for ones and zeros.
    running_mean, running_var : (C,) float32 or float64.
    eps : added to the variance.
    layout : "NCHW" (channels on axis 1) or "NHWC" (channels last).
    backend : "cython", "numba" or "numpy"; None for the default at the time when this object is made.

    ``running_mean``, ``running_var``, ``weight``, ``bias`` and ``eps`` are kept, read-only float64 copies. Raises ValueError and TypeError as batch_norm does.
    """

    def __init__(
        self,
        weight: ArrayLike | None,
        bias: ArrayLike | None,
        running_mean: ArrayLike,
        running_var: ArrayLike,
        eps: float = 1e-5,
        *,
        layout: Layout = "NCHW",
        backend: str | None = None,
    ) -> None:
        self.layout = _check.layout_name(layout)
        self.eps = _check.epsilon(eps, training=False)
        self.backend = _dispatch.resolve(backend)
        mean = _check.channel_vector(running_mean, "running_mean")
        self.num_features = mean.size
        vectors = (
            _check.vector(mean, "running_mean", mean.size, layout).copy(),
            _check.vector(running_var, "running_var", mean.size, layout).copy(),
            _check.optional_vector(weight, "weight", mean.size, layout, 1.0).copy(),
            _check.optional_vector(bias, "bias", mean.size, layout, 0.0).copy(),
        )
        for vector in vectors:
            vector.flags.writeable = False
        self.running_mean, self.running_var, self.weight, self.bias = vectors
        self._affine = {t: affine_of(t, *vectors, self.eps) for t in map(np.dtype, (np.float32, np.float64))}
        self._direct = self._direct_path()

    def __call__(self, x: ArrayLike, *, out: Array | None = None) -> Array:
        """Normalize `x`, float32 or float64 of 2 to 5 dimensions with C channels; `out` may be `x` itself."""
        y = self._direct(x, out)
        return self._any(x, out) if y is None else y

    def __repr__(self) -> str:
        return f"FrozenBatchNorm({self.num_features}, eps={self.eps}, layout={self.layout!r}, backend={self.backend!r})"

    def _any(self, x: ArrayLike, out: Array | None) -> Array:
        plan = _plan.apply(x, self.num_features, self.layout, out)
        if plan.x.size:
            affine = self._affine[plan.x.dtype]
            _dispatch.kernels(self.backend).normalize(plan.x, affine, plan.y.view, _dispatch.threads(plan.x.nbytes))
            plan.y.deliver(plan.walk)
        return plan.y.array

    def _direct_path(self) -> Callable[[Any, Any], Array | None]:
        """What takes contiguous arrays without the cost of a plan, and answers None for all others."""
        direct = _dispatch.direct_kernels(self.backend)
        if direct is None:
            return lambda x, out: None
        path: Any = direct.DirectAffine(*self._affine.values(), self.layout, _dispatch.threads)
        return path  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_direct"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._direct = self._direct_path()
