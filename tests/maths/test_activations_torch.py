"""Activations beside torch's where that is special: infinities, NaN, kinks, and numbers far from 0."""

import cases
import numpy as np
import oracle
import pytest
from conftest import need_library
from test_activations import call

need_library("torch", "frameworks")

import torch

NAMED_OTHERWISE = {"clip": torch.nn.functional.hardtanh}
FAR = np.inf, 1e30, 120.0, 50.0, 1e-30, 0.0


@pytest.mark.parametrize("activation", cases.ACTIVATIONS, ids=str)
def test_special_numbers(activation):
    """Of NaN but the function: torch's own derivatives differ by how many numbers are given."""
    name, *parameters = activation if isinstance(activation, tuple) else (activation,)
    kinks = oracle.activation_of(activation).kinks
    z = np.array([np.nan, *FAR, *(-far for far in FAR), *kinks, *np.nextafter(np.array(kinks, float), 0.0)])
    given = torch.tensor(z, requires_grad=True)
    expected = (NAMED_OTHERWISE.get(name) or getattr(torch.nn.functional, name))(given, *parameters)
    expected.sum().backward()
    np.testing.assert_allclose(call(activation, z), expected.detach().numpy(), rtol=1e-12, atol=1e-12)
    gradient = call(activation, z, "gradient")
    np.testing.assert_allclose(gradient[1:], given.grad.numpy()[1:], rtol=1e-12, atol=1e-12)
