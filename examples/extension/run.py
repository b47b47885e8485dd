"""Batch norm inside extension modules of your own, in Cython and in C.

    pip install cython setuptools
    cd examples/extension && python setup.py build_ext --inplace && python run.py

Both normalize the windows of a stream by functions of C, and their results are compared with batch_norm's: every bit is
the same.
"""

import sys

import numpy as np

import cpubn

try:
    import in_c
    import in_cython
except ImportError as error:
    sys.exit(f"build the modules first, with python setup.py build_ext --inplace: {error}")


def main() -> None:
    rng = np.random.default_rng(0)
    stream = rng.normal(20.0, 3.0, (64, 8, 500)).astype(np.float32)
    mean, var = np.full(8, 20.0), np.full(8, 9.0)
    expected = cpubn.batch_norm(stream, mean, var, activation="relu")

    windows = stream.copy()
    in_cython.normalize(windows, mean, var)
    print(f"in Cython, in a prange: {len(windows)} windows, the same bits: {np.array_equal(windows, expected)}")
    windows = stream.copy()
    for window in windows:
        in_c.normalize(window, mean, var)
    print(f"in C, window by window: {len(windows)} windows, the same bits: {np.array_equal(windows, expected)}")
    try:
        in_cython.normalize(windows, mean, -var)
    except ValueError as error:
        print(f"what is wrong with a negative variance: {error}")


if __name__ == "__main__":
    main()
