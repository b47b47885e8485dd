"""The first half of backward, of a part of a batch; batch_norm_backward with `sums` is the second."""

from __future__ import annotations

from numpy.typing import ArrayLike

from cpubn.ask import options
from cpubn.ask.backward import Request, samples_of, sums_of_part
from cpubn.ask.check import layout_name
from cpubn.backends import choice
from cpubn.backends.place import place_of
from cpubn.statistics import Moments
from cpubn.typing import Activation, Backend, Layout, Vector


def gradient_sums(
    dy: ArrayLike,
    x: ArrayLike,
    mean: Moments,
    var: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    layout: Layout = "NCHW",
    bias: ArrayLike | None = None,
    activation: Activation | None = None,
    residual: ArrayLike | None = None,
    y: ArrayLike | None = None,
    backend: Backend | None = None,
) -> Vector:
    """What the gradient of a batch in training is made of, of a part of it: the parts' sums add up to the whole's::

        sum(g) and sum(g * (x - mean)) of every channel,  g = dy * activation'(z)

    The two sums of Ioffe and Szegedy (2015), section 3, before they are divided by the batch's count and deviation.

    Parameters
    ----------
    dy, x : of the part, as in batch_norm_backward; it may be empty, or have one value per channel.
    mean : the Moments of the whole batch.
    var : (C,), its variance, ``mean.var()``.
    weight, eps, layout, bias, activation, residual, y, backend : as in batch_norm_backward.

    Returns
    -------
    (2, C) float64, to the bounds of batch_norm_backward's dbias and dweight.

    Raises
    ------
    ValueError, TypeError : as batch_norm_backward.

    Examples
    --------
    >>> import numpy as np, cpubn
    >>> x, dy = np.random.default_rng(0).normal(size=(2, 10, 3))
    >>> m = cpubn.moments(x)
    >>> sums = sum(cpubn.gradient_sums(dy[part], x[part], m, m.var()) for part in (slice(4), slice(4, 10)))
    >>> dx, dweight, dbias = cpubn.batch_norm_backward(dy[:4], x[:4], m, m.var(), sums=sums)
    >>> bool(np.allclose(dx, cpubn.batch_norm_backward(dy, x, m, m.var())[0][:4], rtol=0, atol=1e-12))
    True
    """
    act = options.activation(activation)
    samples_of(mean, training=True)
    first, low, _ = mean._vectors
    asked = Request(
        *(dy, x, (first, low, var, 1.0), weight, bias, eps, True, layout_name(layout)),
        *(act, residual, y, False, None, None, choice.backend_for(act, backend)),
    )
    plan, _, sums = sums_of_part(asked)
    return place_of(plan.x).result(sums)  # type: ignore[no-any-return]
