"""ONNX: from and to the BatchNormalization nodes of a model, whatever its opset."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cpubn.convert._names import Each, biased, cast, each, of_batch_norm, own, their_momentum
from cpubn.convert._norm import UNKNOWN, Count, Norm, Unknown, Variance
from cpubn.convert._onnx_model import Names, Source, drop_unread, open_model, with_data
from cpubn.convert._onnx_nodes import INPUTS, BatchNormalization, batch_normalizations
from cpubn.convert._sources import library

if TYPE_CHECKING:
    from onnx import ModelProto


def from_onnx(model: Source, *, variance: Each[Variance | Unknown] = UNKNOWN, skip: bool = False) -> dict[str, Norm]:
    """Every BatchNormalization node by its name, or its output's where it has none; also inside If, Loop and functions.

    Parameters
    ----------
    model : a file, or an onnx.ModelProto
        Weights are of any floating dtype: initializers, sparse ones and external
        data in the model's own folder too, and what is computed from such constants, by Cast, Reshape, Transpose,
        DequantizeLinear, ConstantOfShape, arithmetic and so on, which onnx's reference evaluator computes: up to 2**26
        numbers each. An initializer that is an input besides counts as a constant.
    variance : which variance the running one averages, one for all or a mapping by name
        "unbiased" in models of torch, "biased" in models of Keras and Flax. ONNX says it of training nodes alone
        (biased), so that others have it UNKNOWN: `.freeze()` does not need it, `.layer()` and the other formats ask for
        it.
    skip : leave out nodes that cannot be read, with one warning that names them and says why.

    Returns
    -------
    A dict of Norms by the nodes' names.

    Raises
    ------
    ValueError : a damaged file, spatial=0, weights that depend on the model's inputs, two nodes of one name.
    TypeError, OSError : no model and no path; a file that cannot be opened.

    Notes
    -----
    epsilon and momentum are the node's, or the operator's own 1e-5 and 0.9 where it has no such attribute; as float32
    they are read as the shortest decimal that they stand for. ONNX's momentum is the weight of the old average, ours
    1 - momentum. Data are NCHW. A node with training_mode=1 (to opset 13: with more than one output) normalizes by its
    batch; what is read are its running statistics. What is older than opset 7 is read as onnx's version converter makes
    opset 7 of it.

    Source: github.com/onnx/onnx/blob/main/docs/Changelog.md, BatchNormalization-7, -9, -14, -15.

    Examples
    --------
    >>> model = convert.new_onnx(cpubn.BatchNorm2d(3).freeze())
    >>> convert.from_onnx(model)["BatchNormalization"].eps
    1e-05
    """
    if not isinstance(skip, bool):
        raise TypeError(f"skip must be True or False, got {skip!r}; True leaves out what cannot be read")
    left: dict[str, str] = {}
    nodes = batch_normalizations(*open_model(model), left if skip else None)
    variances = each(variance, "variance", nodes)
    norms = {}
    for name, node in nodes.items():
        try:
            norms[name] = node.norm(variances[name])
        except ValueError as error:
            if not skip:
                raise
            left[name] = str(error)
    if left:
        reasons = "\n".join(f"  {name!r}: {reason}" for name, reason in left.items())
        warnings.warn(f"{len(left)} of {len(left) + len(norms)} batch norms are left out:\n{reasons}", stacklevel=2)
    return norms


def to_onnx(
    norms: Mapping[str, Any],
    model: Source,
    *,
    values_per_channel: Each[Count] = UNKNOWN,
) -> ModelProto:
    """A copy of a model whose nodes of these names have these numbers; `onnx.save(to_onnx(...), path)` writes it.

    Parameters
    ----------
    norms : Norms, layers or FrozenBatchNorms by the names that from_onnx gives; nodes without are left alone.
    model : a file, or an onnx.ModelProto; external data are taken in. Dtypes stay those of the model.
    values_per_channel : needed for training nodes, whose running variance is biased, see Norm.with_variance.

    Returns
    -------
    An onnx.ModelProto.

    Raises
    ------
    ValueError, TypeError, OSError : as from_onnx; a name or a number of channels that the model does not have.

    Notes
    -----
    A node keeps its momentum where that of its norm is UNKNOWN. Weights that nodes share are no longer shared.

    Examples
    --------
    >>> model = convert.new_onnx(cpubn.BatchNorm2d(3).freeze())
    >>> changed = convert.to_onnx({"BatchNormalization": cpubn.BatchNorm2d(3, eps=1e-3)}, model)
    >>> round(convert.from_onnx(changed)["BatchNormalization"].eps, 6)
    0.001
    """
    onnx = library("onnx")
    norms = own(norms)
    proto, folder = open_model(model)
    nodes = batch_normalizations(proto, folder)
    strangers = [name for name in norms if name not in nodes]
    if strangers:
        raise ValueError(
            f"norms must be named as the model's nodes are, {', '.join(map(repr, nodes))}, "
            f"got {', '.join(map(repr, strangers))}; take the names of from_onnx"
        )
    training = {name: norm for name, norm in norms.items() if nodes[name].training}
    counts = each(values_per_channel, "values_per_channel", norms)
    norms |= biased(training, {name: counts[name] for name in training})
    new = {name: _values(norm, nodes[name]) for name, norm in norms.items()}
    with_data(proto, folder)
    names, replaced = Names(proto), set()
    for name, (tensors, attributes) in new.items():
        node = nodes[name].node
        for i, tensor in tensors.items():
            replaced.add(node.input[i])
            node.input[i] = names.add(tensor)
        kept = [attribute for attribute in node.attribute if attribute.name not in attributes]
        del node.attribute[:]
        node.attribute.extend([*kept, *(onnx.helper.make_attribute(*item) for item in attributes.items())])
    drop_unread(replaced, proto)
    return proto


def new_onnx(norm: Any, ndim: int = 4) -> ModelProto:
    """A model of one BatchNormalization node, from X of float32 and shape (N, C, ...) to Y; opset 15.

    Parameters
    ----------
    norm : a Norm, layer or FrozenBatchNorm with layout "NCHW", ONNX's only one.
    ndim : of X, 2 to 5.

    Returns
    -------
    An onnx.ModelProto.

    Raises
    ------
    ValueError, TypeError : another layout or ndim; what is no batch norm.

    Examples
    --------
    >>> convert.new_onnx(cpubn.BatchNorm2d(3).freeze()).graph.node[0].op_type
    'BatchNormalization'
    """
    onnx = library("onnx")
    norm = own({"": norm})[""]
    if norm.layout != "NCHW":
        raise ValueError(
            f"layout must be 'NCHW', as ONNX normalizes axis 1, got {norm.layout!r}; "
            "if the data will be of that layout, pass dataclasses.replace(norm, layout='NCHW')"
        )
    if isinstance(ndim, bool) or ndim not in (2, 3, 4, 5):
        raise ValueError(f"ndim must be 2 to 5, got {ndim!r}; pass the rank of the data, 4 for (N, C, H, W)")
    numbers = {"weight": np.ones(norm.num_features), "bias": np.zeros(norm.num_features)} | norm.vectors()
    tensors = [
        onnx.numpy_helper.from_array(cast(numbers[field], field, np.float32), field) for field in INPUTS.values()
    ]
    node = onnx.helper.make_node(
        "BatchNormalization", ["X", *INPUTS.values()], ["Y"], name="BatchNormalization", **_attributes(norm)
    )
    shape = ["N", norm.num_features, *"DHW"[5 - ndim :]]
    data = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "XY"]
    graph = onnx.helper.make_graph([node], "batch_norm", data[:1], data[1:], tensors)
    opset = onnx.helper.make_opsetid("", 15)
    return onnx.helper.make_model(graph, producer_name="cpubn", ir_version=8, opset_imports=[opset])


def _values(norm: Norm, node: BatchNormalization) -> tuple[dict[int, Any], dict[str, float]]:
    """New inputs of a node, in the dtypes of the old, and new attributes."""
    onnx = library("onnx")
    tensors = {}
    for i, field in INPUTS.items():
        old = node.vector(i)
        vector = norm.vectors().get(field, np.full(norm.num_features, 1.0 if field == "weight" else 0.0))
        if old.shape != vector.shape:
            raise ValueError(
                f"{field} of {node.name!r} must have shape {old.shape}, as in the model, got {vector.shape}; "
                "take the norm of the same layer"
            )
        name = f"{node.name}.{field}"
        tensors[i] = onnx.numpy_helper.from_array(cast(vector, name, old.dtype), name)
    return tensors, of_batch_norm(node.name, _attributes, norm)


def _attributes(norm: Norm) -> dict[str, float]:
    with np.errstate(over="ignore"):
        eps = float(np.float32(norm.eps))
    if np.isinf(eps) or (eps == 0.0) != (norm.eps == 0.0):
        raise ValueError(f"eps must fit float32, in which ONNX keeps it, got {norm.eps}; take another, usually 1e-5")
    return {"epsilon": eps} | ({} if norm.momentum is UNKNOWN else {"momentum": their_momentum(norm, "ONNX")})
