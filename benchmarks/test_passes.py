"""Every pass, for every layer and contestant of cpubn.bench, by pytest-benchmark.

    pytest benchmarks --model resnet50 --batch 1 --libraries cpubn,torch,onednn

These run one contestant after the other; `python -m cpubn bench` interleaves them, as docs/benchmarks.md needs it.
"""


def test_eval(timed):
    timed()


def test_train(timed):
    timed()


def test_backward(timed):
    timed()


def test_moments(timed):
    timed()


def test_overhead(timed):
    timed()


def test_relu(timed):
    timed()


def test_add_relu(timed):
    timed()


def test_hardswish(timed):
    timed()


def test_silu(timed):
    timed()


def test_gelu(timed):
    timed()


def test_eval_float16(timed):
    timed()


def test_train_float16(timed):
    timed()


def test_backward_float16(timed):
    timed()


def test_eval_bfloat16(timed):
    timed()


def test_train_bfloat16(timed):
    timed()


def test_backward_bfloat16(timed):
    timed()


def test_input(timed):
    timed()


def test_int8(timed):
    timed()


def test_int8_relu(timed):
    timed()
