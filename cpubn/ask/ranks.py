"""Passes of a layer whose batch is spread over ranks: each one's own part, one exchange, and what follows from all.

forward:   moments of the part; all merged; y by the whole's statistics
backward:  sums of the part; all added up; dx by the whole's sums
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cpubn.ask import backward, forward
from cpubn.ask.backward import Request
from cpubn.ask.exchange import enough, exchanged, merged, summed
from cpubn.ask.policies import RUNNING, Batch, Policies, Trained
from cpubn.backends import choice, host, register
from cpubn.backends.gpu.arrays import DeviceArray
from cpubn.backends.place import located
from cpubn.typing import Array, Communicator, Vector


def forward_over(
    comm: Communicator,
    channels: int,
    given: Callable[[], Batch],
    policies: Policies,
) -> Trained:
    """y of this rank's part, and of the whole the values per channel and stats; given: checks the input."""
    begun: list[tuple[Any, forward.Forward, Any, Any]] = []

    def own() -> tuple[int, Array]:
        batch = given()
        x = _on_host(batch.x, "x")
        kernels = choice.kernels_for(x, batch.backend)
        running = batch.running(channels) if policies.on_single == RUNNING else None
        with register.calm():
            plan = forward.forward(x, batch.to_move, batch.how, True, whole=False)
            part, walk = forward.sample(plan.output.x, plan.layout, kernels.ANY_TYPE)
            stats = np.zeros((3, channels))
            if part.size:
                kernels.moments(part, stats, choice.threads(part.nbytes))
        begun.append((kernels, plan, running, batch.how[-1]))
        return walk.samples, stats

    count, stats = merged(*exchanged(comm, "forward", channels, own))
    policies.with_values(count)
    apart = bool(policies.apart(count))
    if not apart:
        enough(count)
    taken = policies.takes(stats)
    kernels, plan, running, out = begun[0]
    with register.calm():
        kind, vectors = plan.output.computed_in, (plan.weight, plan.bias)
        if apart:
            made = host.affine(kind, (running[0], None, running[1]), *vectors, plan.eps)
        else:
            made = affine(kind, stats, count, vectors, plan.eps)
        y = plan.output.apply(made, kernels)
        if count and plan.running and taken and not apart:
            host.update_running(*plan.updated, stats, count, plan.momentum)
    return Trained(y if out is None else out, count, stats, None if apart else (count, stats), None, taken)


def backward_over(comm: Communicator, channels: int, given: Callable[[], Request]) -> tuple[Array, Vector, Vector, Any]:
    """dx and, where it is wanted, g of this rank's part, with the part's own dweight and dbias.

    given: checks that there can be a backward, and gives the request.
    """
    begun: list[tuple[Request, backward.Plan, Any, Array]] = []

    def own() -> tuple[int, Array]:
        asked = given()
        asked = asked._replace(x=_on_host(asked.x, "x"))
        plan, kernels, sums = backward.sums_of_part(asked)
        begun.append((asked, plan, kernels, sums))
        return plan.walk.samples, sums

    counts, vectors = exchanged(comm, "backward", channels, own)
    asked, plan, kernels, sums = begun[0]
    with register.calm():
        plan = plan.by_given_sums(float(max(counts.sum(), 1.0)))
        return backward.computed(asked, plan, kernels, summed(vectors), sums)


def _on_host(x: Any, name: str) -> Array:
    array: Array = located(x, name)
    if isinstance(array, DeviceArray):
        raise TypeError(
            f"{name} must be on the host with comm, got one on GPU {array.device}; copy it there, for example with "
            f"{name}.copy_to_host(), the layer with its to_host()"
        )
    return array


def affine(kind: np.dtype[Any], stats: Array, count: int, vectors: tuple[Vector, Vector], eps: float) -> Array:
    """(3, C): centre, scale and shift of y, computed in that type; vectors: weight and bias."""
    mean, low, m2 = stats
    with np.errstate(all="ignore"):
        var = m2 / max(count, 1)
    return host.affine(kind, (mean, low, var), *vectors, eps)
