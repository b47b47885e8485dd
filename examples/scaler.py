"""cpubn.sklearn.StandardScaler in place of scikit-learn's: the same results, but exact in float32.

    python examples/scaler.py

Data whose mean lies a thousand deviations from 0, a stream of batches, missing values, and a pipeline.
"""

import sys

import numpy as np

try:
    import sklearn.preprocessing
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
except ImportError:
    sys.exit('this example needs scikit-learn; install it with: pip install "cpubn[sklearn]"')

from cpubn.sklearn import StandardScaler


def main() -> None:
    x = np.random.default_rng(0).normal(1000.0, 1.0, (100_000, 20)).astype(np.float32)
    for scaler in (sklearn.preprocessing.StandardScaler(), StandardScaler()):
        z = scaler.fit_transform(x)
        print(f"{type(scaler).__module__.split('.')[0]}: means up to {abs(z.mean(0, dtype=np.float64)).max():.0e}")

    stream = StandardScaler()
    for batch in np.array_split(x, 1000):
        stream.partial_fit(batch)
    apart = abs(stream.var_ / StandardScaler().fit(x).var_ - 1).max()
    print(f"variances of a stream of 1000 batches and of the whole differ by {apart:.0e}")

    pixels, labels = load_digits(return_X_y=True)
    pixels[::50, 30] = np.nan  # fit leaves it out, transform passes it on
    scaled = StandardScaler().fit_transform(pixels)
    print("missing values before and after:", int(np.isnan(pixels).sum()), int(np.isnan(scaled).sum()))
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(np.nan_to_num(pixels[:1400]), labels[:1400])
    right = model.score(np.nan_to_num(pixels[1400:]), labels[1400:])
    print(f"a pipeline is right for {right:.0%} of the digits held out")


if __name__ == "__main__":
    main()
