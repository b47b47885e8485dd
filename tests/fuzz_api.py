"""Hostile arguments to the whole public surface: a program, and what test_fuzz_api.py runs.

    python tests/fuzz_api.py [--seconds 60] [--seed 0] [--only NAME]

Calls are made in a child process, each from its number alone: valid ones, of which up to three arguments were changed
for others of a list of what users, files and mistakes bring. Failures are a signal, a call that takes a minute, an
exception other than ValueError and TypeError (of a layer's state, RuntimeError), anything written beside what the call
may write, and anything at all written by a call that was refused.
"""

import argparse
import faulthandler
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
from hostile import ACTIVATIONS, DTYPES, NUMBERS, SHAPE, WORDS, Memory, hostile_array, pick, samples, vector

import cpubn
from cpubn import convert
from cpubn.ask.policies import CHOICES

BACKENDS = [name for name in ("cython", "numpy") if name in cpubn.available_backends()]
HANG = 60  # seconds
REFUSED = ValueError, TypeError


class Call:
    """A function and its arguments; which of them it may write into."""

    def __init__(self, function, writes=(), **arguments):
        self.function, self.writes, self.arguments = function, writes, arguments

    def changed(self, memory):
        """With up to three arguments of another kind."""
        rng = memory.rng
        for _ in range(pick(rng, (0, 1, 1, 2, 3))):
            name = pick(rng, sorted(self.arguments))
            self.arguments[name] = pick(rng, (
                lambda: hostile_array(memory), lambda: hostile_array(memory), lambda: pick(rng, NUMBERS),
                lambda: pick(rng, WORDS), lambda: pick(rng, ACTIVATIONS), lambda: pick(rng, DTYPES),
                lambda: pick(rng, list(self.arguments.values())),
            ))()  # fmt: skip
        return self


def how(rng):
    return {"layout": pick(rng, ("NCHW", "NCHW", "NHWC")), "backend": pick(rng, BACKENDS)}


def counted(memory):
    """What says which elements count, where anything does."""
    rng = memory.rng
    given = {"mask": None, "lengths": None, "weights": None, "nan": pick(rng, ("propagate", "propagate", "omit"))}
    if rng.random() < 0.3:
        given["mask"] = memory.lay(rng.random(pick(rng, (SHAPE, (4, 5, 6), (4, 3, 5), (4, 1, 1, 1)))) < 0.7)
    if rng.random() < 0.3:
        own = rng.integers(0, 4, pick(rng, (SHAPE, (4, 5, 6), (4,))))
        given["weights"] = memory.lay(own.astype(pick(rng, ("f4", "f8", "f2", "u1", ">f4"))))
    if rng.random() < 0.1:
        given["lengths"] = memory.lay(rng.integers(-1, 7, 4))
    return given


def policies(rng):
    """What is done with batches that give no statistics, or wrong ones."""
    return {name: pick(rng, (choices[0], *choices)) for name, choices in CHOICES.items()}


def forward(memory):
    rng = memory.rng
    x = samples(memory, kind=pick(rng, ("e", "f", "f", "d")))
    given = {"x": x, "running_mean": vector(memory), "running_var": vector(memory, low=0.0), "weight": vector(memory)}
    given |= {"bias": vector(memory), "training": pick(rng, (True, False)), "momentum": 0.1, "eps": 1e-5}
    given |= {"activation": pick(rng, ACTIVATIONS[:10]), "residual": None, "dtype": None, "out_layout": None}
    given |= {"out": pick(rng, (None, x, memory.lay(np.zeros_like(x)))), "return_moments": False}
    given |= counted(memory) | {"masked_output": 0.0} | policies(rng)
    return Call(cpubn.batch_norm, ("out", "running_mean", "running_var"), **given, **how(rng))


def backward(memory):
    rng = memory.rng
    x, kind = samples(memory), pick(rng, (True, False))
    given = {"dy": samples(memory), "x": x, "mean": vector(memory), "var": vector(memory, low=0.0)}
    given |= {"weight": vector(memory), "eps": 1e-5, "training": kind, "bias": vector(memory), "residual": None}
    given |= {"activation": pick(rng, ACTIVATIONS[:10]), "y": None, "out": pick(rng, (None, x, samples(memory)))}
    return Call(cpubn.batch_norm_backward, ("out",), **given, **counted(memory), **how(rng))


def part(memory):
    """Both halves of backward, the second by the sums of the first."""
    rng = memory.rng
    x, dy = samples(memory), samples(memory)
    given = {"dy": dy, "x": x, "mean": cpubn.moments(np.ones((9, 3))), "var": vector(memory, low=0.0)}
    given |= {"weight": vector(memory), "eps": 1e-5, "bias": vector(memory), "residual": None, "y": None}
    given["activation"] = pick(rng, ACTIVATIONS[:10])
    if rng.random() < 0.5:
        return Call(cpubn.gradient_sums, **given, **how(rng))
    given |= {"sums": memory.lay(rng.normal(size=(2, 3))), "out": pick(rng, (None, dy))}
    return Call(cpubn.batch_norm_backward, ("out",), **given, **how(rng))


def layer(memory):
    """Made, called, called backward, frozen, saved and loaded, in any order."""
    rng = memory.rng
    kind = pick(rng, (cpubn.BatchNorm1d, cpubn.BatchNorm2d, cpubn.BatchNorm3d))
    actions = [pick(rng, ("call", "call", "backward", "eval", "freeze", "load", "no_grad", "repr")) for _ in range(4)]

    def run(x, dy, residual, out, state, num_features, **constants):
        if isinstance(num_features, int) and 2**20 < num_features < 2**40:
            raise ValueError("so many channels are right, and take gigabytes")
        bn = kind(num_features, **constants)
        for action in actions:
            try:
                if action == "call":
                    bn(x, residual, out)
                elif action == "backward":
                    bn.backward(dy, out=out)
                elif action == "load":
                    bn.load_state_dict(bn.state_dict() if state is None else state)
                elif action == "no_grad":
                    with cpubn.no_grad():
                        bn(x)
                else:
                    getattr(bn, {"eval": "eval", "freeze": "freeze", "repr": "__repr__"}[action])()
            except RuntimeError as error:
                if type(error) is not RuntimeError or "backward" not in str(error):
                    raise

    shape = SHAPE if kind is cpubn.BatchNorm2d else (4, 3, 5) if kind is cpubn.BatchNorm1d else (*SHAPE, 2)
    given = {name: samples(memory, shape) for name in ("x", "dy", "out")} | {"residual": None, "state": None}
    given |= {"num_features": 3, "eps": 1e-5, "momentum": pick(rng, (0.1, None)), "affine": True}
    given |= {"track_running_stats": True, "activation": pick(rng, ACTIVATIONS[:10]), "dtype": "float32"}
    return Call(run, ("out",), **given, **policies(rng), **how(rng))


def frozen(memory):
    rng = memory.rng
    quantized = rng.random() < 0.4

    def run(x, residual, out, scale, zero_point, out_scale, out_zero_point, dtype, out_layout, **constants):
        if quantized:
            numbers = {"scale": scale, "zero_point": zero_point}
            numbers |= {"out_scale": out_scale, "out_zero_point": out_zero_point}
            cpubn.FrozenBatchNorm.quantized(**constants, **numbers)(x, residual, out)
        else:
            cpubn.FrozenBatchNorm(**constants, dtype=dtype, out_layout=out_layout)(x, residual, out)

    x = samples(memory, kind="b" if quantized else "f")
    given = {"x": x, "residual": None, "out": pick(rng, (None, x)), "dtype": None, "out_layout": None, "eps": 1e-5}
    given |= {"scale": 0.1, "zero_point": 3, "out_scale": 0.2, "out_zero_point": -5, "weight": vector(memory)}
    given |= {"bias": vector(memory), "running_mean": vector(memory), "running_var": vector(memory, low=0.0)}
    return Call(run, ("out",), **given, activation=pick(rng, ACTIVATIONS[:2]), **how(rng))


def norm(memory):
    return cpubn.FrozenBatchNorm(weight=None, bias=None, running_mean=np.zeros(3), running_var=np.ones(3))


def folds(memory):
    rng = memory.rng
    weight = samples(memory, (3, 3, 2, 2))
    given = {"weight": weight, "bias": vector(memory), "bn": norm(memory)}
    if rng.random() < 0.3:
        return Call(
            pick(rng, (cpubn.fold_linear, cpubn.fold_into_next_linear)), **given | {"weight": weight[..., 0, 0]}
        )
    given |= {"groups": 1, "transposed": pick(rng, (True, False)), "kernel_layout": "OIHW"}
    if rng.random() < 0.3:
        pair = np.zeros((3, 3, 2, 2), "f4"), np.zeros(3, "f4")
        return Call(cpubn.verify_fold, **given, folded=pair, x=samples(memory), stride=1)
    given["pooling"] = None
    return Call(pick(rng, (cpubn.fold_conv, cpubn.fold_into_next_conv)), **given)


def statistics(memory):
    rng = memory.rng
    which = pick(rng, ("moments", "Moments", "health", "merge", "recalibrate"))
    if which == "moments":
        kind = pick(rng, ("f", "d", "e", "B"))
        return Call(cpubn.moments, x=samples(memory, kind=kind), **counted(memory), **how(rng))
    given = {"count": 9, "mean": vector(memory), "m2": vector(memory, low=0.0), "low": np.zeros(3)}
    if which == "Moments":
        return Call(lambda ddof, **of: (m := cpubn.Moments(**of)).var(ddof) + (m + m).std(), ddof=1, **given)
    if which == "health":
        return Call(cpubn.health, layers_or_norms={"bn": norm(memory)}, batch=None)
    if which == "recalibrate":
        bn = cpubn.BatchNorm2d(3)
        given = {"layers": bn, "forward": bn, "batches": samples(memory), "layer_by_layer": False, "batch_size": 2}
        return Call(cpubn.recalibrate, **given, progress=False)
    return Call(lambda x, y: cpubn.moments(x).update(y).remove(cpubn.moments(y)), x=samples(memory), y=samples(memory))


def conversion(memory):
    rng = memory.rng
    state = {"bn.running_mean": vector(memory), "bn.running_var": vector(memory, low=0.0), "bn.weight": vector(memory)}
    state |= {"bn.bias": vector(memory), "bn.num_batches_tracked": np.array(3)}
    if rng.random() < 0.5:
        state[pick(rng, sorted(state))] = hostile_array(memory)
    if rng.random() < 0.5:
        return Call(convert.from_torch, source=state, eps=1e-5, momentum=0.1)
    vectors = {name.partition(".")[2]: state[name] for name in sorted(state)[:1] + sorted(state)[2:]}
    writers = pick(rng, (convert.to_torch, convert.to_keras, convert.to_flax))
    return Call(lambda eps, layout, dtype, **v: writers({"bn": convert.Norm(eps=eps, layout=layout, **v)}, dtype=dtype),
                eps=1e-5, layout="NCHW", dtype="float32", **vectors)  # fmt: skip


def others(memory):
    rng = memory.rng
    which = pick(rng, ("images", "surround", "threads", "backend"))
    if which == "images":
        images = samples(memory, (2, 5, 6, 3), "B")
        given = {
            "images": images,
            "mean": vector(memory),
            "std": vector(memory, low=0.1),
            "scale": 1 / 255,
            "out": None,
        }
        return Call(cpubn.normalize_images, ("out",), **given, out_layout="NCHW", dtype="float32")
    if which == "surround":
        padding = pick(rng, (1, (1, 2), ((1, 0), (0, 2)), -1, 2**63, (1,) * 9, "1", None, 1.5))
        return Call(cpubn.surround, x=samples(memory), padding=padding, values=vector(memory), layout="NCHW")
    if which == "threads":
        return Call(cpubn.set_num_threads, n=pick(rng, (1, 2, 3, None, *NUMBERS)))

    def inside(name):
        with cpubn.use_backend(name):
            cpubn.get_backend()

    return Call(inside, name=pick(rng, (*BACKENDS, *WORDS, *NUMBERS)))


MAKERS = {
    maker.__name__: maker for maker in (forward, backward, part, layer, frozen, folds, statistics, conversion, others)
}


def trial(number, only):
    """What is wrong with the call of this number, or None."""
    rng = np.random.default_rng(number)
    memory = Memory(rng)
    name = only or pick(rng, sorted(MAKERS))
    call = MAKERS[name](memory).changed(memory)
    writable = [call.arguments.get(argument) for argument in call.writes]
    try:
        call.function(**call.arguments)
    except OSError:
        if name not in ("conversion", "statistics"):  # where a word may be taken for the name of a file
            return f"{name}: {traceback.format_exc()}"
    except REFUSED:
        # A layer's script of several calls may have written with the first of them.
        writable = writable if name == "layer" else []
    except Exception:
        return f"{name}: {traceback.format_exc()}"
    return f"{name}: memory that the call may not write was written" if memory.changed(writable) else None


def child(seconds, seed, only):
    warnings.simplefilter("ignore")
    end, number = time.monotonic() + seconds, seed
    while time.monotonic() < end:
        if number % 50 == 0:
            faulthandler.dump_traceback_later(HANG, exit=True)
            print(number, flush=True)
        wrong = trial(number, only)
        if wrong:
            sys.exit(f"call {number}: {wrong}")
        number += 1
    faulthandler.cancel_dump_traceback_later()
    print(f"{number - seed} calls", flush=True)


def run(seconds, seed=0, only=None):
    """What the child process printed last; RuntimeError if it did not end well."""
    command = [sys.executable, "-X", "faulthandler", __file__, "--child", f"--seconds={seconds}", f"--seed={seed}"]
    command += [f"--only={only}"] if only else []
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    *_, last = done.stdout.splitlines() or ["nothing"]
    if done.returncode:
        raise RuntimeError(f"ended with {done.returncode} at or after call {last}:\n{done.stderr[-4000:]}")
    return last


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="the number of the first call")
    parser.add_argument("--only", choices=sorted(MAKERS))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = vars(parser.parse_args())
    if arguments.pop("child"):
        child(**arguments)
    else:
        print(run(**arguments))
