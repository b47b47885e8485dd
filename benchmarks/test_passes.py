"""Every pass, for every layer and contestant of cpubn.bench, by pytest-benchmark.

    pytest benchmarks --model resnet50 --batch 1 --libraries cpubn,torch,onednn

These run one contestant after the other; `python -m cpubn bench` interleaves them, and is what README's table is from.
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
