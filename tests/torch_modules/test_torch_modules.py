"""cpubn.torch's modules against torch's: results and gradients, states, and models that are converted."""

import copy
import io
import pickle
import warnings

import pytest
from conftest import need_library

need_library("torch", "frameworks")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    import torch
    from torch import nn

from norm_pairs import CLASSES, OPTIONS, C, pair, ran_here, run

import cpubn.torch
from cpubn.torch import modules


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(modules, "SMALL", 1)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", CLASSES)
def test_same_as_torch(kind, options, relu):
    a, b = pair(kind, relu, **options)
    for training in (True, True, False):
        a.train(training)
        b.train(training)
        x, dy = torch.randn(2, *CLASSES[kind][2])
        x = 3 * x + 2
        for module in (a, b):
            module.zero_grad()
        expected, got = run(a, x, dy), run(b, x, dy)
        assert ran_here(got[0])
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        with torch.no_grad():
            torch.testing.assert_close(b.eval()(x), a.eval()(x), rtol=1e-5, atol=1e-5)
        theirs = {name.removeprefix("norm."): value for name, value in a.state_dict().items()}
        torch.testing.assert_close(dict(b.state_dict()), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("whole_model", [True, False])
def test_half_types(dtype, whole_model, training):
    """Of the data alone, as under autocast, or of the model: the same as float32 from the same numbers, rounded."""
    a, b = pair()
    if whole_model:
        b.to(dtype)
        a.load_state_dict(b.state_dict())
    a.train(training)
    b.train(training)
    x, dy = torch.randn(2, 4, C, 6, 7).to(dtype)
    expected, got = run(a, x.float(), dy), run(b, x, dy)
    assert ran_here(got[0])
    assert [t.dtype for t in got] == [dtype, dtype, *(p.dtype for p in b.parameters())]
    torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-2, check_dtype=False)
    torch.testing.assert_close(b.running_var.float(), a.running_var, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_channels_last_stays(kind):
    order = {"2d": torch.channels_last, "3d": torch.channels_last_3d}[kind]
    a, b = pair(kind, relu=True)
    x, dy = torch.randn(2, *CLASSES[kind][2])
    x = x.contiguous(memory_format=order)
    for gradient in (dy, dy.contiguous(memory_format=order), torch.ones(()).expand(dy.shape)):
        for module in (a, b):
            module.zero_grad()
        expected, got = run(a, x, gradient), run(b, x, gradient)
        assert all(t.is_contiguous(memory_format=order) for t in got[:2])
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_strides_of_any_kind():
    a, b = pair()
    whole, dy = torch.randn(8, 6, 7, C + 2), torch.randn(4, C, 3, 7)
    x = whole.permute(0, 3, 1, 2)[::2, 1:-1, ::2]
    torch.testing.assert_close(run(b, x, dy), run(a, x, dy), rtol=1e-5, atol=1e-5)


def test_what_follows_may_work_in_place():
    a, b = pair()
    x, dy = torch.randn(2, 4, C, 6, 7)
    a, b = (nn.Sequential(module, nn.ReLU(inplace=True)) for module in (a, b))
    torch.testing.assert_close(run(b, x, dy), run(a, x, dy), rtol=1e-5, atol=1e-5)


def test_an_input_changed_before_backward_is_an_error():
    _, b = pair()
    x = torch.randn(4, C, 6, 7)
    y = b(x)
    x += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_running_statistics_that_move_before_backward_do_not_count():
    a, b = pair()
    x, dy = torch.randn(2, 4, C, 6, 7)
    expected = run(a.eval(), x, dy)[1]
    leaf = x.clone().requires_grad_()
    y = b.eval()(leaf)
    b.running_var.fill_(100.0)
    y.backward(dy)
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-5, atol=1e-5)


def test_torch_computes_what_is_small(monkeypatch):
    monkeypatch.setattr(modules, "SMALL", 10**6)
    a, b = pair(relu=True)
    x = torch.randn(4, C, 6, 7)
    torch.testing.assert_close(b(x), a(x), rtol=0, atol=0)
    assert not ran_here(b(x))


@pytest.mark.parametrize("x", [torch.ones(4, C), torch.ones(4, C + 1, 3, 3), torch.ones(1, C, 1, 1)])
def test_torch_says_what_is_wrong(x):
    a, b = pair()
    messages = []
    for module in (a, b):
        with pytest.raises((ValueError, RuntimeError)) as caught:
            module(x)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert b.num_batches_tracked <= 1


def test_other_activations_are_refused():
    with pytest.raises(ValueError, match="activation must be 'relu' or None, got 'gelu'"):
        cpubn.torch.BatchNorm2d(C, activation="gelu")


def network():
    return nn.Sequential(nn.Conv2d(3, C, 3), nn.BatchNorm2d(C), nn.ReLU(), nn.Sequential(nn.BatchNorm2d(C)))


def test_a_model_is_converted_and_reverted():
    model = network()
    optimizer, x, seen = torch.optim.SGD(model.parameters(), 0.1), torch.randn(2, 3, 8, 8), []
    parameters, expected = list(model.parameters()), copy.deepcopy(model)(x)
    model[1].register_forward_hook(lambda *_: seen.append(1))
    assert cpubn.torch.convert(model) is model
    assert [type(m) for m in (model[1], model[3][0])] == [cpubn.torch.BatchNorm2d] * 2
    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))
    y = model(x)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    before = model[1].weight.detach().clone()
    y.square().mean().backward()
    optimizer.step()
    assert not torch.equal(model[1].weight, before)
    assert cpubn.torch.revert(model) is model
    assert type(model[1]) is nn.BatchNorm2d
    assert vars(model[1]).keys() == vars(network()[1]).keys()
    model(x)
    assert len(seen) == 2


def test_layers_that_are_not_converted():
    class Own(nn.BatchNorm2d):
        pass

    model = cpubn.torch.convert(nn.Sequential(Own(C), nn.SyncBatchNorm(C), nn.GroupNorm(1, C)))
    assert [type(m) for m in model] == [Own, nn.SyncBatchNorm, nn.GroupNorm]
    model = nn.Sequential(cpubn.torch.BatchNorm2d(C), cpubn.torch.BatchNorm2d(C, activation="relu"))
    with pytest.raises(ValueError, match="no activation to become torch's, got one with 'relu'"):
        cpubn.torch.revert(model)
    assert type(model[0]) is cpubn.torch.BatchNorm2d
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got dict"):
        cpubn.torch.convert({})


def test_copies_pickles_and_states():
    model = cpubn.torch.convert(network())
    model[1].activation = "relu"
    x, file = torch.randn(2, 3, 8, 8), io.BytesIO()
    model(x)
    torch.save(model.state_dict(), file)
    file.seek(0)
    loaded = network()
    loaded.load_state_dict(torch.load(file, weights_only=True), strict=True)
    model.eval()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other[1].activation == "relu"
        torch.testing.assert_close(other(x), model(x), rtol=0, atol=0)
    torch.testing.assert_close(loaded.eval()(x), model(x), rtol=1e-5, atol=1e-5)
    assert "activation='relu'" in repr(model)
