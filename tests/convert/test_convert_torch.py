"""Conversion from and to torch, which runs the weights that it gave and those that it was given."""

import warnings

import numpy as np
import pytest
from conftest import need_library
from norms import (
    BATCHES,
    BIAS,
    CLOSE,
    EPS,
    WEIGHT,
    C,
    X,
    check_frozen_and_layer,
    trained_layer,
)

from cpubn import convert

for name in ("torch", "safetensors"):
    need_library(name, "frameworks")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    import safetensors.torch
    import torch


def torch_model(affine=True, bias=True, momentum=0.2, dtype=torch.float32):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(C, C, 1), torch.nn.BatchNorm2d(C, EPS, momentum, affine, bias=bias))
    for name, value in zip(("weight", "bias"), (WEIGHT, BIAS), strict=True):
        parameter = getattr(model[1], name)
        if parameter is not None:
            torch.nn.init.constant_(parameter, 1).data.mul_(torch.from_numpy(value))
    for x in BATCHES[:3]:
        model[1](torch.from_numpy(x))
    return model.to(dtype)


def run_torch(bn, x, training=False):
    with torch.no_grad():
        return bn.train(training)(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("momentum", [0.2, None])
@pytest.mark.parametrize(("affine", "bias"), [(True, True), (True, False), (False, False)])
def test_from_torch(affine, bias, momentum):
    model = torch_model(affine, bias, momentum)
    norms = convert.from_torch(model.state_dict(), eps=EPS, momentum=momentum)
    assert list(norms) == ["1"]
    bn = check_frozen_and_layer(norms["1"], X, run_torch(model[1], X))
    assert (bn.weight is not None) == affine
    np.testing.assert_allclose(bn(X), run_torch(model[1], X, training=True), **CLOSE)
    np.testing.assert_allclose(bn.running_mean, model[1].running_mean.numpy(), **CLOSE)
    np.testing.assert_allclose(bn.running_var, model[1].running_var.numpy(), **CLOSE)
    assert bn.num_batches_tracked == model[1].num_batches_tracked == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_from_torch_of_other_dtypes(dtype):
    model = torch_model(dtype=dtype)
    norm = convert.from_torch(model.state_dict(), eps=EPS)["1"]
    for name, got in norm.vectors().items():
        np.testing.assert_array_equal(got, getattr(model[1], name).detach().double().numpy())
    np.testing.assert_allclose(norm.freeze()(X), run_torch(model[1].float(), X), **CLOSE)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.3, None])
def test_to_torch(affine, momentum):
    bn = trained_layer(affine=affine)
    bn.momentum = momentum
    state = {name: torch.from_numpy(array) for name, array in convert.to_torch({"": bn}).items()}
    other = torch.nn.BatchNorm2d(C, bn.eps, bn.momentum, affine)
    other.load_state_dict(state, strict=True)
    np.testing.assert_allclose(run_torch(other, X), bn(X), **CLOSE)
    np.testing.assert_allclose(run_torch(other, X, training=True), bn.train()(X), **CLOSE)
    np.testing.assert_allclose(other.running_mean.numpy(), bn.running_mean, **CLOSE)
    np.testing.assert_allclose(other.running_var.numpy(), bn.running_var, **CLOSE)


def test_a_whole_torch_model_goes_there_and_back():
    model = torch.nn.ModuleDict(
        {"a": torch_model(), "b": torch.nn.Sequential(torch_model(affine=False), torch_model())}
    )
    state = model.state_dict()
    norms = convert.from_torch(state, eps={"a.1": EPS, "b.0.1": 1e-5, "b.1.1": 1e-4}, momentum=0.2)
    assert [norm.eps for norm in norms.values()] == [EPS, 1e-5, 1e-4]
    got = convert.to_torch(norms)
    expected = {name: value.numpy() for name, value in state.items() if name.rpartition(".")[0] in norms}
    assert list(got) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name])
        assert got[name].dtype == expected[name].dtype


def test_a_torch_layer_on_the_meta_device_has_no_numbers():
    with pytest.raises(TypeError, match=r"batch norm '': .* must be an array, got Tensor.*meta"):
        convert.from_torch(torch.nn.BatchNorm2d(C, device="meta").state_dict(keep_vars=True), eps=EPS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_from_safetensors_of_torch(tmp_path, dtype):
    model = torch_model(dtype=dtype)
    state = model.state_dict() | {"scales": torch.ones(2, dtype=torch.float8_e4m3fn)}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    norms = convert.from_safetensors(tmp_path / "model.safetensors", eps=EPS, momentum=0.2)
    assert norms["1"].num_batches_tracked == 3
    np.testing.assert_allclose(norms["1"].freeze()(X), run_torch(model[1].float(), X), **CLOSE)


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_files_of_cpubn_hold_what_torch_loads(tmp_path, kind):
    bn, path = trained_layer(), tmp_path / f"norms.{kind}"
    getattr(convert, f"to_{kind}")({"bn": bn}, path)
    arrays = safetensors.torch.load_file(path) if kind == "safetensors" else np.load(path, allow_pickle=False)
    state = {name: torch.as_tensor(arrays[f"bn.{name}"]) for name in ("weight", "bias", "running_mean", "running_var")}
    other = torch.nn.BatchNorm2d(C, EPS)
    other.load_state_dict(state)
    np.testing.assert_allclose(run_torch(other, X), bn(X), **CLOSE)
