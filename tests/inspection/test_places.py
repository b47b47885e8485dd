"""Where norms stand in files that hold arrays alone: by names and shapes."""

import pytest

from cpubn.inspection.places import by_names

C = (8,)


def norm(name, keys=("weight", "bias", "running_mean", "running_var")):
    return {f"{name}.{key}": C for key in keys}


@pytest.mark.parametrize(("name", "shapes", "layer"), [
    ("net.1", {"net.0.weight": (8, 3, 3, 3), "net.0.bias": C, **norm("net.1")}, "net.0"),
    ("net.1", {"net.0.weight": (8, 16), **norm("net.1")}, "net.0"),
    ("net.1", {"net.0.weight": (9, 3, 3, 3), **norm("net.1")}, None),
    ("net.1", {**norm("net.1"), "net.2.weight": (8, 3, 3, 3)}, None),
    # By the number in its name, although others stand nearer, or the file is in order of letters.
    ("bn1", {**norm("bn1"), **norm("bn2"), "conv1.weight": (8, 3, 3, 3), "conv2.weight": (8, 8, 3, 3)}, "conv1"),
    ("a.norm2", {"a.conv1.weight": (8, 3, 1), "a.conv2.weight": (8, 8, 1), **norm("a.norm2")}, "a.conv2"),
    ("a.2", {"a.1.weight": (8, 8), **norm("a.2"), "a.19.weight": (9, 8), **norm("a.20")}, "a.1"),
    ("", {"weight": C, "bias": C, "running_mean": C, "running_var": C}, None),
    ("conv1_BN", {"conv1.weight": (8, 1, 512, 1), **norm("conv1_BN")}, "conv1"),
    # As in DenseNet, whose norms stand before the convolution of the same number.
    ("norm2", {"conv1.weight": (8, 4, 1, 1), **norm("norm2"), "conv2.weight": (4, 8, 3, 3)}, "conv1"),
    # Keras's kernels have their outputs last, depthwise ones two axes of them.
    ("conv_dw_1_bn", {"conv_dw_1/depthwise_kernel": (3, 3, 8, 1), "conv_dw_1_bn/gamma": C}, "conv_dw_1"),
    ("s/batch_normalization_3", {"s/conv2d_3/kernel": (3, 3, 4, 8), "s/batch_normalization_3/gamma": C}, "s/conv2d_3"),
    ("s/batch_normalization_3", {"s/conv2d_3/kernel": (3, 3, 8, 4), "s/batch_normalization_3/gamma": C}, None),
])  # fmt: skip
def test_likely_layers(name, shapes, layer):
    place = by_names({name: 8}, shapes)[name]
    assert place.foldable is None
    if layer is None:
        assert (place.stands, place.answer) == (None, "unknown")
        assert place.how.startswith("no layer of its name or just before it has 8 outputs")
    else:
        assert place.stands.startswith(f"likely after {layer} (")
        assert (place.answer, place.how) == ("likely", f"into {layer}, if nothing stands between")


def test_many_layers():
    """What looked at all pairs of them would take minutes."""
    shapes = {f"{i}.{key}": shape for i in range(20_000) for key, shape in (("weight", (8, 8)), ("running_mean", C))}
    assert len(by_names({str(i): 8 for i in range(20_000)}, shapes)) == 20_000
