"""StandardScaler: scikit-learn's, attribute for attribute, by cpubn's statistics and its map.

    z = (x - mean_) / scale_         scale_ = sqrt(var_), or 1 where a feature is constant

What scikit-learn's own class does well is left to it: parameters, tags, names of features, sparse data, arrays of other
libraries under its array API, callbacks. The state of a fit is in its public attributes alone.
"""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

try:
    from scipy import sparse
    from sklearn import get_config, preprocessing
    from sklearn.base import _fit_context
    from sklearn.utils import assert_all_finite, check_array
    from sklearn.utils.validation import FLOAT_DTYPES, _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f'cpubn.sklearn needs scikit-learn from version 1.6 on; install it with: pip install "cpubn[sklearn]" ({error})'
    ) from error

from cpubn.functional import batch_norm, moments
from cpubn.typing import Array, Vector

__all__ = ["StandardScaler"]

PLAIN = frozenset(map(np.dtype, (np.float32, np.float64)))
EPS = float(np.finfo(np.float64).eps)


class StandardScaler(preprocessing.StandardScaler):  # type: ignore[misc] # it has no types
    """Features with mean 0 and variance 1: sklearn.preprocessing.StandardScaler, exact in float32, and faster.

    A drop-in replacement, with the same parameters, attributes and errors: clones, pipelines, ``set_output``, sparse
    data and NaN, which fit leaves out and transform passes on, work as there. For float32 data each value z of
    ``transform`` is right to 1e-6 * max(1, abs(z)) at any mean up to 1e7 deviations.

    Parameters
    ----------
    copy : bool, whether ``transform`` returns a new array; else it writes into its input where that can be done.
    with_mean : bool, whether features are centred.
    with_std : bool, whether they are scaled.

    Attributes
    ----------
    mean_ : (n_features,) float64, or None where neither is done.
    var_ : (n_features,) float64, the biased variance, or None without ``with_std``.
    scale_ : (n_features,) float64, what is divided by, or None without ``with_std``.
    n_samples_seen_ : numpy.int64, or (n_features,) of int64 where they differ by NaN; float64 with sample weights.
    n_features_in_, feature_names_in_ : as in every estimator.

    Raises
    ------
    ValueError, TypeError : by its methods, as scikit-learn does.

    Examples
    --------
    >>> import numpy as np
    >>> from cpubn.sklearn import StandardScaler
    >>> scaler = StandardScaler().fit(np.array([[0, 10], [2, 30]], np.float32))
    >>> scaler.mean_, scaler.scale_
    (array([ 1., 20.]), array([ 1., 10.]))
    >>> scaler.transform(np.array([[3, 10]], np.float32))
    array([[ 2., -1.]], dtype=float32)
    """

    def partial_fit(self, X: Any, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Add a batch to the statistics (Chan, Golub and LeVeque, 1983).

        Parameters
        ----------
        X : (n_samples, n_features), dense or sparse; NaN is left out, infinity is a ValueError.
        y : ignored.
        sample_weight : (n_samples,) of at least 0, rounded to float32 unless X is float64; or None for ones.

        Raises
        ------
        ValueError, TypeError : as scikit-learn does, with the statistics as they were.
        """
        if sample_weight is None and self._stands(X):
            return self._take(X, {})
        return self._partial_fit(X, y, sample_weight)  # type: ignore[no-any-return]

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def _partial_fit(self, X: Any, y: object, sample_weight: ArrayLike | None) -> Self:
        if self._is_theirs(X):
            return super().partial_fit(X, y, sample_weight)  # type: ignore[no-any-return]
        first = not hasattr(self, "n_samples_seen_")
        X = validate_data(self, X, reset=first, dtype=FLOAT_DTYPES, ensure_all_finite=False)
        if sample_weight is None:
            return self._take(X, {})
        # Rounded as theirs are, to the type of the data, but no lower than float32.
        kind = np.float64 if X.dtype == np.float64 else np.float32
        return self._take(X, {"weights": _check_sample_weight(sample_weight, X, dtype=kind)})

    def _take(self, X: Array, weights: dict[str, Any]) -> Self:
        batch = moments(X, **weights)
        finite = _is_finite(batch.m2)
        if finite and not weights:
            return self._add(batch.count, batch.mean, batch.m2)
        # Infinity of weight 0 does not show in them.
        assert_all_finite(X, allow_nan=True, estimator_name=type(self).__name__, input_name="X")
        if not finite:
            batch = moments(X, nan="omit", **weights)
        count: Any = batch.count
        with np.errstate(all="ignore"):
            # NaN without values, and where squares overflowed: to divide by infinity would give plausible numbers.
            mean, m2 = np.where(count == 0, np.nan, batch.mean), batch.m2 + 0.0 * batch.m2
            return self._add(count if weights else count.astype(np.int64), mean, m2)

    def transform(self, X: Any, copy: bool | None = None) -> Any:
        """Centre and scale.

        Parameters
        ----------
        X : (n_samples, n_features), dense or sparse CSR; NaN stays NaN, infinity is a ValueError.
        copy : bool, in place of the scaler's own.

        Returns
        -------
        (n_samples, n_features), of the type of X where that is a floating one, else float64.
        """
        if self._is_theirs(X):
            return super().transform(X, copy)
        check_is_fitted(self)
        copy = self.copy if copy is None else copy
        if not (copy and self._stands(X)):
            how = {"dtype": FLOAT_DTYPES, "force_writeable": not copy, "ensure_all_finite": False}
            X = validate_data(self, X, reset=False, **how)
        assert_all_finite(X, allow_nan=True, estimator_name=type(self).__name__, input_name="X")
        mean, scale = self._coefficients()
        return batch_norm(X, mean, np.ones_like(mean), 1 / scale, eps=0.0, out=None if copy else X)

    def inverse_transform(self, X: Any, copy: bool | None = None) -> Any:
        """Undo ``transform``: ``x = z * scale_ + mean_``; parameters and result are those of ``transform``."""
        if self._is_theirs(X):
            return super().inverse_transform(X, copy)
        check_is_fitted(self)
        copy = self.copy if copy is None else copy
        X = check_array(X, dtype=FLOAT_DTYPES, force_writeable=not copy, ensure_all_finite="allow-nan")
        mean, scale = self._coefficients()
        zeros = np.zeros_like(mean)
        return batch_norm(X, zeros, zeros + 1, scale, mean, eps=0.0, out=None if copy else X)

    def _coefficients(self) -> tuple[Vector, Vector]:
        """Mean and scale, or zeros and ones where they are not asked for."""
        mean = self.mean_ if self.with_mean else np.zeros(self.n_features_in_)
        scale = self.scale_ if self.with_std else np.ones(self.n_features_in_)
        if mean is None or scale is None:
            raise ValueError(self._turned_on())
        return mean, scale

    def _turned_on(self) -> str:
        return (
            "with_mean and with_std must stay off after a fit in which they were off, got "
            f"with_mean={self.with_mean}, with_std={self.with_std}; call fit, which begins anew"
        )

    def _is_theirs(self, X: Any) -> bool:
        """Whether scikit-learn's own code serves X."""
        foreign = not isinstance(X, np.ndarray) and get_config()["array_api_dispatch"]
        return foreign or sparse.issparse(X) or "_skl_callbacks" in vars(self)

    def _stands(self, X: Any) -> bool:
        """Whether validation, which costs more than the sums of a small batch, would return X as it is, NaN aside."""
        mine = vars(self)
        return (
            type(X) is np.ndarray
            and X.dtype in PLAIN
            and X.ndim == 2
            and len(X) > 0
            and X.shape[1] == mine.get("n_features_in_")
            and "n_samples_seen_" in mine
            and not ("feature_names_in_" in mine or "_skl_callbacks" in mine)
        )

    def _add(self, count: Any, mean: Any, m2: Vector) -> Self:
        """What was seen, and a batch; counts are numbers or, where NaN makes them differ, arrays."""
        mine: dict[str, Any] = self.__dict__
        var = scale = None
        seen = mine.get("n_samples_seen_")
        if seen is not None:
            seen = seen.item() if isinstance(seen, np.generic) else seen  # numbers of Python's are faster
            if mine["mean_"] is None or (self.with_std and mine["var_"] is None):
                if self.with_mean or self.with_std:
                    raise ValueError(self._turned_on())
            else:
                mean, m2 = _merge((seen, mine["mean_"], mine["var_"]), (count, mean, m2))
            count = count + seen
        if self.with_std:
            var = m2 / count
            scale = np.sqrt(var)
            # What scikit-learn takes for constant: deviations below the rounding errors of its sums.
            scale[scale <= abs(mean) * (EPS * count)] = 1.0
        elif not self.with_mean:
            mean = None
        if isinstance(count, np.ndarray) and count.min() == count.max():
            count = count[0]
        mine.update(n_samples_seen_=np.asarray(count)[()], mean_=mean, var_=var, scale_=scale)
        return self


def _merge(seen: tuple[Any, Vector, Any], batch: tuple[Any, Vector, Vector]) -> tuple[Vector, Vector]:
    """Mean and m2 of both, of (count, mean, var) and (count, mean, m2).

    A feature of which one of them has no value keeps what the other has.
    """
    (count, mean, var), (new_count, new_mean, new_m2) = seen, batch
    share = new_count / (count + new_count)
    delta = new_mean - mean
    m2 = 0.0 * mean if var is None else var * count
    merged = mean + delta * share, m2 + new_m2 + delta * delta * (count * share)
    if isinstance(share, np.ndarray):
        for both, old, new in zip(merged, (mean, m2), (new_mean, new_m2), strict=True):
            np.copyto(both, new, where=count == 0)
            np.copyto(both, old, where=new_count == 0)
    return merged


def _is_finite(m2: Vector) -> bool:
    return math.isfinite(m2.max())  # faster than isfinite of each
