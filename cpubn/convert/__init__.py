"""Batch norms from and to torch, Keras, Flax, ONNX, .safetensors and .npz; none is imported but torch for .pth::

    norms = convert.read("model.onnx")  # {"layer1.0.bn1": Norm(...), ...}; also .pth, .keras, .h5, .safetensors, .npz
    norms = convert.from_torch(model)  # a module, or its state_dict() with eps=1e-5, momentum=0.1
    frozen = norms["layer1.0.bn1"].freeze()  # FrozenBatchNorm, for inference
    bn = norms["layer1.0.bn1"].layer(cpubn.BatchNorm2d)  # to train on
    convert.to_safetensors(norms, "norms.safetensors")

    model, report = convert.fold_onnx("model.onnx")  # a whole ONNX model without its batch norms

`read` and every ``from_`` function return the batch norms of a whole model by name, as Norms; every ``to_`` function
takes such a mapping, of Norms, layers or FrozenBatchNorms. Nothing is guessed: what a source does not hold is asked for
by name, in the meaning that the framework gives it, and can be one value for all or a mapping by name.

=============  ========================  ======================  ================================
framework      momentum                  running variance        where eps and momentum are
                                         averages
=============  ========================  ======================  ================================
cpubn, torch   weight of the new batch   unbiased variances      in a module, not in a state_dict
Keras, Flax    weight of the old         biased variances        in a whole model's file, not
               average                                           among the weights
ONNX           weight of the old         biased ones in          in each node
               average                   training nodes, else
                                         what the exporter had
=============  ========================  ======================  ================================

Inference divides by the running variance as it stands in all of them, so that `.freeze()` agrees with the source. To
train on in the other convention takes the number of values per channel, `values_per_channel`: see Norm.with_variance.
Keras 2 and tf.keras average unbiased variances of images, which None keeps.

No file is trusted: what is wrong in one is a ValueError, nothing in it is executed, no link leads out of it, and at
most 256 MiB beyond its own size are unpacked.
"""

from cpubn.convert._flax import from_flax, to_flax
from cpubn.convert._fold_onnx import FoldReport, fold_onnx
from cpubn.convert._keras import from_keras, to_keras
from cpubn.convert._norm import UNKNOWN, Norm
from cpubn.convert._npz import from_npz, to_npz
from cpubn.convert._onnx import from_onnx, new_onnx, to_onnx
from cpubn.convert._read import read
from cpubn.convert._safetensors import from_safetensors, to_safetensors
from cpubn.convert._torch import from_torch, to_torch

__all__ = [
    "UNKNOWN",
    "FoldReport",
    "Norm",
    "fold_onnx",
    "from_flax",
    "from_keras",
    "from_npz",
    "from_onnx",
    "from_safetensors",
    "from_torch",
    "new_onnx",
    "read",
    "to_flax",
    "to_keras",
    "to_npz",
    "to_onnx",
    "to_safetensors",
    "to_torch",
]
