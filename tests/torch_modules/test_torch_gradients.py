"""Gradients of cpubn.torch's modules of every kind: of gradients, by transforms of torch.func, in forward mode."""

import warnings

import pytest
from conftest import need_library

need_library("torch", "frameworks")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    import torch
    from torch import nn
    from torch.autograd import forward_ad

from norm_pairs import C, pair, ran_here

import cpubn.torch
from cpubn.torch import modules


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(modules, "SMALL", 1)


def function(training, relu):
    """Of x, weight and bias, in float64."""
    norm = cpubn.torch.BatchNorm1d(3, activation="relu" if relu else None, dtype=torch.float64).train(training)
    nn.init.normal_(norm.running_mean)

    def call(x, weight, bias):
        buffers = {name: b.clone() for name, b in norm.named_buffers()}
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias, **buffers}, (x,))

    inputs = torch.randn(4, 3, 5), torch.randn(3), torch.randn(3)
    return call, tuple(t.double().requires_grad_() for t in inputs)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_and_gradients_of_these(training, relu):
    call, inputs = function(training, relu)
    assert ran_here(call(*inputs))
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


def test_a_gradient_penalty():
    a, b = pair(relu=True)
    x, got = torch.randn(4, C, 6, 7), []
    for module in (a, b):
        leaf = x.clone().requires_grad_()
        (dx,) = torch.autograd.grad(module(leaf).square().sum(), leaf, create_graph=True)
        dx.square().sum().backward()
        got.append((leaf.grad, *(p.grad for p in module.parameters())))
    torch.testing.assert_close(got[1], got[0], rtol=1e-4, atol=1e-4)


TRANSFORMS = {
    "grad": lambda m, x: torch.func.grad(lambda x: m(x).sin().sum())(x[0]),
    "grad of parameters": lambda m, x: torch.func.grad(lambda p: torch.func.functional_call(m, p, (x[0],)).sin().sum())(
        {name: p.detach() for name, p in m.named_parameters()}
    ),
    "vmap": lambda m, x: torch.func.vmap(m)(x),
    "vmap of grad": lambda m, x: torch.func.vmap(torch.func.grad(lambda x: m(x).sin().sum()))(x),
    "jvp": lambda m, x: torch.func.jvp(m, (x[0],), (x[1],)),
    "jacobian": lambda m, x: torch.autograd.functional.jacobian(m, x[0, :2, :, :2, :2], vectorize=True),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script")  # of torch's own rules of forward mode
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms(transform):
    a, b = pair(track_running_stats=False)
    x = torch.randn(3, 4, C, 6, 7)
    torch.testing.assert_close(transform(b, x), transform(a, x), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.torch.jit.script")
def test_forward_mode():
    a, b = pair()
    x, tangents = torch.randn(2, 4, C, 6, 7), []
    for module in (a, b):
        with forward_ad.dual_level():
            tangents.append(forward_ad.unpack_dual(module(forward_ad.make_dual(*x))).tangent)
    torch.testing.assert_close(*tangents)
