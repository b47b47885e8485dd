"""Files of batch norms, .npz, .safetensors, .onnx: what is written reads back unasked, what is damaged is refused."""

import io
import json
import re
import struct
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from conftest import need_library
from norms import EPS, check_same, trained_layer

import cpubn
from cpubn import convert

for name in ("ml_dtypes", "onnx", "safetensors"):
    need_library(name, "convert")
import onnx
from safetensors.numpy import save_file

READ = {"npz": convert.from_npz, "safetensors": convert.from_safetensors, "onnx": convert.from_onnx}
WRITE = {"npz": convert.to_npz, "safetensors": convert.to_safetensors}
KINDS = pytest.mark.parametrize("kind", ["npz", "safetensors"])
ALL_KINDS = pytest.mark.parametrize("kind", list(READ))


def norms():
    """All that a file can say: none of it a default."""
    norm = convert.Norm.of(trained_layer())
    return {
        "": norm,
        "layer1.0.bn": replace(norm, momentum=None, layout="NHWC", eps=0.1 + 0.2),
        "layer1.1.bn": replace(norm, momentum=convert.UNKNOWN, weight=None, variance="biased"),
        "head/bn é": convert.Norm(np.full(3, 1e300), np.full(3, 1e-300), 0.0, bias=np.zeros(3)),
    }


def write(kind, path):
    if kind == "onnx":
        onnx.save(convert.new_onnx(trained_layer()), path)
    else:
        WRITE[kind](norms(), path)


@KINDS
def test_what_is_written_reads_back_unasked(tmp_path, kind):
    path = tmp_path / "norms.of.a.model"
    WRITE[kind](norms(), str(path))
    got = READ[kind](path)
    assert sorted(got) == sorted(norms())
    for name, expected in norms().items():
        check_same(got[name], expected)


@KINDS
def test_what_is_given_replaces_what_the_file_says(tmp_path, kind):
    WRITE[kind](norms(), tmp_path / "norms")
    got = READ[kind](tmp_path / "norms", eps=0.5, momentum={"": 0.25})
    assert {norm.eps for norm in got.values()} == {0.5}
    assert [got[name].momentum for name in norms()] == [0.25, None, convert.UNKNOWN, convert.UNKNOWN]


@KINDS
def test_a_file_of_torch_names_is_asked_about(tmp_path, kind):
    path, bn = tmp_path / "state", trained_layer()
    arrays = convert.to_torch({"bn": bn}) | {"kernel": np.ones((3, 3)), "norm.weight": np.ones(3, np.int8)}
    with open(path, "wb") as file:
        np.savez(file, **arrays) if kind == "npz" else save_file(arrays, path)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: eps must be given, .*for 'bn'; pass eps=1e-05"):
        READ[kind](path)
    got = READ[kind](path, eps=EPS, momentum=0.3)["bn"]
    np.testing.assert_array_equal(got.running_var, bn.running_var.astype(np.float32))
    assert (got.eps, got.momentum, got.num_batches_tracked, got.variance) == (EPS, 0.3, 3, "unbiased")


@KINDS
def test_nothing_is_written_where_something_is_wrong(tmp_path, kind):
    with pytest.raises(ValueError, match="must have running statistics"):
        WRITE[kind]({"a": cpubn.BatchNorm1d(3), "b": cpubn.BatchNorm1d(3, track_running_stats=False)}, tmp_path / "no")
    assert not (tmp_path / "no").exists()
    with pytest.raises(TypeError, match="path must be a string or a path, got int; pass the name of the file"):
        WRITE[kind]({}, 3)


def test_keras_names_in_an_npz(tmp_path):
    weights, config = convert.to_keras({"a/bn": trained_layer()}, values_per_channel=None)
    np.savez(tmp_path / "keras.npz", **weights)
    with np.load(tmp_path / "keras.npz", allow_pickle=False) as file:
        got = convert.from_keras(file, **{name: config["a/bn"][name] for name in ("epsilon", "momentum", "axis")})
    np.testing.assert_allclose(got["a/bn"].running_var, trained_layer().running_var, rtol=1e-7)
    with pytest.raises(ValueError, match=r"got the keys a/bn/gamma, .*; these names are those that from_keras takes"):
        convert.from_npz(tmp_path / "keras.npz", eps=EPS)


@ALL_KINDS
def test_a_missing_file(tmp_path, kind):
    with pytest.raises(FileNotFoundError, match="nothing"):
        READ[kind](tmp_path / "nothing")
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        READ[kind](tmp_path)
    with pytest.raises(TypeError, match="path must be a string or a path, got int"):
        READ[kind](3)


@ALL_KINDS
@pytest.mark.parametrize("content", [b"", b"\0", b"text\n", b"PK\3\4", bytes(1000), bytes(range(256)) * 4])
def test_another_kind_of_file(tmp_path, kind, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"must be .*got .*; \w+"):
        READ[kind](path)


@ALL_KINDS
def test_files_taken_for_each_other(tmp_path, kind):
    for other in READ:
        write(other, tmp_path / other)
        if other != kind:
            with pytest.raises(ValueError, match=r"must be .*got .*; \w+"):
                READ[kind](tmp_path / other)


@ALL_KINDS
def test_a_truncated_file(tmp_path, kind):
    write(kind, tmp_path / "whole")
    whole, path = (tmp_path / "whole").read_bytes(), tmp_path / "part"
    for length in {*range(0, len(whole), 7), *range(len(whole) - 40, len(whole))}:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"must (be|hold) .*got .*; \w+"):
            READ[kind](path)


@ALL_KINDS
def test_a_flipped_byte_is_an_error_or_another_number(tmp_path, kind):
    """No exception but ValueError; and with the checksums of .npz no other number either."""
    write(kind, tmp_path / "whole")
    whole, path = (tmp_path / "whole").read_bytes(), tmp_path / "flipped"
    expected, refused = READ[kind](tmp_path / "whole"), 0
    for i in range(0, len(whole), 3):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ (1 << i % 8)]) + whole[i + 1 :])
        try:
            got = READ[kind](path)
        except ValueError:
            refused += 1
            continue
        if kind == "npz":
            for name, norm in got.items():
                check_same(norm, expected[name])
    assert refused > len(whole) / 12


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_an_npz_with_pickles_is_not_executed(tmp_path):
    (tmp_path / "a.npz").write_bytes(npz(running_mean=np.array([print], object), running_var=np.ones(1)))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded when allow_pickle=False"):
        convert.from_npz(tmp_path / "a.npz", eps=EPS)


def test_an_npz_that_holds_a_name_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("running_mean.npy", b"")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("running_mean.npy", b"")
    with pytest.raises(ValueError, match="must hold each array once, got 'running_mean' twice"):
        convert.from_npz(tmp_path / "a.npz", eps=EPS)


SAID = {"vectors": ["running_mean", "running_var"], "eps": 1e-5, "layout": "NCHW"}
METADATA = {
    "no JSON": ("{", "its metadata 'cpubn' must be the JSON that cpubn writes, got '{'"),
    "nested too deep": ("[" * 100_000, "its metadata 'cpubn' must be the JSON"),
    "a list": ("[]", "its metadata 'cpubn' must be the JSON"),
    "a norm that is none": ('{"": 1}', "its metadata 'cpubn' must be the JSON"),
    "an unknown field": (json.dumps({"": SAID | {"eqs": 1}}), "its metadata 'cpubn' must be the JSON"),
    "no eps": (json.dumps({"": {"vectors": [], "layout": "NCHW"}}), "its metadata 'cpubn' must be the JSON"),
    "other arrays": (
        json.dumps({"": SAID, "b": SAID}),
        "must hold the arrays .*b.running_mean.*, got running_mean, runn",
    ),
    "an eps of NaN": (json.dumps({"": SAID | {"eps": float("nan")}}), "batch norm '': eps must be .* got nan"),
    "an eps of text": (json.dumps({"": SAID | {"eps": "0"}}), "batch norm '': eps must be .* got '0'"),
    "a momentum of 2": (json.dumps({"": SAID | {"momentum": 2}}), "batch norm '': momentum must be .* got 2"),
}


@KINDS
@pytest.mark.parametrize(("metadata", "match"), METADATA.values(), ids=list(METADATA))
def test_metadata_of_another_kind(tmp_path, kind, metadata, match):
    path, arrays = tmp_path / "file", {"running_mean": np.zeros(3), "running_var": np.ones(3)}
    if kind == "npz":
        path.write_bytes(npz(**arrays, cpubn=np.array(metadata)))
    else:
        save_file(arrays, path, metadata={"cpubn": metadata})
    with pytest.raises((ValueError, TypeError), match=match):
        READ[kind](path)


def test_safetensors_with_a_name_twice(tmp_path):
    entry = '"running_mean":{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}'
    header = ("{" + entry % (0, 4) + "," + entry % (4, 8) + "}").encode()
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ValueError, match=r"must be a .safetensors file, got one that cannot be read"):
        convert.from_safetensors(tmp_path / "a", eps=EPS)


@pytest.mark.parametrize(("missing", "use"), [("safetensors", "from_safetensors"), ("onnx", "from_onnx")])
def test_a_missing_library_is_named(tmp_path, monkeypatch, missing, use):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=rf'{missing} must be installed .*pip install "cpubn\[convert\]"'):
        getattr(convert, use)(tmp_path / "file")


def test_bfloat16_is_read_where_ml_dtypes_is():
    need_library("ml_dtypes", "convert")
    import ml_dtypes

    norm = convert.Norm(np.array([0.5, 1, 2], ml_dtypes.bfloat16), np.ones(3, np.float16), EPS)
    np.testing.assert_array_equal(norm.running_mean, [0.5, 1, 2])
    assert norm.running_var.dtype == np.float64
