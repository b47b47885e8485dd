"""Moments as dictionaries and as files: the same bits, and nothing in a file is trusted."""

import json
import pickle
import zipfile

import numpy as np
import pytest
from damage import check_refused_or_read
from test_moments_add_up import kinds, normal

import cpubn
from cpubn import Moments


@kinds
def test_dictionaries_through_json_keep_all_bits(kind):
    some = kind(cpubn.moments(np.concatenate([normal(9, 1e6), [[np.nan, np.inf, -0.0]]])))
    told = some.to_dict()
    assert list(told) == ["count", "mean", "m2", "low"]
    assert Moments.from_dict(json.loads(json.dumps(told))) == some
    assert np.asarray(Moments.from_dict(told).count).dtype == np.asarray(some.count).dtype
    assert Moments.from_dict({name: np.asarray(value) for name, value in told.items() if name != "count"} | {
        "count": some.count}) == some  # fmt: skip


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"m2": None}, ValueError, r"keys count, mean, m2, low, got .*missing: m2"),
        ({"var": [1.0]}, ValueError, r"unexpected: var"),
        ({"mean": "abc"}, TypeError, "mean must be an array of"),
        ({"mean": [1.0, 2.0]}, ValueError, r"m2 must have shape"),
        ({"m2": [-1.0]}, ValueError, "m2 must be at least 0"),
        ({"count": -1}, ValueError, "count must be at least 0, got -1"),
        ({"count": 1.5}, TypeError, "count must be a whole number"),
        ({"count": None, "mean": None}, ValueError, "missing: count, mean"),
    ],
)
def test_dictionaries_that_are_refused(change, error, match):
    given = {"count": 4, "mean": [1.0], "m2": [2.0], "low": [0.0], **change}
    with pytest.raises(error, match=match):
        Moments.from_dict({name: value for name, value in given.items() if value is not None})
    with pytest.raises(TypeError, match="must be a mapping from names to numbers, got list; pass a to_dict"):
        Moments.from_dict([1, 2])


def test_low_may_be_absent():
    assert Moments.from_dict({"count": 4, "mean": [1], "m2": [2]}) == Moments(4, [1.0], [2.0])


@kinds
@pytest.mark.parametrize("name", ["m.npz", "m", "m.dat"])
def test_files_keep_all_bits(kind, name, tmp_path):
    some = kind(cpubn.moments(normal(9, 1e6)))
    path = tmp_path / name
    for _ in range(2):  # the second time over the first
        assert some.save(path) is None
        assert Moments.load(path) == some == Moments.load(str(path))
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert set(np.load(path, allow_pickle=False)) == {"count", "mean", "m2", "low"}


def test_a_link_stays_one(tmp_path):
    some, path, link = cpubn.moments(normal(9)), tmp_path / "m.npz", tmp_path / "link"
    link.symlink_to(path)
    some.save(link)
    assert link.is_symlink()
    assert Moments.load(path) == some


class Evil:
    def __reduce__(self):
        return pytest.fail, ("run",)


WRITTEN = {
    "a pickle": lambda path: path.write_bytes(pickle.dumps(3)),
    "nothing": lambda path: path.write_bytes(b""),
    "other arrays": lambda path: np.savez(path, a=np.ones(3)),
    "a layer": lambda path: cpubn.convert.to_npz({"bn": cpubn.BatchNorm1d(3)}, path),
    "a pickle within": lambda path: np.savez(
        path, allow_pickle=True, count=4, mean=np.array([Evil()]), m2=[1.0], low=[0.0]
    ),
    "text": lambda path: np.savez(path, count=4, mean=["a"], m2=[1.0], low=[0.0]),
    "half a count": lambda path: np.savez(path, count=4.5, mean=[1.0], m2=[1.0], low=[0.0]),
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_other_files_are_refused(write, tmp_path):
    path = tmp_path / "m.npz"
    write(path)
    with pytest.raises(ValueError, match=r"m\.npz must be"):
        Moments.load(path)


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "m.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("count", "mean", "m2", "low"):
            archive.writestr(f"{name}.npy", bytes((1 << 28) + 1))
    with pytest.raises(ValueError, match="MiB once unpacked"):
        Moments.load(path)


def test_paths_that_are_none(tmp_path):
    some = cpubn.moments(normal(9))
    with pytest.raises(TypeError, match="path must be a string or a path, got int"):
        some.save(3)
    with pytest.raises(FileNotFoundError):
        some.save(tmp_path / "no" / "m.npz")
    with pytest.raises(FileNotFoundError):
        Moments.load(tmp_path / "m.npz")


def test_damaged_files(tmp_path):
    path = tmp_path / "m.npz"
    cpubn.moments(normal(9)).save(path)
    check_refused_or_read(Moments.load, path, 300)
