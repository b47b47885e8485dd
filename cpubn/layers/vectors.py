"""The vectors of a layer: parameters, their gradients and running statistics; where they live and how they are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Never, Protocol, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from cpubn.ask import check
from cpubn.ask.exchange import communicator
from cpubn.ask.state import layer_state
from cpubn.backends import choice
from cpubn.backends.foreign import shared
from cpubn.backends.gpu.arrays import is_on_gpu
from cpubn.backends.place import located, place_of, to_device, to_host
from cpubn.layers.kept import MOVED, Kept, Nothing
from cpubn.typing import Array, AxisOrder, Backend, Communicator, Values, Vector

VECTORS = "weight", "bias", "weight_grad", "bias_grad", "running_mean", "running_var"
SETTABLE = (
    *VECTORS,
    "num_batches_tracked",
    "eps",
    "momentum",
    "training",
    "track_running_stats",
    "residual_grad",
    "comm",
    "on_single",
    "on_empty",
    "on_nonfinite",
)
FIXED = "num_features", "affine", "layout", "activation", "backend"

MOVED_STATE: dict[str, Any] = {"_kept": MOVED, "residual_grad": None}
NOT_COPIED: dict[str, Any] = {**MOVED_STATE, "_stand_in": None}


# Not by way of vars(): once an instance's dict was asked for, reading an attribute takes 30 ns instead of 10.
put: Callable[[Any, str, Any], None] = object.__setattr__


class Parameter(NamedTuple):
    """What an optimizer needs: ``value`` and ``gradient`` are the layer's own arrays."""

    name: str
    value: Array
    gradient: Vector


T = TypeVar("T")
Got = TypeVar("Got", covariant=True)
Given = TypeVar("Given", contravariant=True)


class Attribute(Protocol[Got, Given]):
    """What a type checker is told of an attribute: what it gives, and what it can be set to.

    At run time it stands in the instance's dict, as any other, and is read in 10 ns.
    """

    def __get__(self, layer: object, kind: type | None = None, /) -> Got: ...
    def __set__(self, layer: object, value: Given, /) -> None: ...


Fixed: TypeAlias = Attribute[T, Never]
ArrayAttribute: TypeAlias = Attribute[Array, Values]  # also where it may be None; see cpubn.typing
VectorAttribute: TypeAlias = Attribute[Vector, Values]


class LayerVectors:
    """On the host, or all of them on one GPU."""

    num_features: Fixed[int]
    layout: Fixed[AxisOrder]
    backend: Fixed[Backend | None]
    weight: ArrayAttribute
    bias: ArrayAttribute
    weight_grad: VectorAttribute
    bias_grad: VectorAttribute
    running_mean: VectorAttribute
    running_var: VectorAttribute
    residual_grad: ArrayAttribute
    comm: Communicator | None = None  # also of pickles that know of none
    _dtype: np.dtype[Any]
    _kept: tuple[Any, ...] | Nothing  # fields of a Kept, which take no time to put together
    _tracks: bool
    _stand_in: Any  # who makes calls in training, in place of the layer
    _tracked: Array | None  # int64, (): kernels count where they move the running statistics

    def __init__(self, count: int, dtype: np.dtype[Any], affine: bool, track_running_stats: bool) -> None:
        self.weight = np.ones(count, dtype) if affine else None
        self.bias = np.zeros(count, dtype) if affine else None
        self.weight_grad = np.zeros(count) if affine else None
        self.bias_grad = np.zeros(count) if affine else None
        self.running_mean = np.zeros(count) if track_running_stats else None
        self.running_var = np.ones(count) if track_running_stats else None
        self.num_batches_tracked = 0 if track_running_stats else None
        self.track_running_stats = track_running_stats
        put(self, "_stand_in", None)

    if not TYPE_CHECKING:  # which would take it that any attribute can be set

        def __setattr__(self, name: str, value: Any) -> None:
            """Of a subclass, attributes of its own are its own affair."""
            if name in FIXED:
                raise AttributeError(f"{name} must stay as it is, got {value!r}; build another layer")
            if name not in SETTABLE and type(self).__module__.startswith("cpubn."):
                from difflib import get_close_matches  # here, because its import would take 1 ms of cpubn's

                near = get_close_matches(name, SETTABLE, 1)
                raise AttributeError(
                    f"{name} is no attribute of a layer that can be set{'; the nearest is ' * bool(near)}"
                    f"{''.join(near)}; there are {', '.join(SETTABLE)}"
                )
            if name in ("training", "track_running_stats"):
                value = check.flag(value, name)
            if name == "comm":
                value = communicator(value)
            if name in VECTORS and value is not None and not hasattr(value, "shape"):
                dtype = self._dtype if name in ("weight", "bias") else np.float64
                value = check.vector(value, name, self.num_features, self.layout).astype(dtype)
            elif name in VECTORS and not is_on_gpu(value):
                value = shared(value, name)
            put(self, name, value)

    def _put(self, **attributes: Any) -> None:
        for name, value in attributes.items():
            put(self, name, value)

    @property
    def num_batches_tracked(self) -> int | Any:
        """How many batches went into the running statistics; None where there are none."""
        return None if self._tracked is None else int(self._tracked)

    @num_batches_tracked.setter
    def num_batches_tracked(self, count: int | None) -> None:
        tracked = None if count is None else np.array(check.count(count, "num_batches_tracked", "a count"), np.int64)
        put(self, "_tracked", tracked)

    @property
    def affine(self) -> bool:
        """Whether the layer has a weight and a bias."""
        return self.weight is not None

    @property
    def track_running_stats(self) -> bool:
        """Whether training moves the running statistics; once set to False it leaves those that there are alone."""
        return self._tracks

    @track_running_stats.setter
    def track_running_stats(self, tracks: bool) -> None:
        put(self, "_tracks", tracks)

    def parameters(self) -> Iterator[Parameter]:
        """(name, value, gradient) of weight and bias, where there are any, for an optimizer's loop."""
        for name in ("weight", "bias"):
            if getattr(self, name) is not None:
                yield Parameter(name, getattr(self, name), getattr(self, f"{name}_grad"))

    def to_device(self) -> Self:
        """Move parameters, gradients and running statistics to the current GPU; returns the layer.

        Raises ValueError where the layer was built for a backend of the host, or no GPU is there.
        """
        if self.backend not in (None, "cuda"):
            raise ValueError(
                f"backend must be None or 'cuda' for a layer on a GPU, got {self.backend!r}; build it without a backend"
            )
        choice.resolve("cuda")
        return self._move(to_device)

    def to_host(self) -> Self:
        """Move them back to the host, as NumPy arrays; returns the layer. Waits for the GPU."""
        return self._move(to_host)

    def zero_grad(self) -> None:
        """Set the accumulated gradients to zero."""
        for name in ("weight_grad", "bias_grad"):
            gradient = located(getattr(self, name), name)
            if gradient is not None:
                check.in_place(gradient, name, "zero_grad")
                place_of(gradient).fill(gradient, 0.0)

    def reset_running_stats(self) -> None:
        """Set the running mean to 0, the running variance to 1 and the batch count to 0."""
        start = {"running_mean": np.zeros(self.num_features), "running_var": np.ones(self.num_features)}
        self._overwrite({**start, "num_batches_tracked": np.zeros((), np.int64)}, "reset_running_stats")

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters and running statistics on the host, under torch's keys."""
        return {name: np.array(to_host(value)) for name, value in self._state().items()}

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Take over parameters and running statistics; all are checked before one is written.

        Parameters
        ----------
        state : arrays of any floating type or integers, or torch's tensors, such as those of a model.half(), by key.

        Raises
        ------
        ValueError, TypeError : for missing or unexpected keys and wrong shapes; for wrong dtypes.
        """
        self._overwrite(layer_state(state, self._state()), "load_state_dict")

    def _running(self) -> tuple[Vector, Vector]:
        if self.running_mean is None or self.running_var is None:
            raise ValueError(
                "the layer must have running statistics for this, got one without (track_running_stats=False); "
                "track them, or build FrozenBatchNorm from statistics of your own, for example from cpubn.moments"
            )
        return self.running_mean, self.running_var

    def _move(self, moved: Callable[[Any], Any]) -> Self:
        vectors = {name: moved(getattr(self, name)) for name in VECTORS}
        self._put(**vectors, **MOVED_STATE)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """A copy or pickle of a layer is on the host and leaves out what backward needs."""
        vectors = {name: to_host(getattr(self, name)) for name in VECTORS}
        return {name: value for name, value in {**vars(self), **vectors}.items() if name not in NOT_COPIED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._put(**state, **NOT_COPIED)

    def _totals(self) -> tuple[Array, Array] | None:
        """What gradients are added to; where one was set to None, as torch's may be, it begins anew."""
        if self.weight_grad is None or self.bias_grad is None:
            if self.weight is None or self.bias is None:
                return None
            for name in ("weight_grad", "bias_grad"):
                if getattr(self, name) is None:
                    like = located(self.weight, "weight")
                    zeros = place_of(like).constant(like, self.num_features, 0.0)
                    put(self, name, place_of(like).result(zeros))
        return self.weight_grad, self.bias_grad

    def _overwrite(self, values: Mapping[str, Array], who: str) -> None:
        """Of the layer's vectors those that there are: all of them, or none."""
        targets = {name: self._tracked if name == "num_batches_tracked" else getattr(self, name) for name in values}
        own = {name: located(vector, name) for name, vector in targets.items() if vector is not None}
        for name, vector in own.items():
            check.in_place(vector, name, who)
        place = place_of(next((v for name, v in own.items() if name != "num_batches_tracked"), None))
        place.write(list(own.values()), [values[name] for name in own])
        # Backward of an inference needs the running statistics that it saw.
        if not isinstance(self._kept, Nothing) and Kept(*self._kept).batch is None:
            put(self, "_kept", MOVED)

    def _state(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in ("weight", "bias", "running_mean", "running_var")}
        if self.num_batches_tracked is not None:
            state["num_batches_tracked"] = np.int64(self.num_batches_tracked)
        return {name: value for name, value in state.items() if value is not None}
