"""The moments of every linear meta-gradient on the noisy quadratic, by algebra; nothing here differentiates.

With a the curvature, alpha the rate, c = 1 - alpha a and noise xi on the learner's, zeta on the outer target, each
coordinate by itself obeys

    x_{k+1} = c x_k + alpha a (xi_k + s)            J_k = a (x_k - zeta_k)^2 / 2, summed over coordinates
    through step j:  d x_k / d log(alpha) = c^(k-1-j) (-alpha a) (x_j - xi_j - s),   d x_k / d s = c^(k-1-j) alpha a

so that a meta-gradient is a sum of products y w of jointly normal numbers: y_k = x_k - zeta_k, and w_k the weighted sum
of the derivatives above. Their means and covariances follow from (Isserlis 1918)

    E[y w] = E y E w + cov(y, w)
    cov(y w, y' w') = cov(y, y') cov(w, w') + cov(y, w') cov(w, y')
                      + E y E y' cov(w, w') + E y E w' cov(w, y') + E w E y' cov(y, w') + E w E w' cov(y, y').
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sweep import CURVATURE, OUTER_NOISE, RATE, SHIFT, START, TARGET_NOISE

Array = npt.NDArray[np.float64]


class Moments(NamedTuple):
    """Of an estimator's horizons: mean (L,) and covariance (L, L)."""

    mean: Array
    covariance: Array


class _Normal(NamedTuple):
    """Jointly normal numbers: means (n,), and loadings of the unit normals (n, 2 L)."""

    mean: Array
    loading: Array

    def covariance(self, other: "_Normal") -> Array:
        return self.loading @ other.loading.T


def horizon_moments(step_weights: Array) -> dict[str, Moments]:
    """For each meta-parameter the moments of J_1 .. J_L's derivatives, step j's part times `step_weights[j]`."""
    length = len(step_weights)
    found = {name: Moments(np.zeros(length), np.zeros((length, length))) for name in ("rate", "shift")}
    for a, start in zip(CURVATURE, START, strict=True):
        errors, evaluated, decay = _path(a, start, length)
        weights = _weights(step_weights, decay)
        by_rate = _Normal(-RATE * a * weights @ errors.mean, -RATE * a * weights @ errors.loading)
        by_shift = _Normal(RATE * a * weights.sum(1), np.zeros((length, 2 * length)))
        for name, slope in (("rate", by_rate), ("shift", by_shift)):
            mean, covariance = _product(evaluated, slope)
            old = found[name]
            found[name] = Moments(old.mean + a * mean, old.covariance + a**2 * covariance)
    return found


def long_run() -> dict[str, float]:
    """The derivatives of E J_k as k goes to infinity: a (s^2 + v + noise) / 2 with v = alpha a noise^2 / (2 - alpha a).

    d v / d log(alpha) = noise^2 2 alpha a / (2 - alpha a)^2.
    """
    a = np.array(CURVATURE)
    by_rate = TARGET_NOISE**2 * 2 * RATE * a / (2 - RATE * a) ** 2
    return {"rate": float((a * by_rate / 2).sum()), "shift": float((a * SHIFT).sum())}


def _path(a: float, start: float, length: int) -> tuple[_Normal, _Normal, float]:
    """x_j - xi_j - s for j < L, x_k - zeta_k for k = 1 .. L, and c. Normals: xi_0 .. xi_{L-1}, zeta_1 .. zeta_L."""
    c, noise = 1 - RATE * a, TARGET_NOISE * np.eye(2 * length)[:length]
    mean, loading = start, np.zeros(2 * length)
    errors, evaluated = [], []
    for step in range(length):
        errors.append((mean - SHIFT, loading - noise[step]))
        mean, loading = c * mean + RATE * a * SHIFT, c * loading + RATE * a * noise[step]
        evaluated.append((mean, loading - OUTER_NOISE * np.eye(2 * length)[length + step]))
    return *(_Normal(*(np.array(part) for part in zip(*pairs, strict=True))) for pairs in (errors, evaluated)), c  # type: ignore[return-value]


def _weights(step_weights: Array, decay: float) -> Array:
    """(L, L): row k - 1 has weights[j] c^(k-1-j) for j < k, 0 elsewhere."""
    length = len(step_weights)
    powers = np.arange(length)[:, None] - np.arange(length)
    return np.where(powers >= 0, decay ** np.maximum(powers, 0), 0.0) * step_weights


def _product(y: _Normal, w: _Normal) -> tuple[Array, Array]:
    """Mean (L,) and covariance (L, L) of the products y_k w_k."""
    yy, ww, yw = y.covariance(y), w.covariance(w), y.covariance(w)
    means_y, means_w = y.mean, w.mean
    covariance = yy * ww + yw * yw.T
    covariance += np.outer(means_y, means_y) * ww + np.outer(means_w, means_w) * yy
    covariance += np.outer(means_y, means_w) * yw.T + np.outer(means_w, means_y) * yw
    return means_y * means_w + np.diagonal(yw), covariance
