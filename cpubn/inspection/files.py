"""A file looked into: its norms, where each of them stands, and those that could not be read."""

from __future__ import annotations

from cpubn.ask.files import reading
from cpubn.convert import Norm, read
from cpubn.convert._content import HDF5, KERAS, KINDS, OTHER, content_of
from cpubn.inspection.contents import shapes_of
from cpubn.inspection.keras_places import in_keras
from cpubn.inspection.onnx_places import look_into_onnx
from cpubn.inspection.places import Contents, Say, by_names


def look_into(path: str, eps: float | None, say: Say) -> Contents:
    """Raises as convert.read does."""
    say("reading the file")
    if content_of(path) == OTHER:
        return look_into_onnx(path, eps, say)
    norms = _norms(path, eps)
    say("looking where its norms stand")
    channels = {name: norm.num_features for name, norm in norms.items()}
    content = content_of(path)
    with reading(path, KINDS[content][0]):  # what is not of norms was not read so far
        if content in (KERAS, HDF5):
            return Contents(norms, in_keras(path, channels))
        return Contents(norms, by_names(channels, shapes_of(path)))


def _norms(path: str, eps: float | None) -> dict[str, Norm]:
    if eps is not None:
        return read(path, eps=eps)
    try:
        return read(path)
    except ValueError as error:
        try:
            read(path, eps=1e-5)
        except ValueError:
            raise error from None
        raise ValueError(
            f"eps must be given, because {path} does not hold it; add --eps 1e-5, torch's default, or --eps 1e-3, "
            "that of Keras, if the model was built with it"
        ) from None
