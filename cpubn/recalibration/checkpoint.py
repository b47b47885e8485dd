"""What a recalibration has found so far, and as a file from which another one goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cpubn.ask import files, moments as words
from cpubn.maths.tree import Tree
from cpubn.statistics import Moments

ABOUT, VERSION = "about", 1
CHECKPOINT = "a checkpoint of this recalibration", "; delete it to begin anew, or name another"


class Found(NamedTuple):
    """Replaced as a whole after every batch, so that an interrupt leaves all of its layers or none."""

    done: int = 0  # batches of this pass
    last: str = ""  # the digest of the last of them
    trees: Mapping[str, Tree[Moments]] = {}
    finished: Mapping[str, Moments] = {}  # layers of earlier passes

    def plus(self, last: str, batch: list[tuple[str, Moments]]) -> Found:
        trees = dict(self.trees)
        for name, moments in batch:
            trees[name] = trees.get(name, Tree()).plus(moments)
        return self._replace(done=self.done + 1, last=last, trees=trees)


def fingerprint(layers: Mapping[str, Any], layer_by_layer: bool) -> str:
    """By which layers are known again, as they were before."""
    seen = hashlib.blake2b(f"{VERSION} {layer_by_layer}".encode(), digest_size=16)
    for name, layer in layers.items():
        seen.update(json.dumps([name, type(layer).__name__, layer.num_features, layer.layout, layer.eps]).encode())
        for key, value in layer.state_dict().items():
            seen.update(f"{key} {value.dtype}".encode() + value.tobytes())
    return seen.hexdigest()


def save(path: str | os.PathLike[str], found: Found, layers: str, names: list[str]) -> None:
    """`layers` is their fingerprint."""
    arrays: dict[str, Any] = {}
    for name, one in found.finished.items():
        arrays |= _named(f"finished.{names.index(name)}", one)
    for name, tree in found.trees.items():
        for k, part in enumerate(tree.digits):
            if part is not None:
                arrays |= _named(f"tree.{names.index(name)}.{k}", part)
    about = {"version": VERSION, "layers": layers, "done": found.done, "last": found.last}
    about["finished"] = [names.index(name) for name in found.finished]
    files.write_archive(path, {ABOUT: np.array(json.dumps(about)), **arrays})


def load(path: str | os.PathLike[str], fingerprint: str, layers: Mapping[str, Any]) -> Found:
    """What `save` wrote of these layers; the file is not trusted."""
    name = files.file_path(path)
    with files.archive_of(name) as (keys, take):
        with files.holding(name, *CHECKPOINT):
            if ABOUT not in keys:
                raise ValueError("it holds other arrays")
        arrays = {key: take(key) for key in keys}
    with files.holding(name, *CHECKPOINT):
        about = json.loads(str(arrays.pop(ABOUT)))
        if about["layers"] != fingerprint:
            raise ValueError("it is of other layers, of these in another state, or for another layer_by_layer")
        done, last, names = about["done"], about["last"], [*layers]
        if type(done) is not int or not 0 <= done < 2**63 or not isinstance(last, str):
            raise ValueError(f"it counts {done!r} batches")
        made: dict[str, Moments] = {}
        for key in {key.rpartition(".")[0] for key in arrays}:
            given = {field: words.whole(arrays[f"{key}.{field}"]) for field in words.FIELDS}
            made[key] = Moments.from_dict(given)
            if made[key].mean.size != layers[names[int(key.split(".")[1])]].num_features:
                raise ValueError(f"{key} has {made[key].mean.size} channels")
        finished = {names[k]: made[f"finished.{k}"] for k in about["finished"]}
        trees: dict[str, Tree[Moments]] = {}
        for k, layer in enumerate(names):
            digits = {int(key.split(".")[2]): part for key, part in made.items() if key.startswith(f"tree.{k}.")}
            if digits:
                if not 0 <= min(digits) <= max(digits) < 64:
                    raise ValueError(f"it holds sums of 2**{max(digits)} batches")
                trees[layer] = Tree(tuple(digits.get(d) for d in range(max(digits) + 1)))
    return Found(done, last, trees, finished)


def _named(prefix: str, moments: Moments) -> dict[str, Any]:
    return {f"{prefix}.{field}": value for field, value in moments.__getstate__().items()}
