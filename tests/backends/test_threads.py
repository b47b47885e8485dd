"""How many threads a call may use: what was asked for, or the smallest limit that the machine sets."""

import os

import pytest
from conftest import need_backend, python

import cpubn
from cpubn.backends import choice, threads
from cpubn.machine import cpus


@pytest.mark.usefixtures("threads_restored")
def test_set_num_threads():
    cpubn.set_num_threads(3)
    assert cpubn.get_num_threads() == 3
    assert threads.count().source == "set_num_threads"
    assert choice.threads(choice.SERIAL_BYTES + 1) == 3
    assert choice.threads(choice.SERIAL_BYTES) == 1


@pytest.mark.usefixtures("threads_restored")
@pytest.mark.parametrize(
    ("n", "error"),
    [(0, ValueError), (-1, ValueError), (1025, ValueError), (2.0, TypeError), ("2", TypeError), (True, TypeError)],
)
def test_set_num_threads_refuses(n, error):
    before = cpubn.get_num_threads()
    with pytest.raises(error, match=r"n must be a whole number from 1 to 1024, got"):
        cpubn.set_num_threads(n)
    assert cpubn.get_num_threads() == before


@pytest.mark.usefixtures("threads_restored")
def test_none_restores_the_default():
    cpubn.set_num_threads(None)
    default = threads.count()
    assert default == threads._default()
    cpubn.set_num_threads(default.threads + 1)
    cpubn.set_num_threads(None)
    assert threads.count() == default


def test_none_restores_what_the_environment_chose_and_finds_its_faults():
    program = "import cpubn; cpubn.set_num_threads(2); cpubn.set_num_threads(None); "
    assert python(program + COUNT, CPUBN_NUM_THREADS="7") == "7|CPUBN_NUM_THREADS"
    assert python(program, CPUBN_NUM_THREADS="no").startswith("ValueError: CPUBN_NUM_THREADS must be")


COUNT = "from cpubn.backends import threads; print(*threads.count(), sep='|')"


def test_environment_chooses_the_threads():
    assert python(COUNT, CPUBN_NUM_THREADS="7") == "7|CPUBN_NUM_THREADS"


def test_set_num_threads_overrides_the_environment():
    assert python("import cpubn; cpubn.set_num_threads(2); " + COUNT, CPUBN_NUM_THREADS="7") == "2|set_num_threads"


def test_openmp_limits_the_threads():
    need_backend("cython")
    if threads.openmp_threads() is None:
        pytest.skip("built without OpenMP")
    assert python("from cpubn.backends import threads; print(threads.limits()['OpenMP'])", OMP_NUM_THREADS="5") == "5"


WIDE_GROUPS = """
import numpy as np, cpubn
cpubn.set_num_threads(2)
for dtype in "float32", "float64":
    for shape in (3136, 1024), (40, 200, 7, 7), (1, 2048, 7, 7), (2, 70, 300, 300):
        x = np.random.default_rng(0).normal(size=shape).astype(dtype)
        y, m = cpubn.batch_norm(x, None, None, training=True, return_moments=True, backend="cython")
        cpubn.batch_norm_backward(y, x, m.mean, m.var(), backend="cython")
print("done")
"""


def test_workers_need_no_more_than_a_small_stack():
    """musl gives a thread 128 KB where nobody says otherwise; no check stands between a worker and its end."""
    need_backend("cython")
    assert python(WIDE_GROUPS, OMP_STACKSIZE="112k") == "done"


def test_the_smallest_limit_is_the_default(monkeypatch):
    monkeypatch.delenv("CPUBN_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "limits", lambda: {"CPU affinity": 8, "cgroup quota": 3, "OpenMP": None})
    assert threads._default.__wrapped__() == (3, "cgroup quota")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_affinity_limits_the_threads():
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    assert python(one + COUNT) == "1|CPU affinity"


V1 = {"cpu.cfs_quota_us": "150000", "cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/a/b", {"a/b/cpu.max": "400000 100000"}, 4),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000"}, 2),
        ("0::/a/b", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "300000 100000", "cpu.max": "max 100000"}, 3),
        ("0::/a", {"a/cpu.max": "50000 100000"}, 1),
        ("0::/a", {"a/cpu.max": "max 100000"}, None),
        ("0::/a", {}, None),
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/../b", {"b/cpu.max": "200000 100000"}, 2),
        ("0::/named/outside", {"cpu.max": "200000 100000"}, 2),
        ("4:memory:/m\n3:cpu,cpuacct:/a:b\n0::/", {f"cpu,cpuacct/a:b/{name}": text for name, text in V1.items()}, 1),
        ("3:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, None),
        ("3:cpu:/named/outside", {"cpu/cpu.cfs_quota_us": "700000", "cpu/cpu.cfs_period_us": "100000"}, 7),
        ("3:cpuset:/a", {f"cpuset/a/{name}": text for name, text in V1.items()}, None),
        ("1:cpu:/a\n0::/b", {"cpu/a/cpu.cfs_quota_us": "0", "unified/b/cpu.max": "600000 100000"}, 6),
        ("0::/a", {"a/cpu.max": "nonsense"}, None),
    ],
)
def test_cgroup_quota(tmp_path, membership, files, expected):
    own = tmp_path / "cgroup"
    own.write_text(membership + "\n")
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert cpus.quota(str(own), str(tmp_path / "fs")) == expected


def test_cgroup_quota_without_cgroups(tmp_path):
    assert cpus.quota(str(tmp_path / "none"), str(tmp_path)) is None
