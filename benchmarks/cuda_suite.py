"""What bench_cuda.py runs, and its tables: every pass of a case by everyone, and what a call costs the host."""

import datetime
import functools
import itertools
import math
import platform
import shutil
import subprocess
from typing import NamedTuple
from unittest import mock

import numba
import numpy as np
from cuda_case import COPIES, OURS, Case, buffers_for, ours, theirs
from cuda_timing import Sampler, host_seconds, interleaved
from numba import cuda

import cpubn
from cpubn.backends.gpu import passes
from cpubn.bench.measure import Timing
from cpubn.bench.tables import TITLES, Cell, Grid, duration, ratio, share

TRAFFIC = {"eval": 2, "train": 2, "backward": 3, "copy": 2}  # arrays of x's size that are read or written, at the least
GOALS = {"eval": 0.9, "train": 0.6, "backward": 0.6}  # shares of the copy's bandwidth
SMALL, CALL_GOALS, MOST_LAUNCHES = (8, 16, 7, 7), {"train": 150e-6, "eval": 60e-6}, 4


class Record(NamedTuple):
    """One contestant, in one pass over one tensor."""

    op: str
    shape: tuple[int, ...]  # channels on axis 1
    layout: str
    dtype: str
    name: str
    nbytes: int
    timing: Timing
    error: float  # max |got - expected| / max(1, |expected|)

    @property
    def bandwidth(self) -> float:
        return self.nbytes / self.timing.median


def records_of(shape, layout, dtype, span, rounds, torch, noted):
    """Everyone on one case, pass by pass, with the copies beside them; a peer that fails is noted and left out."""
    where = f"{name_of(shape)} {layout} {dtype}"
    size = math.prod(shape) * np.dtype(dtype).itemsize
    needed, free = (4 * buffers_for(size, span) + 3) * size, cuda.current_context().get_memory_info().free
    if needed > free:
        noted[where] = f"it needs {needed / 1e9:.1f} GB of the GPU's memory, and {free / 1e9:.1f} are free"
        return
    case = Case(shape, layout, dtype, span)
    calls = ours(case)
    if torch:
        try:
            peers = theirs(case, torch)
            calls = {op: calls[op] | peers[op] for op in calls}
        except Exception as error:
            noted[f"torch, {where}"] = str(error)
    for op in GOALS:
        samplers, errors, truth = {}, {}, case.expected(op)
        for name, call in (calls["copy"] | calls[op]).items():
            try:
                errors[name] = 0.0 if name in COPIES else case.check(name, call, *truth)
                samplers[name] = Sampler(call, len(case.buffers))
            except Exception as error:
                if name in OURS:
                    raise
                noted[f"{name}, {op} {where}"] = str(error)
        timings = interleaved({name: sampler.seconds for name, sampler in samplers.items()}, rounds)
        for name, measured in timings.items():
            nbytes = TRAFFIC["copy" if name in COPIES else op] * case.x.nbytes
            yield Record(op, case.shape, case.layout, case.dtype, name, nbytes, measured, errors[name])
            if samplers[name].starved:
                noted[f"{name}, {op} {where}"] = (
                    f"the GPU may have waited for the host in {samplers[name].starved} samples"
                )


def costs_of_calls(rounds):
    """Host seconds of a warm call on a small tensor, and its launches."""
    case = Case(SMALL, "NCHW", "float32", 0)
    made, (x, _, y) = ours(case), case.buffers[0]
    layer = cpubn.BatchNorm2d(case.channels).to_device()
    calls = {
        ("training", "train"): lambda: made["train"]["cpubn"](0),
        ("training, by a layer", "train"): lambda: layer(x, out=y),
        ("inference", "eval"): lambda: made["eval"]["cpubn"](0),
        ("inference, frozen", "eval"): lambda: made["eval"]["cpubn-frozen"](0),
    }
    launches = {key: launches_of(call) for key, call in calls.items()}
    timings = interleaved({key: functools.partial(host_seconds, call) for key, call in calls.items()}, rounds)
    return [
        {"call": key[0], "timing": timings[key], "goal": CALL_GOALS[key[1]], "launches": launches[key]} for key in calls
    ]


def launches_of(call):
    call()  # compiles
    with mock.patch.object(passes, "run", wraps=passes.run) as launch:
        call()
    return launch.call_count


def name_of(shape):
    return "x".join(map(str, shape))


def passes_grid(records):
    peers = list(dict.fromkeys(r.name for r in records if r.name not in (*OURS, *COPIES)))
    lines = []
    for _, group in itertools.groupby(records, key=lambda r: r[:4]):
        by_name = {r.name: r for r in group}
        lines += [line_of(by_name[name], by_name, peers) for name in OURS if name in by_name]
    met = sum(line[-1].text == "met" for line in lines)
    heads = ["pass", "layer", "time", "GB/s", "copy's GB/s", "share", "goal", *peers, "goals"]
    title = f"Speed on the GPU, and how many times as long torch takes: goals met in {met} of {len(lines)}"
    return Grid(title, heads, lines)


def line_of(own, by_name, peers):
    """One of ours beside the faster copy and the peers: as fast as each of them, at the share that is the goal?"""
    copy = max(by_name[name].bandwidth for name in COPIES if name in by_name)
    goal = GOALS[own.op]
    ratios = {name: by_name[name].timing.median / own.timing.median for name in peers if name in by_name}
    missed = ["copy"] * (own.bandwidth < goal * copy) + [name for name, value in ratios.items() if value < 1]
    texts = (
        TITLES[own.op] + (", frozen" if own.name == "cpubn-frozen" else ""),
        f"{name_of(own.shape)} {own.layout} {own.dtype}",
        duration(own.timing.median),
        *(f"{bandwidth / 1e9:.0f}" for bandwidth in (own.bandwidth, copy)),
    )
    figures = [share(own.bandwidth / copy), Cell(str(goal)), *(ratio(ratios.get(name), name) for name in peers)]
    return [*map(Cell, texts), *figures, Cell(f"missed: {', '.join(missed)}" if missed else "met")]


def calls_grid(costs):
    lines = []
    for cost in costs:
        met = cost["timing"].median <= cost["goal"] and cost["launches"] <= MOST_LAUNCHES
        texts = cost["call"], duration(cost["timing"].median), duration(cost["goal"]), str(cost["launches"])
        lines.append([*map(Cell, texts), Cell("met" if met else "missed")])
    title = f"Host time of a warm call on a {name_of(SMALL)} tensor; at most {MOST_LAUNCHES} launches"
    return Grid(title, ["call", "time", "goal", "launches", "goals"], lines)


def circumstances(rounds, torch):
    versions = {"cpubn": cpubn.__version__, "numba": numba.__version__, "numpy": np.__version__}
    if torch:
        versions |= {"torch": torch.__version__, "cuDNN": str(torch.backends.cudnn.version())}
    return {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "rounds": rounds,
        "versions": versions,
        "noted": {},
    } | device_facts()


def device_facts():
    device = cuda.current_context().device
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    version, smi = cuda.cudadrv.driver.get_version(), shutil.which("nvidia-smi")
    asked = [smi, "--query-gpu=driver_version", "--format=csv,noheader", "-i", str(device.id)]
    driver = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() if smi else "unknown"
    return {
        "device": name,
        "compute_capability": ".".join(map(str, device.compute_capability)),
        "driver": driver,
        "cuda": ".".join(map(str, version)),
        "l2_bytes": getattr(device, "L2_CACHE_SIZE", 0),
    }
