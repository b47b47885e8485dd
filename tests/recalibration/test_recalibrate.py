"""recalibrate(): the statistics of a whole data set, in one pass or layer by layer."""

import numpy as np
import pytest

import cpubn

N, C = 230, 4


class Network:
    """norm -> matrix -> norm -> matrix -> norm, whose deeper statistics depend on the shallower ones."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.norms = {
            name: cpubn.BatchNorm1d(C, activation=act) for name, act in (("a", "relu"), ("b", "relu"), ("c", None))
        }
        self.matrices = [rng.normal(size=(C, C)), rng.normal(size=(C, C))]
        self.batches = 0

    def __call__(self, x):
        self.batches += 1
        y = self.norms["a"](np.asarray(x, np.float64))
        for matrix, name in zip(self.matrices, "bc", strict=True):
            y = self.norms[name](y @ matrix)
        return y

    def state(self):
        return {name: norm.state_dict() for name, norm in self.norms.items()}


def data():
    rng = np.random.default_rng(1)
    return rng.normal(size=(N, C)) * rng.uniform(0.5, 20, (N, 1)) + np.arange(C) * 10 + np.linspace(0, 30, N)[:, None]


@pytest.fixture
def x():
    return data()


def check_same(got, expected):
    for name, state in expected.items():
        for key, value in state.items():
            np.testing.assert_array_equal(got[name][key], value, err_msg=f"{name}.{key}")


def sequence(x):
    """Statistics layer by layer, of all the data at once."""
    network, y = Network(), x
    for name, matrix in zip("abc", [*network.matrices, None], strict=True):
        norm, whole = network.norms[name], cpubn.moments(y)
        norm.update_from(whole)
        y = norm.eval()(y)
        y = y if matrix is None else y @ matrix
    return network


def test_one_layer_gets_the_statistics_of_all(x):
    bn = cpubn.BatchNorm1d(C)
    found = cpubn.recalibrate(bn, bn, x, batch_size=64)
    assert list(found) == [""]
    assert found[""].count == N
    np.testing.assert_allclose(bn.running_mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(bn.running_var, x.var(0, ddof=1), rtol=1e-12)
    assert bn.num_batches_tracked == 1


@pytest.mark.parametrize("size", [1, 64, 1000])
def test_layer_by_layer_is_what_inference_gives_each(x, size):
    network, expected = Network(), sequence(x)
    network.norms["b"].eval()
    found = cpubn.recalibrate(network.norms, network, x, layer_by_layer=True, batch_size=size)
    assert list(found) == ["a", "b", "c"]
    for name, norm in network.norms.items():
        other = expected.norms[name]
        np.testing.assert_allclose(norm.running_mean, other.running_mean, rtol=1e-9)
        np.testing.assert_allclose(norm.running_var, other.running_var, rtol=1e-9)
        assert norm.training is (name != "b")
    assert network.batches == 3 * -(-N // size) + 1  # and one for how often it calls its layers


def test_one_pass_is_what_training_gives_each(x):
    network, other = Network(), Network()
    found = cpubn.recalibrate([*network.norms.values()], network, x, batch_size=50)
    assert list(found) == ["0", "1", "2"]
    assert network.batches == 5
    parts, inputs = [x[k : k + 50] for k in range(0, N, 50)], {name: [] for name in "abc"}
    for part in parts:
        y = part
        for name, matrix in zip("abc", [*other.matrices, None], strict=True):
            inputs[name].append(y)
            y = other.norms[name](y)
            y = y if matrix is None else y @ matrix
    for name, norm in network.norms.items():
        whole = np.concatenate(inputs[name])
        np.testing.assert_allclose(norm.running_mean, whole.mean(0), rtol=1e-9)
        np.testing.assert_allclose(norm.running_var, whole.var(0, ddof=1), rtol=1e-9)


class Sliced:
    """As zarr's and dask's arrays are used: a shape, slices, and an array of each."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __getitem__(self, at):
        return Sliced(self.array[at])

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype)


def in_folder(x, path):
    for k, part in enumerate(np.split(x, [64, 192])):
        np.save(path / f"part{k}.npy", part)
    return path


def in_memmap(x, path):
    np.save(path / "x.npy", x)
    return np.load(path / "x.npy", mmap_mode="r")


SOURCES = {
    "array": lambda x, path: x,
    "memmap": in_memmap,
    "folder": in_folder,
    "file": lambda x, path: (in_memmap(x, path), str(path / "x.npy"))[1],
    "slices": lambda x, path: Sliced(x),
    "list": lambda x, path: np.split(x, [64, 128, 192]),
    "function": lambda x, path: lambda: iter(np.split(x, [64, 128, 192])),
    "generator": lambda x, path: (part for part in np.split(x, [64, 128, 192])),
}


@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_whatever_holds_the_data(make, by_layer, x, tmp_path):
    network, expected = Network(), Network()
    cpubn.recalibrate(expected.norms, expected, x, layer_by_layer=by_layer)
    source = make(x, tmp_path)
    if by_layer and hasattr(source, "__next__"):
        with pytest.raises(ValueError, match=r"gone through once for each layer, got an iterator; pass a list"):
            cpubn.recalibrate(network.norms, network, source, layer_by_layer=True)
        return
    cpubn.recalibrate(network.norms, network, source, layer_by_layer=by_layer)
    check_same(network.state(), expected.state())


BAD = {
    "no layer": (lambda n, x: ([], n, x), ValueError, "layers must hold at least one"),
    "another thing": (lambda n, x: (3, n, x), TypeError, "layers must be a layer, a list or a mapping .*got int"),
    "another layer": (lambda n, x: ([3], n, x), TypeError, "'0' must be a BatchNorm1d.*got int"),
    "twice": (lambda n, x: ([n.norms["a"]] * 2, n, x), ValueError, "'0' must be there once"),
    "untracked": (
        lambda n, x: (cpubn.BatchNorm1d(C, track_running_stats=False), n, x),
        ValueError,
        "must track running statistics",
    ),
    "no function": (lambda n, x: (n.norms, 3, x), TypeError, "forward must be a function of a batch, got int"),
    "no batches": (lambda n, x: (n.norms, n, []), ValueError, "at least one batch, got none"),
    "no data": (lambda n, x: (n.norms, n, 3), TypeError, "batches must be an array, a folder .*got int"),
    "a number": (lambda n, x: (n.norms, n, np.float64(3)), ValueError, "batch axis"),
    "not called": (lambda n, x: (n.norms, n.norms["a"], x), ValueError, "call every layer, got no call of 'b', 'c'"),
    "one value": (lambda n, x: (n.norms, n, x[:1]), ValueError, "more than 1 value|at least 2 values"),
    "an error": (lambda n, x: (n.norms, n, x[:, :3]), ValueError, "x must have 4 channels"),
}


@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize(("make", "kind", "match"), BAD.values(), ids=BAD)
def test_what_cannot_be_done_changes_nothing(make, kind, match, by_layer, x):
    network = Network()
    before = network.state()
    with pytest.raises(kind, match=match):
        cpubn.recalibrate(*make(network, x), layer_by_layer=by_layer)
    check_same(network.state(), before)
    network(x)  # as ever
    assert network.norms["a"].num_batches_tracked == 1


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError)])
def test_sizes_of_batches(size, error, x):
    with pytest.raises(error, match=r"batch_size must be .*got"):
        cpubn.recalibrate(cpubn.BatchNorm1d(C), lambda batch: None, x, batch_size=size)


def test_a_layer_that_is_called_twice(x):
    bn = cpubn.BatchNorm1d(C)
    found = cpubn.recalibrate(bn, lambda batch: bn(bn(batch)), x)
    assert found[""].count == 2 * N
    with pytest.raises(ValueError, match=r"each layer once .* got 2 calls of ''; use one pass"):
        cpubn.recalibrate(bn, lambda batch: bn(bn(batch)), x, layer_by_layer=True)


def test_a_network_whose_order_changes(x):
    a, b = (cpubn.BatchNorm1d(C) for _ in range(2))
    with pytest.raises(ValueError, match=r"reach the same layer first .* '0' in this pass, got '1'; use one pass"):
        cpubn.recalibrate([a, b], lambda batch: a(b(batch)) if len(batch) < 64 else b(a(batch)), x, layer_by_layer=True)
    np.testing.assert_array_equal(a.running_mean, 0)


@pytest.mark.parametrize("by_layer", [False, True])
def test_masks_of_the_forward_count(x, by_layer):
    first, second = cpubn.BatchNorm1d(C), cpubn.BatchNorm1d(C)
    counts = np.arange(N) % 3 > 0
    batches = [(x[n : n + 50], counts[n : n + 50]) for n in range(0, N, 50)]
    x[~counts] = np.nan

    def forward(batch):
        second(first(batch[0], mask=batch[1]) * 2, mask=batch[1])

    cpubn.recalibrate([first, second], forward, batches, layer_by_layer=by_layer, progress=False)
    np.testing.assert_allclose(first.running_mean, x[counts].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(first.running_var, x[counts].var(axis=0, ddof=1), rtol=1e-12)
    assert np.isfinite(second.running_var).all()


def test_within_accumulate(x):
    bn = cpubn.BatchNorm1d(C)
    with bn.accumulate(), pytest.raises(RuntimeError, match=r"must not be within accumulate\(\)"):
        cpubn.recalibrate(bn, bn, x)


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (lambda path: None, "must hold .npy files, got a folder without any"),
        (lambda path: (path / "a.npy").write_bytes(b"no"), "a.npy must be a .npy file of samples"),
        (
            lambda path: np.save(path / "a.npy", np.array([{}]), allow_pickle=True),
            "a.npy must be a .npy file of samples",
        ),
        (lambda path: np.save(path / "a.npy", 3.0), "a.npy must be a .npy file of samples"),
        (
            lambda path: (np.save(path / "a.npy", np.ones((3, 4))), np.save(path / "b.npy", np.ones((3, 5)))),
            "b.npy must hold",
        ),
    ],
)
def test_folders_that_are_refused(write, match, tmp_path):
    write(tmp_path)
    bn = cpubn.BatchNorm1d(C)
    with pytest.raises(ValueError, match=match):
        cpubn.recalibrate(bn, bn, tmp_path)
