"""What files hold of batch norms: vectors under torch's names, and the rest as JSON, so that they read back unasked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cpubn.convert._names import build, errors_of, listed, own, with_given
from cpubn.convert._norm import UNKNOWN, Norm
from cpubn.convert._sources import content_errors
from cpubn.convert._torch import FIELDS, NAMES, of_file
from cpubn.typing import Array

KEY = "cpubn"  # under which a file holds the JSON
SAID = ("eps", "momentum", "num_batches_tracked", "variance", "layout")


def norms_of(
    path: str, keys: Iterable[str], take: Callable[[str], Any], metadata: str | None, **given: Any
) -> dict[str, Norm]:
    """The batch norms of a file that holds arrays of these keys, of which `take` reads one.

    metadata : cpubn's JSON, or None in another's file, which is read as a torch state_dict.
    given : eps and momentum; where they are known, they replace what the file says.
    """
    keys = list(keys)
    wanted = [key for key in keys if NAMES.split(key)[1] in FIELDS]
    if metadata is None:
        prefixes = {NAMES.split(key)[0] for key in wanted if NAMES.split(key)[1] in ("running_mean", "running_var")}
        if not prefixes:
            with errors_of(path):
                raise NAMES.nothing(keys)
        # What belongs to batch norms alone: the rest may be gigabytes, and of dtypes that NumPy lacks.
        return of_file(path, {key: take(key) for key in wanted if NAMES.split(key)[0] in prefixes}, **given)
    with content_errors(path):
        norms = _own(wanted, take, metadata)
    with errors_of(path):
        return with_given(norms, **given)


def arrays_of(norms: Mapping[str, Any]) -> tuple[dict[str, Array], str]:
    """What a file of these batch norms holds: float64 vectors by name, and the JSON."""
    norms = own(norms)
    arrays = {NAMES.join(p, name): vector for p, norm in norms.items() for name, vector in norm.vectors().items()}
    said = {
        prefix: {"vectors": list(norm.vectors())}
        | {field: value for field in SAID if (value := getattr(norm, field)) is not UNKNOWN}
        for prefix, norm in norms.items()
    }
    return arrays, json.dumps(said)


def _own(wanted: list[str], take: Callable[[str], Any], metadata: str) -> dict[str, Norm]:
    said = _parsed(metadata)
    expected = [NAMES.join(prefix, name) for prefix, fields in said.items() for name in fields["vectors"]]
    if sorted(expected) != sorted(wanted):
        raise ValueError(
            f"it must hold the arrays that its metadata lists, {listed(expected)}, got {listed(wanted)}; "
            "write or download it again"
        )
    how = {field: {prefix: fields.get(field, UNKNOWN) for prefix, fields in said.items()} for field in SAID}
    return build({p: {name: take(NAMES.join(p, name)) for name in said[p]["vectors"]} for p in said}, **how)


def _parsed(metadata: str) -> dict[str, dict[str, Any]]:
    try:
        said = json.loads(metadata)
        sound = isinstance(said, dict) and all(
            {"vectors", "eps", "layout"} <= set(fields) <= {"vectors", *SAID} and set(fields["vectors"]) <= set(FIELDS)
            for fields in said.values()
        )
    except Exception:  # json's own error, its recursion limit, or a number where a mapping must be
        sound = False
    if not sound:
        raise ValueError(
            f"its metadata {KEY!r} must be the JSON that cpubn writes, got {metadata[:60]!r}; "
            "write or download it again"
        )
    return said  # type: ignore[no-any-return]
