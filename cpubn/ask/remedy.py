"""What to do with what is refused for no array of numbers, or not of the right shape: the end of that message."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from numbers import Real
from os import PathLike
from typing import Any

import numpy as np

from cpubn.backends.gpu.arrays import DeviceArray

# How what NumPy takes for one object, or cannot read, becomes an array; the first that it has.
WAYS = {
    "toarray": "{}.toarray()",
    "todense": "{}.todense()",
    "to_numpy": "{}.to_numpy()",
}


def for_numbers(given: Any, array: Any, name: str, wanted: str) -> str:
    """Of what NumPy made an array of, but none of the types that are taken."""
    if isinstance(array, DeviceArray):
        return f"convert it, for example with {name}.astype({wanted!r}), a tensor with {name}.to(torch.{wanted})"
    conversion = f"convert it, for example with np.asarray({name}, dtype={wanted!r})"
    kind = array.dtype.kind
    if kind == "c":
        return f"take {name}.real, or np.abs({name})"
    if kind in "mM":
        since = name if kind == "m" else f"({name} - {name}.min())"
        return f"count in a unit, for example with {since} / np.timedelta64(1, 's')"
    if kind == "V" and array.dtype.names:
        return f"convert it, for example with np.lib.recfunctions.structured_to_unstructured({name})"
    if kind == "V" and array.dtype.type is np.void:
        return f"say what its bytes are, for example with {name}.view({wanted!r})"
    if array.ndim == 0 and kind in "OSUT":
        boxed = isinstance(given, np.ndarray)  # as by np.asarray of a sparse matrix
        return _for_one_object(array.item() if boxed else given, f"{name}.item()" if boxed else name, wanted)
    if kind not in "OSUT":
        return conversion
    stray = next((v for v in array.ravel().tolist() if not _is_number(v, text=kind != "O")), 0.0)
    if isinstance(stray, str | bytes):
        way = f"{name}.select_dtypes('number')" if hasattr(given, "select_dtypes") else "by their indices"
        return f"it holds text, {stray!r:.40}: encode such columns in numbers, or take the others, {way}"
    if np.ndim(stray) or hasattr(stray, "shape"):
        return _one_by_one(name)
    if not _is_number(stray, text=False):
        return f"it holds {type(stray).__name__}, {stray!r:.40}: put a number in its place, or leave those rows out"
    return conversion


def for_an_array(given: Any, name: str, error: Exception) -> str:
    """Of what NumPy can make no array of: what was got, and what to do."""
    kind, inner, where = type(given).__name__, given, name
    while isinstance(inner, list | tuple) and inner and len(where) < len(name) + 99:  # lists may hold themselves
        shapes = [*dict.fromkeys(map(_shape, inner))]
        if len(shapes) > 1:
            return f"{kind} of parts of different shapes, {shapes[0]} and {shapes[1]}; {_one_by_one(name)}"
        inner, where = inner[0], f"{where}[0]"
    if any(c.__name__ == "Tracer" and c.__module__.partition(".")[0] == "jax" for c in type(inner).__mro__):
        return "a JAX tracer, which has no numbers yet; call it outside of jit, grad and vmap, or by jax.pure_callback"
    return f"{kind}: {' '.join(str(error).split())}; pass {_way(inner, where)}"


def for_a_target(given: Any, name: str, otherwise: str) -> str:
    """Of what cannot be written to."""
    return f"pass {name}.detach()" if getattr(given, "requires_grad", False) is True else otherwise


def for_a_vector(given: Any, shape: tuple[int, ...], count: int | None, name: str, otherwise: str) -> str:
    """Of a value for each channel: where one axis has them all, as in (1, C, 1, 1), the others are only to go."""
    longest = max(shape, default=1)
    if len(shape) == 1 or math.prod(shape) != longest or count not in (None, longest):
        return otherwise
    return f"pass {name}.reshape(-1)" if hasattr(given, "reshape") else f"pass np.reshape({name}, -1)"


def for_other_channels(counts: tuple[int, int]) -> str:
    """Of moments that do not belong together."""
    if min(counts) in (1, 3, 4) and max(counts) > 4:
        return (
            "if some are of gray pictures with layout 'NHWC', which have no axis of channels, their width was taken "
            "for it: give them one, x[..., np.newaxis], and merge them apart from those in colour"
        )
    return "merge moments of the same layer"


def _for_one_object(given: Any, name: str, wanted: str) -> str:
    """Of what NumPy takes as a single thing."""
    if given is None:
        return "pass an array: what should have made it may have failed, as cv2.imread does without an error"
    if isinstance(given, str | PathLike) or hasattr(given, "read"):
        return f"pass an array: of a file what is in it, for example np.load({name})"
    if isinstance(given, bytes):
        return f"pass an array, for example np.frombuffer({name}, dtype='uint8').reshape(shape)"
    if isinstance(given, Mapping):
        return f"pass one of its values, {name}[key]"
    if isinstance(given, Iterator | set | frozenset):
        return f"pass np.asarray(list({name}), dtype={wanted!r})"
    return f"pass {_way(given, name)}"


def _way(given: Any, name: str) -> str:
    """To an array, by what an object has."""
    if hasattr(given, "detach"):  # torch's tensors, which have much besides
        dense = ".to_dense()" * (str(getattr(given, "layout", "")).startswith("torch.sparse"))
        return f"{name}{dense}.detach().cpu(){'.float()' * (str(given.dtype) == 'torch.bfloat16')}.numpy()"
    return next((way.format(name) for attribute, way in WAYS.items() if hasattr(given, attribute)), "an array of it")


def _shape(part: Any) -> str:
    if isinstance(part, list | tuple):
        return f"({len(part)},)"
    return str(tuple(getattr(part, "shape", ())))


def _is_number(value: Any, *, text: bool) -> bool:
    """Whether NumPy makes a number of it that is meant: None would be NaN. In an array of text, text may be one."""
    if not text:
        from decimal import Decimal  # here, because its import would take 1 ms of cpubn's

        return isinstance(value, Real | Decimal)
    try:
        float(value)
    except ValueError:
        return False
    return True


def _one_by_one(name: str) -> str:
    return (
        f"pass each by itself, a single sample as {name}[i][np.newaxis]; "
        f"their moments add up: sum(cpubn.moments(part) for part in {name})"
    )
