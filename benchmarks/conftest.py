"""What the benchmarks run over: the layers and contestants of cpubn.bench, chosen by options."""

from functools import cache

import pytest

from cpubn.bench.contestants import LIBRARIES, gather
from cpubn.bench.edge import case_of
from cpubn.bench.layers import MODELS, OWN_LAYERS, layers_of


def pytest_addoption(parser):
    group = parser.getgroup("cpubn")
    group.addoption("--model", choices=MODELS, default="standard", help="whose layers")
    group.addoption("--batch", type=int, nargs="+", help="batch sizes")
    group.addoption("--threads", type=int, default=2, help="of every library")
    group.addoption("--libraries", default=",".join(LIBRARIES), help="some of these, with commas between")


@cache
def field_of(threads, libraries):
    return gather(threads, tuple(libraries.split(",")))


@cache
def running_case(op, layer):
    """The one that is running; the arrays of the one before are let go."""
    running_case.cache_clear()
    return case_of(op, layer)


def op_of(test):
    return test.__name__.removeprefix("test_")


def pytest_report_header(config):
    field = field_of(config.getoption("threads"), config.getoption("libraries"))
    versions = ", ".join(f"{name} {version}" for name, version in field.versions.items())
    return [f"cpubn.bench: {versions}", *(f"absent: {name}: {why}" for name, why in field.absent.items())]


def pytest_generate_tests(metafunc):
    """Every contestant that can do the pass that the test is named after, layer by layer."""
    option = metafunc.config.getoption
    op = op_of(metafunc.function)
    layers = OWN_LAYERS.get(op) or layers_of(option("model"), option("batch"))
    if op.startswith(("train", "backward")):
        layers = [layer for layer in layers if layer.samples > 1]
    contestants = [c for c in field_of(option("threads"), option("libraries")).contestants if op in c.passes]
    metafunc.parametrize("contestant", contestants, ids=[f"{c.name}-{c.layout}" for c in contestants])
    metafunc.parametrize("layer", layers, ids=[f"{layer.model}-{layer.name}" for layer in layers])


@pytest.fixture
def timed(request, benchmark, layer, contestant):
    """Set up, check against the formula in float64, then time."""
    op = op_of(request.function)
    case = running_case(op, layer)
    prepared = contestant.passes[op](case, contestant.layout)
    assert case.error(prepared, contestant.layout) <= case.tolerance
    benchmark.group = f"{op} {layer.name}"
    benchmark.extra_info.update(contestant=contestant.name, layout=contestant.layout, nbytes=case.nbytes)

    def run():
        benchmark(prepared.call)

    return run
