"""A batch norm of torch's and one of cpubn.torch's with the same state, and what both do."""

from torch import nn

import cpubn.torch
from cpubn.torch import gradients

C = 5
CLASSES = {
    "1d": (nn.BatchNorm1d, cpubn.torch.BatchNorm1d, (12, C)),
    "1d of 3": (nn.BatchNorm1d, cpubn.torch.BatchNorm1d, (4, C, 7)),
    "2d": (nn.BatchNorm2d, cpubn.torch.BatchNorm2d, (4, C, 6, 7)),
    "3d": (nn.BatchNorm3d, cpubn.torch.BatchNorm3d, (3, C, 4, 3, 5)),
}
OPTIONS = {
    "plain": {},
    "not affine": {"affine": False},
    "without bias": {"bias": False},
    "cumulative": {"momentum": None},
    "untracked": {"track_running_stats": False},
}


class WithRelu(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x).relu()


def pair(kind="2d", relu=False, **options):
    """torch's module, with relu where that is asked for, and one of ours with the same state."""
    theirs, ours, _ = CLASSES[kind]
    a, b = theirs(C, **options), ours(C, activation="relu" if relu else None, **options)
    for p in a.parameters():
        nn.init.normal_(p)
    b.load_state_dict(a.state_dict(), strict=True)
    return WithRelu(a) if relu else a, b


def run(module, x, dy):
    x = x.detach().clone().requires_grad_()
    y = module(x)
    y.backward(dy.to(y.dtype))
    return y, x.grad, *(p.grad for p in module.parameters())


def ran_here(y):
    return isinstance(y.grad_fn, gradients.Attached._backward_cls)
