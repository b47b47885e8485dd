"""Modules of torch and files of torch.save, beside torch; and files that nobody should have."""

import io
import tarfile
import warnings
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from conftest import need_library
from damage import check_refused_or_read
from norms import CLOSE, EPS, C, X, trained_layer

from cpubn import convert

need_library("torch", "frameworks")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    import torch

COUNTS = pytest.mark.parametrize("count", [100, pytest.param(2500, marks=pytest.mark.slow)])  # of each of two


def model_of():
    torch.manual_seed(0)
    shared = torch.nn.BatchNorm2d(C, EPS, 0.2)
    model = torch.nn.ModuleDict(
        {
            "net": torch.nn.Sequential(torch.nn.Conv2d(C, C, 1), torch.nn.BatchNorm2d(C, 1e-2, None), shared),
            "sync": torch.nn.SyncBatchNorm(C, 2e-2, affine=False),
            "again": shared,
            "instance": torch.nn.InstanceNorm2d(C, track_running_stats=True),
            "batch": torch.nn.BatchNorm2d(C, track_running_stats=False),
            "one": torch.nn.BatchNorm1d(C, 3e-2, bias=False),
        }
    )
    for name in ("net", "instance"):
        model[name].train()(torch.from_numpy(X))
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, 0.5, 2)
    return model.eval()


EPSILONS = {"net.1": 1e-2, "net.2": EPS, "sync": 2e-2, "again": EPS, "one": 3e-2}


@pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning")
def test_a_module_tells_all():
    model = model_of()
    norms = convert.from_torch(model)
    assert {name: norm.eps for name, norm in norms.items()} == EPSILONS
    assert [norm.momentum for norm in norms.values()] == [None, 0.2, 0.1, 0.2, 0.1]
    assert norms["net.1"].num_batches_tracked == 1
    for name, norm in norms.items():
        module = model.get_submodule(name)
        x = X if name != "one" else X[:, :, 0]
        with torch.no_grad():
            expected = module(torch.from_numpy(np.ascontiguousarray(x))).numpy()
        np.testing.assert_allclose(norm.freeze()(x), expected, **CLOSE)
    given = convert.from_torch(model, eps={"sync": 0.5}, momentum=0.3)
    assert given["sync"].eps == 0.5
    assert given["one"].eps == 3e-2
    assert {norm.momentum for norm in given.values()} == {0.3}
    assert "instance" in convert.from_torch(model.state_dict(), eps=EPS)  # where it looks the same
    assert list(convert.from_torch(torch.nn.BatchNorm1d(2))) == [""]
    assert convert.from_torch(torch.jit.script(model["net"]))["1"].eps == 1e-2


def test_modules_of_other_packages():
    class FrozenBatchNorm2d(torch.nn.Module):  # as torchvision has it
        def __init__(self):
            super().__init__()
            self.eps = 4e-3
            for name, value in (("weight", 2), ("bias", 1), ("running_mean", 0), ("running_var", 3)):
                self.register_buffer(name, torch.full((C,), float(value)))

    norm = convert.from_torch(FrozenBatchNorm2d())[""]
    assert norm.eps == 4e-3
    assert norm.momentum is convert.UNKNOWN
    for module in (torch.nn.Linear(2, 2), torch.nn.InstanceNorm1d(2, track_running_stats=True)):
        with pytest.raises(ValueError, match="the module must hold a batch norm with running statistics, got"):
            convert.from_torch(module)
    with pytest.raises(TypeError, match="batch norm '': running_mean must be an array, got UninitializedBuffer"):
        convert.from_torch(torch.nn.LazyBatchNorm1d())


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "before 1.6"])
def test_files_of_torch(tmp_path, archive):
    model, path = model_of(), tmp_path / "model.pth"
    state = model.state_dict()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    for what, prefix in ((state, ""), ({"epoch": 3, "net": {"ema": state}, "opt": optimizer.state_dict()}, "net.ema.")):
        torch.save(what, path, _use_new_zipfile_serialization=archive)
        eps = {f"{prefix}{name}": value for name, value in EPSILONS.items()} | {f"{prefix}instance": EPS}
        for read in (convert.read, convert.from_torch):
            norms = read(path, eps=eps, momentum=0.2)
            assert set(norms) == set(eps)
            for name, norm in norms.items():
                np.testing.assert_array_equal(
                    norm.running_var, state[f"{name.removeprefix(prefix)}.running_var"].numpy()
                )
        with pytest.raises(ValueError, match=r"eps must be given, .* got none for .* and 2 more; pass eps=1e-05 if"):
            convert.read(path)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_tensors_are_loaded(dtype):
    if dtype == "bfloat16":
        import ml_dtypes

        dtype = ml_dtypes.bfloat16
    model = model_of()
    norms = convert.from_torch(model)
    del norms["again"], norms["one"]
    norms["net.2"] = trained_layer()
    state = convert.to_torch(norms, dtype=dtype, tensors=True)
    done = model.load_state_dict(state, strict=False)
    assert done.unexpected_keys == []
    assert not any(key.startswith(("net.1", "net.2", "sync")) for key in done.missing_keys)
    with torch.no_grad():
        got = model["net"][2](torch.from_numpy(X)).numpy()
    rtol = 2e-5 if dtype == "float32" else 0.05
    np.testing.assert_allclose(got, trained_layer()(X), rtol=rtol, atol=rtol * 10)


class Print:
    def __reduce__(self):
        return print, ("run",)


def deep(levels):
    state = {}
    for _ in range(levels):
        state = {"a": state, "b": state}
    return state


STATE = OrderedDict(running_mean=torch.zeros(3), running_var=torch.ones(3))
HOSTILE = {
    "code": (Print(), r"must be a file of torch.save, got one that cannot be read \(UnpicklingError"),
    "a module": (torch.nn.BatchNorm1d(3), r"must be a file of torch.save, got one that cannot be read"),
    "a tensor": (torch.ones(3), "a torch state_dict must be a mapping from names to arrays, got Tensor"),
    "a view": (
        STATE | {"weight": torch.ones(1).expand(1 << 30)},
        r"weight must have shape \(C,\), .*got \(1073741824,\)",
    ),
    "a sparse tensor": (STATE | {"weight": torch.ones(3).to_sparse()}, "batch norm '': weight must be an array"),
    "integers": (STATE | {"weight": torch.ones(3, dtype=torch.int32)}, "weight must be an array of float16"),
    "no count": (STATE | {"num_batches_tracked": "1"}, "num_batches_tracked must be a whole number, got '1'"),
    "deep mappings": (deep(40), "must hold at most 1000000 entries, in mappings of at most 32 levels"),
    "many mappings": (deep(25), "must hold at most 1000000 entries"),
}


@pytest.mark.parametrize(("state", "match"), HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_files(tmp_path, state, match, capsys):
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=match):
        convert.read(tmp_path / "a.pth", eps=EPS)
    assert capsys.readouterr().out == ""


def test_a_bomb(tmp_path):
    torch.save({"a.running_mean": torch.zeros(3)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as whole, zipfile.ZipFile(tmp_path / "b.pth", "w") as bomb:
        for entry in whole.infolist():
            bomb.writestr(entry.filename, whole.read(entry))
        bomb.writestr("a/data/1", bytes(300 << 20), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="take more than 256 MiB once unpacked"):
        convert.read(tmp_path / "b.pth", eps=EPS)


@pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning")
def test_programs_and_older_archives_are_named(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.BatchNorm1d(3)), tmp_path / "script.pt")
    with pytest.raises(ValueError, match=r"got a TorchScript program; if you trust it, pass the module torch.jit.load"):
        convert.read(tmp_path / "script.pt", eps=EPS)
    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    with pytest.raises(ValueError, match="must be a file of ONNX, safetensors, npz, torch or Keras, got a tar archive"):
        convert.read(tmp_path / "old.pth", eps=EPS)
    torch.save(STATE, tmp_path / "model.pth")
    for read, kind in ((convert.from_npz, "npz"), (convert.from_keras, "keras")):
        with pytest.raises(
            ValueError, match=rf"must be an? .{kind} .*, got a file of torch.save; read it with .*from_torch"
        ):
            read(tmp_path / "model.pth")


@COUNTS
@pytest.mark.parametrize("archive", [True, False], ids=["archive", "before 1.6"])
def test_damaged_files(tmp_path, archive, count):
    torch.save(model_of().state_dict(), tmp_path / "model", _use_new_zipfile_serialization=archive)
    check_refused_or_read(lambda path: convert.read(path, eps=EPS), tmp_path / "model", count)
