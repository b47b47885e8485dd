"""health(): what it takes, the report as text and as JSON, and trained layers."""

import inspect
import json
from pathlib import Path
from typing import get_args

import norms
import numpy as np
import pytest

import cpubn
from cpubn import convert
from cpubn.inspection.findings import MEANINGS, Kind

RNG = np.random.default_rng(3)


def trained(kind=cpubn.BatchNorm2d, layout="NCHW"):
    """A layer after 60 batches, of whose input channel 2 is constant, and channel 3 narrow about a large mean."""
    bn = kind(4, layout=layout)
    for _ in range(60):
        bn(batch(layout))
    return bn


def batch(layout="NCHW", shift=0.0, spread=1.0):
    x = RNG.normal(1, 2, (16, 4, 5, 5)) * spread + shift
    x[:, 2], x[:, 3] = 0.0, 100 + RNG.normal(0, 3e-6, x[:, 3].shape)
    return (x if layout == "NCHW" else np.moveaxis(x, 1, -1)).astype(np.float32)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_trained_layer(layout):
    """Running variances keep 0.9**60 = 0.0018 of the 1 that they start from, so that neither channel is 0 yet."""
    bn = trained(layout=layout)
    assert [f.kind for f in cpubn.health(bn)[""].findings] == ["equal weights"]
    bn.weight = [0.0, 0.5, 1.0, 2.0]
    bn.momentum = 1.0
    bn(batch(layout))
    report = cpubn.health(bn, batch(layout))[""]
    assert report.channels("dead") == (0, 2)
    assert report.channels("near-constant") == (2, 3)
    assert report.channels("mean drift", "variance drift") == ()
    assert cpubn.health(bn, batch(layout, shift=2.5))[""].channels("mean drift") == (0, 1)
    assert cpubn.health(bn, batch(layout, spread=2.5))[""].channels("variance drift") == (0, 1)


def test_drift_is_the_mean_and_variance_of_what_the_norm_makes():
    bn = norms.trained_layer()
    bn.weight[...], bn.bias[...] = 1, 0
    x = norms.X.astype(np.float64)
    drift, made = cpubn.health(bn, x)[""].drift, cpubn.moments(bn(x))
    np.testing.assert_allclose(drift.deviations, made.mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(drift.ratio, made.var(1) + bn.eps / (bn.running_var + bn.eps), rtol=1e-9)
    np.testing.assert_allclose(drift.distance, np.hypot(drift.deviations, np.sqrt(drift.ratio) - 1))
    assert drift.count == norms.M


def test_batches_add_up():
    bn = norms.trained_layer()
    whole = cpubn.health(bn, np.concatenate(norms.BATCHES))[""].drift
    parts = cpubn.health(bn, sum(map(cpubn.moments, norms.BATCHES)))[""].drift
    np.testing.assert_allclose(parts.distance, whole.distance, rtol=1e-6)
    assert parts.count == whole.count == 4 * norms.M


def test_a_layer_and_what_is_made_of_it_have_the_same_findings():
    bn = trained()
    bn.weight = [0.0, 1e6, 1.0, 2.0]
    expected = cpubn.health(bn).to_dict()
    for norm in (bn.eval(), bn.freeze(), convert.Norm.of(bn)):
        assert cpubn.health(norm).to_dict() == expected


def test_quantized_ones_are_judged_in_real_units():
    given = {"weight": None, "bias": None, "running_mean": np.zeros(2), "running_var": np.array([0.0, 1.0])}
    norm = cpubn.FrozenBatchNorm.quantized(**given, scale=0.1, zero_point=3, out_scale=0.2, out_zero_point=0)
    assert cpubn.health(norm).to_dict() == cpubn.health(cpubn.FrozenBatchNorm(**given)).to_dict()
    with pytest.raises(ValueError, match="must be None for a quantized norm"):
        cpubn.health(norm, np.zeros((4, 2), np.int8))


def test_several_by_name():
    bn = trained()
    report = cpubn.health({"a": bn, "b": cpubn.BatchNorm1d(2)}, {"a": batch()})
    assert list(report) == ["a", "b"]
    assert report["a"].drift is not None
    assert report["b"].drift is None
    assert list(cpubn.health([bn, bn.freeze()])) == ["0", "1"]
    assert len(cpubn.health({})) == len(cpubn.health([])) == 0


def test_text():
    bn = cpubn.BatchNorm1d(8)
    bn.weight[:7], bn.num_batches_tracked = 0, 5
    report = cpubn.health({"net.bn": bn, "well": convert.Norm(np.ones(2), np.ones(2), 1e-5)})
    assert str(report).splitlines() == [
        "2 norms, 10 channels: findings in 1",
        "net.bn: dead: channels 0, 1, 2, 3, 4 and 2 more of 8 (weight 0, or an output that does not vary)",
    ]
    assert repr(report) == "<Health of 2 norms, channels with findings: dead 7>"
    assert repr(report["net.bn"]) == "<net.bn: 8 channels; dead: channels 0, 1, 2, 3, 4 and 2 more of 8>"
    assert repr(report["well"]) == "<well: 2 channels; nothing found>"
    many = cpubn.health([bn] * 30)
    assert str(many).splitlines()[-1] == "and 10 lines more"
    assert str(cpubn.health(convert.Norm(np.ones(1), np.ones(1), 1e-5))) == "1 norm, 1 channel: nothing found"


def test_the_example_in_its_docstring():
    lines = inspect.getdoc(cpubn.health).split(">>> ")
    program = [part.splitlines()[0] for part in lines[1:]]
    printed = []
    exec("\n".join(program), {"cpubn": cpubn, "print": lambda report: printed.append(str(report))})
    assert printed == ["\n".join(lines[-1].splitlines()[1:])]


def test_every_kind_is_described():
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "health.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    for kind in MEANINGS:
        assert f"\n{kind} : " in inspect.getdoc(cpubn.health)
        assert any(kind in row.split("|")[1].strip().split(", ") for row in rows), kind
    assert get_args(Kind) == tuple(MEANINGS)


def test_json_has_all_of_it_and_no_nan():
    bn = trained()
    bn.running_mean[1] = np.nan
    report = cpubn.health({"bn": bn}, {"bn": batch()})
    told = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    (norm,) = told["norms"]
    assert (norm["name"], norm["channels"], norm["eps"]) == ("bn", 4, bn.eps)
    assert norm["findings"][0]["kind"] == "broken"
    assert norm["findings"][0]["channels"] == [1]
    assert norm["drift"]["deviations"][1] is None
    assert set(norm["scale"]) == {"min", "median", "max"}
    assert told["kinds"] == report.kinds


@pytest.mark.parametrize(("given", "batch", "error", "message"), [
    (3, None, TypeError, "layers_or_norms must be a batch norm"),
    ({1: cpubn.BatchNorm1d(2)}, None, TypeError, "layers_or_norms must be"),
    ({"fc": np.ones(2)}, None, TypeError, "'fc' must be a BatchNorm1d"),
    (cpubn.BatchNorm1d(2, track_running_stats=False), None, ValueError, "must have running statistics"),
    (cpubn.BatchNorm1d(2), np.ones((4, 3)), ValueError, r"batch must have 2 channels \(layout 'NCHW'\)"),
    (cpubn.BatchNorm1d(2), np.ones((1, 2)), ValueError, "at least 2 values per channel, got 1"),
    (cpubn.BatchNorm1d(2), np.ones(4), ValueError, "batch: "),
    (cpubn.BatchNorm1d(2), "text", TypeError, "batch: "),
    ({"a": cpubn.BatchNorm1d(2)}, np.ones((4, 2)), TypeError, "batch must be a mapping"),
    ({"a": cpubn.BatchNorm1d(2)}, {"b": np.ones((4, 2))}, ValueError, "batch must be named as the norms are, 'a'"),
    ({"a": cpubn.BatchNorm1d(2)}, {"a": np.ones((4, 3))}, ValueError, "batch of 'a' must have 2 channels"),
])  # fmt: skip
def test_bad_input(given, batch, error, message):
    with pytest.raises(error, match=message):
        cpubn.health(given, batch)
