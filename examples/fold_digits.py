"""A network trained on digits, as an ONNX file: its batch norms are looked at, folded, and gone; its predictions stay.

    python examples/fold_digits.py

Images are 8 x 8, (N, 1, 8, 8) from 0 to 16. Batch norm stands before the first convolution, where it standardizes the
pixels, and between each convolution and its ReLU. Layers of cpubn train, onnx.helper writes the model down as it is,
and `convert.fold_onnx` puts each norm into the convolution beside it. onnxruntime runs both files as they stand, with
its own optimizations off, which would fold norms behind convolutions, too. --output names a folder to keep both in.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from edge_network import Array, Conv, Network, first_weight, use_one_thread
from sklearn.datasets import load_digits
from train_edge_network import BATCH, Descent

import cpubn
from cpubn import convert

try:
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper
except ImportError as error:
    needed = "onnx and onnxruntime"
    raise SystemExit(
        f'this example needs {needed}; install with: pip install "cpubn[demo,convert]" onnxruntime'
    ) from error

EPOCHS = 12
RATE = 0.1  # of the first step; it falls to 0
HELD_OUT = 360  # digits, the last ones
RUNS = 200


class DigitNetwork(Network):
    """Batch norm of the pixels, then 3 x 3 convolution, batch norm and ReLU twice, then a score for each digit."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.pixels = cpubn.BatchNorm2d(1, affine=False)
        self.blocks = [
            (Conv(first_weight(outputs, inputs, 3, rng), None, 1), cpubn.BatchNorm2d(outputs, activation="relu"))
            for inputs, outputs in ((1, 16), (16, 32))
        ]
        self.head = Conv(first_weight(10, 32, 4, rng), np.zeros(10, np.float32), 1)

    def normalize(self, pixels: Array) -> Array:
        return self.pixels(pixels)

    def train(self, mode: bool) -> None:
        super().train(mode)
        self.pixels.train(mode)


def trained(digits: Array, labels: np.ndarray, rng: np.random.Generator) -> DigitNetwork:
    network = DigitNetwork(rng)
    descent = Descent(network)
    for epoch in range(EPOCHS):
        for batch in np.array_split(rng.permutation(len(digits)), len(digits) // BATCH):
            descent.step(digits[batch], labels[batch], RATE * (1 - epoch / EPOCHS))
    network.train(False)
    return network


def exported(network: DigitNetwork) -> onnx.ModelProto:
    """The network as it stands in inference, batch norms and all."""
    nodes, tensors = [], []

    def add(operator: str, name: str, numbers: dict[str, Array], **attributes: float) -> None:
        source = nodes[-1].output[0] if nodes else "digits"
        stored = [f"{name}.{key}" for key in numbers]
        nodes.append(helper.make_node(operator, [source, *stored], [name], name, **attributes))
        pairs = zip(numbers.values(), stored, strict=True)
        tensors.extend(numpy_helper.from_array(v.astype(np.float32), key) for v, key in pairs)

    def add_norm(name: str, bn: cpubn.BatchNorm2d) -> None:
        vectors = {"weight": np.ones(bn.num_features), "bias": np.zeros(bn.num_features)}
        vectors |= {key: v for key, v in bn.state_dict().items() if key != "num_batches_tracked"}
        add("BatchNormalization", name, vectors, epsilon=bn.eps)

    add_norm("pixels", network.pixels)
    for number, (conv, bn) in enumerate(network.blocks, 1):
        add("Conv", f"conv{number}", {"weight": conv.weight})
        add_norm(f"bn{number}", bn)
        add("Relu", f"relu{number}", {})
    add("Conv", "head", {"weight": network.head.weight, "bias": network.head.bias})
    add("Flatten", "scores", {})
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", *shape])
        for name, shape in (("digits", (1, 8, 8)), ("scores", (10,)))
    ]
    graph = helper.make_graph(nodes, "digits", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, producer_name="cpubn", ir_version=8, opset_imports=[helper.make_opsetid("", 15)])
    onnx.checker.check_model(model, full_check=True)
    return model


def session_of(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def show_norms(path: Path) -> None:
    print(f"{'batch norm':12}{'channels':>9}{'eps':>8}   {'scales':18}means of its input")
    for name, norm in convert.from_onnx(path).items():
        scales = norm.weight / np.sqrt(norm.running_var + norm.eps)
        spans = [f"{v.min():.2f} to {v.max():.2f}" for v in (scales, norm.running_mean)]
        print(f"{name:12}{norm.num_features:9}{norm.eps:8.0e}   {spans[0]:18}{spans[1]}")


def show_runs(paths: dict[str, Path], digits: Array, labels: np.ndarray) -> None:
    """The two take turns, so that whatever else the machine does disturbs both."""
    sessions = {name: session_of(path) for name, path in paths.items()}
    scores = {name: session.run(None, {"digits": digits})[0] for name, session in sessions.items()}
    predicted = {name: each.argmax(axis=1) for name, each in scores.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(RUNS):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(None, {"digits": digits})
            seconds[name].append(time.perf_counter() - start)
    first, second = predicted.values()
    print(f"{np.count_nonzero(first == second)} of {len(labels)} predictions are equal.\n")
    print(f"{'model':12}{'nodes':>6}{'held-out accuracy':>20}{'ms, the fastest run':>21}")
    for name, path in paths.items():
        nodes, right = len(onnx.load(path).graph.node), (predicted[name] == labels).mean()
        print(f"{name:12}{nodes:6}{right:20.1%}{1e3 * min(seconds[name]):21.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="a folder for both models (default: a temporary one)")
    options = parser.parse_args()
    if options.output is not None and not options.output.is_dir():
        parser.error(f"argument --output: must name a folder that exists, got '{options.output}'")
    use_one_thread()
    data = load_digits()
    digits = data.images[:, None].astype(np.float32)
    network = trained(digits[:-HELD_OUT], data.target[:-HELD_OUT], np.random.default_rng(0))
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: (options.output or Path(folder)) / f"{name}.onnx" for name in ("trained", "folded")}
        onnx.save(exported(network), paths["trained"])
        show_norms(paths["trained"])
        folded, report = convert.fold_onnx(paths["trained"], {"digits": digits[-HELD_OUT:]})
        onnx.save(folded, paths["folded"])
        print(f"\n{report}")
        show_runs(paths, digits[-HELD_OUT:], data.target[-HELD_OUT:])


if __name__ == "__main__":
    main()
