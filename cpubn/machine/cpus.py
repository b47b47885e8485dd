"""The CPUs of this machine: their name, and how many of them this process may use."""

from __future__ import annotations

import os
import platform


def model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return (names or [platform.processor() or platform.machine()])[0]


def usable() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota(membership: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> int | None:
    """Whole CPUs' worth of time that this process's cgroup and all above it, version 1 or 2, leave it; at least 1."""
    quotas = []
    for line in (_read(membership) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounts = [root, f"{root}/unified"]
        elif "cpu" in controllers.split(","):
            mounts = [f"{root}/{controllers}", f"{root}/cpu"]
        else:
            continue
        # A container often sees its own cgroup mounted as the root, under the name that it has outside: then the
        # folders of that name are not there, and the root, the last one looked at, is what counts.
        names = [name for name in path.split("/") if name not in ("", ".", "..")]
        for depth in range(len(names), -1, -1):
            quotas += [_quota("/".join([mount, *names[:depth]])) for mount in mounts]
    known = [quota for quota in quotas if quota is not None]
    return max(1, int(min(known))) if known else None


def _quota(folder: str) -> float | None:
    text = _read(f"{folder}/cpu.max")
    if text is None:
        text = f"{_read(f'{folder}/cpu.cfs_quota_us')} {_read(f'{folder}/cpu.cfs_period_us')}"
    try:
        quota, period = map(int, text.split())
    except ValueError:  # "max 100000", or no such files
        return None
    return quota / period if quota > 0 and period > 0 else None


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return None
