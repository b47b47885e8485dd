"""SyncBatchNorm over gloo: ranks are processes on 127.0.0.1, which a file introduces to each other."""

import copy
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import need_library

need_library("torch", "frameworks")
import gloo
import torch
from torch import nn

import cpubn.torch


def printed(tmp_path, count, case, *arguments):
    """The numbers that the ranks print."""
    done = gloo.run(count, tmp_path / "store", case, *arguments)
    assert [(status, error) for status, _, error in done] == [(0, "")] * count
    return [line for _, output, _ in done for line in output.splitlines()]


@pytest.mark.parametrize(("count", "dtype", "layout", "relu", "bound"), [
    (1, "float32", "contiguous_format", "", 1e-5),
    (2, "float32", "channels_last", "relu", 1e-5),
    (3, "float64", "contiguous_format", "relu", 1e-11),
    (3, "bfloat16", "channels_last", "", 0.1),
    (4, "float32", "contiguous_format", "", 1e-5),
])  # fmt: skip
def test_the_ranks_are_one_batch(tmp_path, count, dtype, layout, relu, bound):
    found = printed(tmp_path, count, "whole", dtype, layout, relu)
    assert len(found) == count
    assert max(map(float, found)) < bound


@pytest.mark.parametrize("count", [2, 3])
def test_distributed_data_parallel(tmp_path, count):
    assert max(map(float, printed(tmp_path, count, "ddp"))) < 1e-5


def test_process_groups_and_eval(tmp_path):
    assert float(printed(tmp_path, 4, "groups")[0]) < 1e-6


def test_a_layer_of_arrays_over_gloo(tmp_path):
    assert max(map(float, printed(tmp_path, 3, "layers"))) < 1e-12


@pytest.mark.parametrize(("kind", "message"), [
    ("shape", "ValueError: x must have 8 channels"), ("type", "TypeError: x must be an array of float16"),
    ("rank", "ValueError: x must have 2 to 5 dimensions"),
])  # fmt: skip
def test_an_error_on_one_rank_is_one_on_all(tmp_path, kind, message):
    first, second = printed(tmp_path, 2, "error", kind)
    assert first.startswith(f"RuntimeError: every rank must get through, got an error on rank 1: {message}")
    assert second.startswith(message)


def test_without_a_group_it_is_plain():
    torch.manual_seed(0)
    ours, theirs = cpubn.torch.SyncBatchNorm(5), nn.BatchNorm2d(5)
    x = torch.randn(4, 5, 6, 7)
    for training in (True, False):
        got, expected = ours.train(training)(x), theirs.train(training)(x)
        torch.testing.assert_close(got, expected)
    assert ours.state_dict().keys() == nn.SyncBatchNorm(5).state_dict().keys()
    theirs.load_state_dict(ours.state_dict())
    with pytest.raises(ValueError, match="x must have 2 to 5 dimensions, got 1"):
        ours(torch.ones(5))
    for same in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        torch.testing.assert_close(same(x), ours(x))


def test_conversion():
    model = nn.Sequential(nn.BatchNorm1d(3), cpubn.torch.BatchNorm2d(4, activation="relu"), nn.SyncBatchNorm(5))
    parameters = list(model.parameters())
    group = object()
    assert cpubn.torch.convert_sync_batchnorm(model, group) is model
    assert {type(m) for m in model} == {cpubn.torch.SyncBatchNorm}
    assert all(m.process_group is group for m in model)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert model[1].activation == "relu"
    assert repr(model[0]).startswith("SyncBatchNorm(3, eps=1e-05, ")
    model[1].activation = None
    assert {type(m) for m in cpubn.torch.revert(model)} == {nn.SyncBatchNorm}
    with pytest.raises(ValueError, match="must know their channels, got LazyBatchNorm2d"):
        cpubn.torch.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm2d(3), nn.LazyBatchNorm2d()))
    with pytest.raises(TypeError, match=re.escape("model must be a torch.nn.Module, got int")):
        cpubn.torch.convert_sync_batchnorm(3)


def test_the_example(tmp_path):
    need_library("sklearn", "frameworks")
    example = Path(__file__).parents[2] / "examples" / "torch_ranks.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, example], capture_output=True, text=True, timeout=240, check=False, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert float(re.search(r"^The loss curves are at most (\S+) apart$", done.stdout, re.MULTILINE)[1]) < 1e-4
