"""Which instruction set the Cython kernels run on: looked up in what was built and in what this CPU has."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib import import_module
from operator import attrgetter
from types import ModuleType
from typing import Any

from cpubn.machine.isa import INSTRUCTION_SETS, InstructionSet
from cpubn.maths.activations import TABLE

BY_NAME = {variant.name: variant for variant in INSTRUCTION_SETS}
# What the kernels of every instruction set define, as planner.pyi lists it.
NAMES = (
    "ANY_TYPE",
    "moments",
    "normalize",
    "train_forward",
    "gradient_sums",
    "backward",
    "pack_signs",
)
CALLS = "affine", "infer", "train", "moments", "witness", "backward"  # as calls.pyi has them


@cache
def instruction_set() -> str:
    """The best instruction set that is there, or CPUBN_ISA; ValueError where there is none, or not that one."""
    forced = os.environ.get("CPUBN_ISA")
    if not forced:
        there = [name for name in BY_NAME if absence(name) is None]
        if not there:
            raise ValueError(absence("baseline"))
        return there[-1]
    if forced not in BY_NAME:
        raise ValueError(
            f"CPUBN_ISA must be one of {', '.join(BY_NAME)}, got {forced!r}; unset it to take the best that is there"
        )
    reason = absence(forced)
    if reason is not None:
        raise ValueError(f"CPUBN_ISA must name an instruction set that is there, got {forced!r}: {reason}; unset it")
    return forced


def load(name: str) -> Any:
    """The kernels of one instruction set. Not to be called where the CPU lacks it: its very import may be illegal."""
    return _kernels(planner(), import_module(f"cpubn.backends.compiled.{name}"), name)


@cache
def _kernels(planner: ModuleType, variant: ModuleType, name: str) -> Any:
    clips, by_output = [e for e in TABLE if e.is_clip], [e for e in TABLE if e.of_output is not None]
    if variant.activations != tuple([e.name for e in entries] for entries in (TABLE, clips, by_output)):
        raise AttributeError(f"it has the activations {', '.join(variant.activations[0])}")
    return planner.CompiledKernels(variant.table, name)


def calls(kernels: Any, threads: Callable[[int], int]) -> Any:
    """What takes whole calls to an instruction set's kernels; `threads` is a function of the bytes that one reads."""
    return _calls().Calls(kernels, threads)


def _calls() -> Any:
    """What turns calls into jobs; ImportError where it was not built."""
    return import_module("cpubn.backends.compiled.calls")


@cache  # each call with a tensor asks
def borrowed() -> Any:
    """What makes arrays of tensors for the time of a call; ImportError where it was not built."""
    return import_module("cpubn.backends.compiled.tensors").borrowed


def entries() -> Any:
    """What gives C a table of functions; ImportError where it was not built."""
    return import_module("cpubn.backends.compiled.entries")


def planner() -> Any:
    """What all instruction sets have in common; ImportError where it was not built."""
    return import_module("cpubn.backends.compiled.planner")


@cache
def absence(name: str) -> str | None:
    """Why the kernels of one instruction set cannot be used, or None where they can."""
    variant = BY_NAME[name]
    if variant.feature is not None:
        baseline = absence("baseline")
        if baseline is not None:
            return baseline
        if not cpu_has(variant):
            return f"this CPU lacks {variant.feature}"
    try:
        attrgetter(*NAMES)(load(name))
        attrgetter(*CALLS)(_calls().Calls)
        borrowed()
    except ImportError as error:
        return _why_not_built(name) or f"{error}; reinstall cpubn with this Python"
    except AttributeError as error:
        return f"the compiled kernels are out of date ({error}); reinstall with pip install -e ."
    return None


def cpu_has(variant: InstructionSet) -> bool:
    """Whether this CPU runs a variant, as far as the baseline kernels can tell."""
    if variant.feature is None:
        return True
    features: frozenset[str] = planner().cpu_features()
    return variant.feature in features


def build_report() -> dict[str, Any] | None:
    """What setup.py wrote about the build of the extensions; None where cpubn was not installed by it."""
    import json  # here, because few need it: `import cpubn` is to be quick

    try:
        with open(f"{os.path.dirname(__file__)}/_build.json", encoding="utf-8") as file:
            report: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        return None
    return report


def _why_not_built(name: str) -> str | None:
    report = build_report()
    if report is None:
        return "the extension was not built; install cpubn with pip install ."
    reason: str | None = report["variants"].get(name, {}).get("reason")
    return reason and f"the extension was not built: {reason}"
