"""cpubn.torch under torch.compile: one graph, operators that torch's own checks pass, the same numbers and states."""

import copy
import warnings

import pytest
from conftest import need_library

need_library("torch", "frameworks")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    import torch
    from torch import nn

import cpubn.torch
from cpubn.torch import modules, operators


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch):
    torch.manual_seed(0)
    torch._dynamo.reset()
    monkeypatch.setattr(modules, "SMALL", 1)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        cpubn.torch.BatchNorm2d(8, activation="relu"),
        nn.Conv2d(8, 8, 3, bias=False),
        cpubn.torch.BatchNorm2d(8, momentum=None),
        nn.ReLU(),
        cpubn.torch.BatchNorm2d(8, affine=False),
    )


@pytest.mark.filterwarnings("ignore")  # of torch's compiler
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_the_same_in_one_graph(backend):
    eager = network()
    model = copy.deepcopy(eager)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for training in (True, True, False):
        eager.train(training)
        model.train(training)
        x = torch.randn(4, 3, 12, 12)
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [m(leaf) for m, leaf in zip((eager, compiled), inputs, strict=True)]
        for y in outputs:
            y.sin().sum().backward()
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-4, atol=1e-4)
        for got, expected in zip(model.parameters(), eager.parameters(), strict=True):
            torch.testing.assert_close(got.grad, expected.grad, rtol=1e-3, atol=2e-3)
        torch.testing.assert_close(dict(model.state_dict()), dict(eager.state_dict()))


OPERANDS = {
    "training": (None, True, False, torch.contiguous_format),
    "training, relu, channels last": (None, True, True, torch.channels_last),
    "training, not affine": (None, False, True, torch.contiguous_format),
    "inference": (torch.rand(2, 3), True, True, torch.contiguous_format),
}


@pytest.mark.filterwarnings("ignore")  # of torch's compiler
@pytest.mark.parametrize("case", OPERANDS)
def test_operators_keep_to_the_rules(case):
    running, affine, relu, order = OPERANDS[case]
    x = torch.randn(4, 3, 6, 7).contiguous(memory_format=order).requires_grad_()
    weight, bias = (torch.rand(3, requires_grad=True) if affine else None for _ in range(2))
    torch.library.opcheck(operators.normalize, (x, running, weight, bias, 1e-5, relu))
    x, weight = x.detach(), weight.detach() if affine else None
    _, stats = operators.normalize(x, running, weight, None, 1e-5, relu)
    stats = stats if running is None else torch.rand(3, 3, dtype=torch.float64)
    arguments = (torch.randn_like(x), x, stats, weight, weight, 1e-5, running is None, relu)
    torch.library.opcheck(operators.gradients, arguments)


def test_a_batch_of_one_value_is_an_error():
    with pytest.raises(ValueError, match="with more than 1 value per channel"):
        operators.normalize(torch.ones(1, 3, 1, 1), None, None, None, 1e-5, False)
