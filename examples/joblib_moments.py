"""Mean and variance of a data set in many files, by all processes of this machine: joblib.

    python examples/joblib_moments.py

Every process reads files of its own and returns their Moments, a few numbers per channel, which are merged in the order
of the files: the result has the same bits however many processes there are. Then a layer takes it for its running
statistics.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import cpubn

try:
    from joblib import Parallel, delayed
except ImportError:
    sys.exit('this example needs joblib; install it with: pip install "cpubn[sklearn]"')


def write_data(folder, files=12, channels=8):
    """Images whose mean lies a thousand deviations from 0, float32, in files of different lengths."""
    rng = np.random.default_rng(0)
    for i in range(files):
        images = rng.normal(1000.0, 1.0, (20 + i, channels, 32, 32)).astype(np.float32)
        np.save(folder / f"{i:03}.npy", images)


def moments_of_file(path):
    return cpubn.moments(np.load(path, mmap_mode="r"))


def moments_of_folder(folder, processes):
    paths = sorted(folder.glob("*.npy"))
    parts = Parallel(n_jobs=processes, return_as="generator")(delayed(moments_of_file)(path) for path in paths)
    return cpubn.Moments.merge_all(parts)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        total = moments_of_folder(folder, 2)
        print(f"{total.count} values per channel")
        print("as one process has it, bit for bit:", total == moments_of_folder(folder, 1))
        whole = np.concatenate([np.load(path) for path in sorted(folder.glob("*.npy"))])
    var = whole.var((0, 2, 3), dtype=np.float64)
    print(f"variances of the whole in memory differ by {abs(total.var() / var - 1).max():.0e}")

    layer = cpubn.BatchNorm2d(len(var)).eval()
    layer.update_from(total)
    y = layer(whole)
    print(f"normalized by it: means below {abs(y.mean((0, 2, 3), dtype=np.float64)).max():.0e}")


if __name__ == "__main__":
    main()
