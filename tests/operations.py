"""What a call of each operation computes of arrays as they are laid, and the truth of that, by name with its bounds."""

import masked
import numpy as np
import oracle
import views
from passes import dtype_of

import cpubn

LAYERS = {2: cpubn.BatchNorm1d, 3: cpubn.BatchNorm1d, 4: cpubn.BatchNorm2d, 5: cpubn.BatchNorm3d}
MOMENTUM = 0.25


def statistics(call):
    if call.weights is None:
        mean, var = oracle.moments(call.x, call.layout)
        return mean, var, call.x.size // call.channels
    return masked.moments(call.x, call.weights, call.layout)


def truth_of_moments(call):
    mean, var, count = statistics(call)
    mean_bound, var_bound = oracle.moments_bounds(mean, var, call.x.dtype)
    return {
        "mean": (mean, mean_bound),
        "var": (var, var_bound),
        "count": (np.float64(count), 1e-13 * np.float64(count)),
    }


def of_moments(m):
    return {"mean": m.mean, "low": m.low, "m2": m.m2, "var": m.var(), "count": m.count}


def moments(call, x, dy, how):
    return of_moments(cpubn.moments(x, **how))


def moments_of_parts(call, x, dy, how):
    first, second = ({n: v if isinstance(v, str) else v[part] for n, v in call.how.items()} for part in parts_of(call))
    a, b = parts_of(call)
    how = {n: v for n, v in how.items() if n not in call.how}
    return of_moments(cpubn.moments(x[a], **how, **first) + cpubn.moments(x[b], **how, **second))


def parts_of(call):
    return slice(call.cut), slice(call.cut, None)


def moved(y, layout, other):
    return np.moveaxis(y, *{("NCHW", "NHWC"): (1, -1), ("NHWC", "NCHW"): (-1, 1)}.get((layout, other), (0, 0)))


def y_options(call, x, how):
    """Arguments that say what y is like, and which array it is written to."""
    dtype = dtype_of(call.dtype) if call.dtype else x.dtype.newbyteorder("=")
    out_layout = call.out_layout or call.layout
    if call.into == "in place" and dtype == x.dtype and out_layout == call.layout and x.flags.writeable:
        out = x
    elif call.into == "new":
        out = None
    else:
        out = np.zeros(moved(call.x, call.layout, out_layout).shape, dtype)[..., ::-1]
    return how | {"dtype": call.dtype, "out_layout": call.out_layout, "out": out}


def y_of(call, x, got, options):
    out = options["out"]
    assert got is out or out is None
    assert got.dtype == (options["dtype"] or x.dtype.newbyteorder("="))
    if out is None and call.out_layout is None:
        assert views.keeps_order(got, x)
    return moved(got, call.out_layout or call.layout, call.layout)


def truth_of_y(call, mean, var):
    _, _, weight, bias = call.vectors
    x = call.x if call.weights is None else masked.clean(call.x, call.weights, mean, call.layout)
    computed_in = np.float64 if call.x.dtype == np.float64 else np.float32
    z = oracle.batch_norm(x, mean, var, weight, bias, call.eps, call.layout, computed_in)
    stored = dtype_of(call.dtype) if call.dtype else call.x.dtype
    bound = z.bound + oracle.rounding(z.y, stored)
    if stored != computed_in:
        bound = bound + 2.0**-24 * abs(z.y)
    if call.weights is None:
        return z.y, bound
    return np.where(call.weights > 0, z.y, 0), np.where(call.weights > 0, bound, 0)


def training(call, x, dy, how):
    options, moving = y_options(call, x, how), [v.copy() for v in call.vectors[:2]]
    y, batch = cpubn.batch_norm(x, *moving, *call.vectors[2:], True, MOMENTUM, call.eps, return_moments=True, **options)
    return {"y": y_of(call, x, y, options), "running_mean": moving[0], "running_var": moving[1]} | of_moments(batch)


def truth_of_training(call):
    mean, var, count = statistics(call)
    of_batch = truth_of_moments(call)
    share = np.where(count > 0, MOMENTUM, 0)
    unbiased = count / np.where(count > 0, count - 1, 1)
    running_mean, running_var = (oracle.long(v) for v in call.vectors[:2])
    running_mean = (1 - share) * running_mean + share * mean
    running_var = (1 - share) * running_var + share * unbiased * var
    return of_batch | {
        "y": truth_of_y(call, mean, var),
        "running_mean": (running_mean, of_batch["mean"][1] + 2.0**-52 * abs(running_mean)),
        "running_var": (running_var, unbiased * of_batch["var"][1] + 2.0**-50 * abs(running_var)),
    }


def inference(call, x, dy, how):
    options = y_options(call, x, how)
    return {"y": y_of(call, x, cpubn.batch_norm(x, *call.vectors, eps=call.eps, **options), options)}


def frozen(call, x, dy, how):
    options = y_options(call, x, how)
    mean, var, weight, bias = call.vectors
    named = {"running_mean": mean, "running_var": var, "weight": weight, "bias": bias, "eps": call.eps}
    norm = cpubn.FrozenBatchNorm(**named, **{n: v for n, v in options.items() if n != "out"})
    return {"y": y_of(call, x, norm(x, out=options["out"]), options)}


def truth_of_inference(call):
    return {"y": truth_of_y(call, *call.vectors[:2])}


def dx_options(call, x, dy, how):
    out = {"new": None, "in order": np.zeros_like(call.x)[..., ::-1], "in place": dy}[call.into]
    writable = out is None or (out.flags.writeable and out.dtype.isnative)
    return how | {"out": out if writable else None}


def gradients(call, x, dx, dweight, dbias, options):
    assert dx is options["out"] or options["out"] is None
    assert dx.dtype == call.x.dtype
    if options["out"] is None:
        assert views.keeps_order(dx, x)
    return {"dx": dx, "dweight": dweight, "dbias": dbias}


def backward(call, x, dy, how):
    batch, options = cpubn.moments(x, **how), dx_options(call, x, dy, how)
    got = cpubn.batch_norm_backward(dy, x, batch, batch.var(), call.vectors[2], eps=call.eps, **options)
    return gradients(call, x, *got, options)


def backward_of_inference(call, x, dy, how):
    mean, var, weight, _ = call.vectors
    options = dx_options(call, x, dy, how)
    got = cpubn.batch_norm_backward(dy, x, mean, var, weight, eps=call.eps, training=False, **options)
    return gradients(call, x, *got, options)


def backward_of_parts(call, x, dy, how):
    batch, weight, parts = cpubn.moments(x, **how), call.vectors[2], parts_of(call)
    fixed = batch, batch.var(), weight
    sums = sum(cpubn.gradient_sums(dy[p], x[p], *fixed, eps=call.eps, **how) for p in parts)
    got = [cpubn.batch_norm_backward(dy[p], x[p], *fixed, eps=call.eps, sums=sums, **how) for p in parts]
    for first, second in zip(got[0][1:], got[1][1:], strict=True):
        np.testing.assert_array_equal(first, second)
    return {"dx": np.concatenate([dx for dx, *_ in got]), "dweight": got[0][1], "dbias": got[0][2]}


def truth_of_gradients(call, mean, var, training):
    weight = call.vectors[2]
    if call.weights is None:
        exact = oracle.batch_norm_backward(call.dy, call.x, mean, var, weight, call.eps, training, call.layout)
    else:
        exact = masked.backward(call.dy, call.x, call.weights, mean, var, weight, call.eps, call.layout)
        if not training:
            counts = call.weights > 0
            r = 1 / np.sqrt(oracle.per_channel(var, call.x, call.layout, 1.0) + call.eps)
            dx = np.where(counts, oracle.long(call.dy), 0) * r * oracle.per_channel(weight, call.x, call.layout, 1.0)
            bound = oracle.precision(call.x.dtype) * abs(dx) + oracle.rounding(dx, call.x.dtype)
            exact = exact._replace(dx=dx, dx_bound=np.where(counts, bound, 0))
    return {name: (getattr(exact, name), getattr(exact, f"{name}_bound")) for name in ("dx", "dweight", "dbias")}


def truth_of_backward(call):
    mean, var, _ = statistics(call)
    return truth_of_gradients(call, mean, var, True)


def truth_of_backward_of_inference(call):
    return truth_of_gradients(call, *call.vectors[:2], False)


def layer(call, x, dy, how):
    """A step of training and one of inference, by what the first one moved."""
    bn = LAYERS[x.ndim](call.channels, call.eps, layout=call.layout, dtype="float64", backend=how["backend"])
    bn.weight[...], bn.bias[...] = call.vectors[2:]
    y = bn(x, **call.how)
    dx = bn.backward(dy)
    return {"y": y, "dx": dx, "dweight": bn.weight_grad, "dbias": bn.bias_grad, "moved": bn.running_mean}


def truth_of_layer(call):
    mean, var, _ = statistics(call)
    return truth_of_gradients(call, mean, var, True) | {"y": truth_of_y(call._replace(dtype=None), mean, var)}


OPERATIONS = {
    "moments": (moments, truth_of_moments),
    "moments of parts": (moments_of_parts, truth_of_moments),
    "training": (training, truth_of_training),
    "inference": (inference, truth_of_inference),
    "frozen": (frozen, truth_of_inference),
    "backward": (backward, truth_of_backward),
    "backward of inference": (backward_of_inference, truth_of_backward_of_inference),
    "backward of parts": (backward_of_parts, truth_of_backward),
    "layer": (layer, truth_of_layer),
}
OF_INTEGERS = "moments", "moments of parts", "inference", "frozen"
WITHOUT_MASKS = "frozen", "backward of parts"
