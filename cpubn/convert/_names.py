"""Whole models: batch norms among named arrays, found by the names that a framework gives their vectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from cpubn.ask import check, options
from cpubn.convert._layout import layout_of
from cpubn.convert._norm import UNKNOWN, Norm
from cpubn.typing import Array, Vector

T = TypeVar("T")
OTHERS = {"running_var": "from_torch", "moving_variance": "from_keras", "batch_stats": "from_flax"}  # by a name of each
Each: TypeAlias = T | Mapping[str, T]  # one value for all batch norms, or a mapping by name


@dataclass(frozen=True)
class Names:
    """What a framework calls the numbers, each after the layer's own name and a separator."""

    source: str
    separator: str
    fields: Mapping[str, str]  # its name -> ours
    ending: str = "$"  # what may stand behind a name, as a regular expression

    def find(self, arrays: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The batch norms by name, each with its values by our names; whatever has no running statistics is ignored."""
        if not isinstance(arrays, Mapping) or not all(isinstance(key, str) for key in arrays):
            raise TypeError(
                f"{self.source} must be a mapping from names to arrays, got {type(arrays).__name__}; "
                "pass every array of the model by its name"
            )
        found: dict[str, dict[str, Any]] = {}
        for key, value in arrays.items():
            prefix, field = self.split(key)
            if field in self.fields:
                values = found.setdefault(prefix, {})
                if self.fields[field] in values:
                    raise ValueError(
                        f"{self.source} must hold each array once, got {self.join(prefix, field)!r} twice; "
                        "take out one of them"
                    )
                values[self.fields[field]] = value
        names = {ours: theirs for theirs, ours in self.fields.items()}
        statistics = {"running_mean", "running_var"}
        norms = {prefix: values for prefix, values in found.items() if statistics & set(values)}
        for prefix, values in norms.items():
            for missing in statistics - set(values):
                raise ValueError(
                    f"{self.source} must hold {names['running_mean']} and {names['running_var']} of batch norm "
                    f"{prefix!r}, got no {self.join(prefix, names[missing])}; pass the whole of it"
                )
        if not norms:
            raise self.nothing(arrays)
        return norms

    def split(self, key: str) -> tuple[str, str]:
        """The batch norm's name, and which of its values it is."""
        prefix, _, field = re.sub(self.ending, "", key).rpartition(self.separator)
        return prefix, field

    def nothing(self, keys: Iterable[str]) -> ValueError:
        """What to say where no key is that of running statistics."""
        names, keys = {ours: theirs for theirs, ours in self.fields.items()}, list(keys)
        way = "pass the state of a model with running statistics"
        for mark, reader in OTHERS.items():
            if mark not in self.fields and any(mark in re.split(r"[/.:]", key) for key in keys):
                way = f"these names are those that {reader} takes; pass it the arrays by name"
        return ValueError(
            f"{self.source} must hold a batch norm's {names['running_mean']} and {names['running_var']}, got the "
            f"keys {listed(keys)}; {way}"
        )

    def join(self, prefix: str, field: str) -> str:
        return f"{prefix}{self.separator}{field}" if prefix else field

    def write(self, norms: Mapping[str, Norm], dtype: DTypeLike) -> dict[str, Array]:
        """The vectors of every batch norm under its framework's names."""
        return {
            self.join(prefix, theirs): cast(norm.vectors()[ours], self.join(prefix, theirs), dtype)
            for prefix, norm in norms.items()
            for theirs, ours in self.fields.items()
            if ours in norm.vectors()
        }


def build(found: Mapping[str, Mapping[str, Any]], **how: Mapping[str, Any]) -> dict[str, Norm]:
    """A Norm of each, from its own values and from what holds by name; errors say which batch norm it was."""
    return {
        prefix: of_batch_norm(prefix, Norm, **{name: given[prefix] for name, given in how.items()} | dict(values))
        for prefix, values in found.items()
    }


def of_batch_norm(prefix: str, make: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
    """What `make` returns, or its error with the name of the batch norm."""
    with errors_of(f"batch norm {prefix!r}"):
        return make(*arguments, **keywords)


@contextmanager
def errors_of(what: str) -> Iterator[None]:
    """Errors say what they are about."""
    try:
        yield
    except TypeError as error:
        raise TypeError(f"{what}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def each(given: Any, keyword: str, names: Iterable[str]) -> dict[str, Any]:
    """A value for every batch norm, from one for all or from a mapping by name."""
    names = dict.fromkeys(names)
    if not isinstance(given, Mapping):
        return dict.fromkeys(names, given)
    strangers = [name for name in given if name not in names]
    if strangers:
        raise ValueError(
            f"{keyword} must be one value, or a mapping by the batch norms' names {listed(map(repr, names))}, "
            f"got {listed(map(repr, strangers))}; leave out what is no batch norm here"
        )
    return {name: given.get(name, UNKNOWN) for name in names}


def replaced(said: Mapping[str, Any], given: Any, keyword: str) -> dict[str, Any]:
    """What is said of each batch norm, or what is given in its place."""
    return dict(said) | {name: v for name, v in each(given, keyword, said).items() if v is not UNKNOWN}


def with_given(norms: Mapping[str, Norm], **given: Any) -> dict[str, Norm]:
    """The same batch norms with what is given in place of what they say."""
    said = {
        keyword: replaced({name: getattr(norm, keyword) for name, norm in norms.items()}, value, keyword)
        for keyword, value in given.items()
    }
    return {
        name: of_batch_norm(name, replace, norm, **{keyword: values[name] for keyword, values in said.items()})
        for name, norm in norms.items()
    }


def listed(names: Iterable[str], most: int = 4) -> str:
    """The first of them, and how many others."""
    names = list(names)
    others = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + others


def required(given: Any, keyword: str, names: Iterable[str], source: str, usual: float) -> dict[str, Any]:
    """The same, of what the source does not hold and nothing can do without."""
    values = each(given, keyword, names)
    absent = [name for name, value in values.items() if value is UNKNOWN]
    if absent:
        raise ValueError(
            f"{keyword} must be given, because {source} does not hold it, got none for {listed(map(repr, absent))}; "
            f"pass {keyword}={usual:g} if that is what the model was built with, or a mapping by name"
        )
    return values


def own(norms: Any) -> dict[str, Norm]:
    """Norms by name, from Norms, layers and FrozenBatchNorms."""
    if not isinstance(norms, Mapping) or not all(isinstance(name, str) for name in norms):
        raise TypeError(
            f"norms must be a mapping from names to batch norms, got {type(norms).__name__}; "
            "pass {'': norm} for one without a name"
        )
    return {
        name: norm if isinstance(norm, Norm) else of_batch_norm(name, Norm.of, norm) for name, norm in norms.items()
    }


def biased(norms: Any, values_per_channel: Any) -> dict[str, Norm]:
    """The same for a framework that averages biased variances."""
    norms = own(norms)
    counts = each(values_per_channel, "values_per_channel", norms)
    return {name: of_batch_norm(name, norm.with_variance, "biased", counts[name]) for name, norm in norms.items()}


def old_weight(momentum: Any) -> float:
    """1 - momentum: the weight of the old average, which is what all but torch and cpubn call momentum.

    Either way round, and in decimal, so that 0.9 and 0.1 are each other's and none is 0.09999999999999998.
    """
    what = "a number from 0 to 1, where 1 keeps the old average"
    return float(1 - Decimal(repr(check.number(momentum, "momentum", what, 0.0, 1.0, 0.99))))


def new_weights(momentum: Any, names: Iterable[str]) -> dict[str, Any]:
    """Our momentum of every batch norm, from theirs."""
    given = each(momentum, "momentum", names)
    return {name: m if m is UNKNOWN else of_batch_norm(name, old_weight, m) for name, m in given.items()}


def with_old_weights(
    found: Mapping[str, Mapping[str, Any]], source: str, epsilon: Any, momentum: Any, axis: Any, *, usual_epsilon: float
) -> dict[str, Norm]:
    """Batch norms of a framework whose momentum is the weight of the old average, one of biased variances."""
    axes = each(axis, "axis", found)
    return build(
        found,
        eps=required(epsilon, "epsilon", found, source, usual_epsilon),
        momentum=new_weights(momentum, found),
        variance=each("biased", "variance", found),
        layout={prefix: of_batch_norm(prefix, layout_of, axes[prefix]) for prefix in found},
    )


def their_momentum(norm: Norm, target: str) -> float:
    """The momentum of a framework that has no cumulative average."""
    momentum = norm.known_momentum(target)
    if momentum is None:
        raise ValueError(
            f"momentum must be a number for {target}, got None, the cumulative average, which it does not have; "
            "pass dataclasses.replace(norm, momentum=0.1)"
        )
    return old_weight(momentum)


def cast(vector: Vector, name: str, dtype: DTypeLike) -> Array:
    """A vector in another floating dtype, which has to hold it."""
    with np.errstate(over="ignore"):
        array = vector.astype(options.floating(dtype))
    if not np.isfinite(array.astype(np.float64)).all():
        raise ValueError(f"{name} must fit {array.dtype}, got {np.abs(vector).max()}; write it as float64")
    return array
