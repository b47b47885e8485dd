"""What a layer does in training with batches that give no statistics, or wrong ones: ask.policies has what there is."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from numpy.typing import ArrayLike

from cpubn.ask.policies import RUNNING, USUAL, Batch, Policies, trained
from cpubn.ask.ranks import forward_over
from cpubn.ask.weights import Asked
from cpubn.layers.accumulation import Accumulates
from cpubn.layers.vectors import put
from cpubn.statistics import Moments
from cpubn.typing import Array, OnEmpty, OnNonfinite, OnSingle, Values

T = TypeVar("T")


class Policy(Generic[T]):
    """One of them, as an attribute."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, kind: type | None = None) -> T:
        if layer is None:
            return self  # type: ignore[return-value]
        return getattr(layer._policies or USUAL, self.name)  # type: ignore[no-any-return]

    def __set__(self, layer: Any, value: T) -> None:
        layer._set_policies(**{self.name: value})


class Decides(Accumulates):
    """A layer with policies."""

    on_single = Policy[OnSingle]()
    on_empty = Policy[OnEmpty]()
    on_nonfinite = Policy[OnNonfinite]()
    _policies: Policies | None = None  # None: all are as usual

    def _set_policies(self, **given: Any) -> None:
        made = Policies(**{**self._unusual(), **given})
        if made.on_single == RUNNING and not self._tracks:
            raise ValueError("track_running_stats must be True with on_single='running', got False; track them")
        put(self, "_policies", made if made.others() else None)

    def _unusual(self) -> dict[str, str]:
        return {} if self._policies is None else self._policies.others()

    def __getstate__(self) -> dict[str, Any]:
        """By name, as they are given."""
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_policies"} | self._unusual()


def by_policies(
    layer: Any, x: ArrayLike, residual: Values, given: tuple[Any, Asked | None], moves: bool
) -> tuple[Array, Moments | None]:
    """A layer's _by_batch_statistics where not all is as usual, or ranks share the batch."""
    out, masked = given

    def batch() -> Batch:
        array, own = layer._trained_on(x, masked, out)
        vectors = layer.running_mean, layer.running_var, layer.weight, layer.bias, layer._tracked
        how = layer._momentum(), layer.eps, layer.layout, layer._activation, own, residual, None, None, out
        return Batch(array, vectors, how, layer.backend, moves)

    policies, comm = layer._policies or USUAL, layer.comm if layer.training else None
    # Ranks hear of an input that is wrong.
    done = trained(policies, batch()) if comm is None else forward_over(comm, layer.num_features, batch, policies)
    by = None if done.by is None else Moments.of(*done.by)
    layer._keep(layer._input(x), residual, done.y, (out, done.weights), by, None if by is None else comm)
    return done.y, Moments.of(done.count, done.stats) if done.taken else None
