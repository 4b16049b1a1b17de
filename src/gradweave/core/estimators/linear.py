"""The estimators that weigh one kernel: the full unroll, its truncations, and the two readings of mixing.

With g_k the horizon gradient (outer loss after k updates, differentiated through all k) and h_m the truncated gradient
(outer loss after L updates, differentiated through the last m), mixing step counts, as Bonnet et al. 2021 (arXiv
2111.00206) propose, can be read as sum_m w_m h_m or as sum_k w_k g_k. Both are here, under their own names.
docs/paper-notes.md has the details.
"""

import operator
from typing import SupportsIndex

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from gradweave.core.estimators.base import AbstractLinearEstimator
from gradweave.core.modes.base import KernelWeights


def uniform_weights(n: SupportsIndex) -> Float[Array, " n"]:
    """n equal weights, 1 / n each."""
    count = _checked_count(n)
    return jnp.full((count,), 1.0 / count, jnp.result_type(float))


def geometric_weights(n: SupportsIndex, lambda_: float) -> Float[Array, " n"]:
    """The weights of TD(lambda): w_k = (1 - lambda) lambda^(k-1) for k < n, and lambda^(n-1) for the last; they sum to
    1.

    Args:
        n: number of weights, at least 1.
        lambda_: in [0, 1]. 0 is one step only, 1 is the longest only (`Unrolled`).

    Raises:
        ValueError: `n` or `lambda_` out of range.
    """
    count = _checked_count(n)
    if not 0 <= lambda_ <= 1:
        raise ValueError(f"geometric_weights(lambda_={lambda_}): lambda_ must lie in [0, 1].")
    powers = np.power(float(lambda_), np.arange(count))
    weights = (1 - lambda_) * powers
    weights[-1] = powers[-1]
    return jnp.asarray(weights, jnp.result_type(float))


class Unrolled(AbstractLinearEstimator):
    """g_L: the outer loss at x_L, differentiated through all L updates. With L = 1 the meta-gradient of Xu et al. 2018.

    Biased only by contributions from beyond L; the noisiest of the family. The reference for the others.
    """

    def check(self, num_inner_steps: int) -> None:
        """Every length will do."""

    def kernel_weights(self, num_inner_steps: int) -> KernelWeights:
        """All steps count, only the last outer loss does."""
        return KernelWeights()


class Truncated(AbstractLinearEstimator):
    """h_m: the outer loss at x_L, differentiated through the last `length` updates only (truncated back-propagation).

    Attributes:
        length: m, from 1 to L. m = L is `Unrolled`.
    """

    length: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        if isinstance(self.length, bool) or not isinstance(self.length, int) or self.length < 1:
            raise ValueError(f"Truncated(length={self.length!r}): the length must be an integer of at least 1.")

    def check(self, num_inner_steps: int) -> None:
        """The truncation must not be longer than the window."""
        if self.length > num_inner_steps:
            raise ValueError(
                f"Truncated(length={self.length}) reaches back further than the {num_inner_steps} inner steps of the "
                f"window; use a length of at most {num_inner_steps}, or a longer window."
            )

    def kernel_weights(self, num_inner_steps: int) -> KernelWeights:
        """1 for the last m steps, 0 before."""
        return KernelWeights(
            steps=(jnp.arange(num_inner_steps) >= num_inner_steps - self.length).astype(jnp.result_type(float))
        )


class TruncationMix(AbstractLinearEstimator):
    """sum_m w_m h_m: one outer loss at the end, truncation lengths mixed; reading (a) of Bonnet et al. 2021.

    A step that lies j steps before the end is contained in the truncations m >= j, so its derivative counts with their
    summed weight. Costs as much as `Unrolled`. With geometric weights it is an eligibility trace with decay lambda.

    Attributes:
        weights: (L,), non-negative, summing to 1; entry m - 1 is the weight of h_m.
    """

    weights: Float[Array, " n"]

    def __init__(self, weights: ArrayLike) -> None:
        self.weights = _checked_weights(weights, "TruncationMix")

    def check(self, num_inner_steps: int) -> None:
        """One weight for each truncation length."""
        _check_length(self.weights, num_inner_steps, "TruncationMix")

    def kernel_weights(self, num_inner_steps: int) -> KernelWeights:
        """Step k is in the truncations m >= L - k: a cumulative sum of the weights from the longest down."""
        return KernelWeights(steps=jnp.cumsum(self.weights[::-1]))


WindowMix = TruncationMix
"""The name that the mix had before `window` came to mean the L updates only."""


class HorizonMix(AbstractLinearEstimator):
    """sum_k w_k g_k: an outer loss after every inner update; reading (b) of Bonnet et al. 2021.

    The outer loss is evaluated on every rollout of the window, so it draws on L times the outer data of `Unrolled`, at
    the price of L - 1 more outer losses. Magnitudes of g_k grow with k: compare variances relative to the squared mean
    too.

    Attributes:
        weights: (L,), non-negative, summing to 1; entry k - 1 is the weight of g_k.
    """

    weights: Float[Array, " n"]

    def __init__(self, weights: ArrayLike) -> None:
        self.weights = _checked_weights(weights, "HorizonMix")

    def check(self, num_inner_steps: int) -> None:
        """One weight for each horizon."""
        _check_length(self.weights, num_inner_steps, "HorizonMix")

    def kernel_weights(self, num_inner_steps: int) -> KernelWeights:
        """The weights are the horizons'."""
        return KernelWeights(horizons=self.weights)


def _checked_count(n: SupportsIndex) -> int:
    try:
        count = 0 if isinstance(n, bool) else operator.index(n)
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"the number of weights must be an integer of at least 1, not {n!r}.")
    return count


def _checked_weights(weights: ArrayLike, name: str) -> Float[Array, " n"]:
    # Checked in numpy: within jit, jax.numpy returns tracers even for concrete numbers.
    known = None if isinstance(weights, jax.core.Tracer) else np.asarray(weights)
    shape = jnp.shape(weights)
    if len(shape) != 1 or shape[0] == 0:
        raise ValueError(f"{name}(weights=...) needs a vector of at least one weight, not an array of shape {shape}.")
    total = 1.0 if known is None else float(known.sum())
    if known is not None and (bool((known < 0).any()) or not abs(total - 1) < 1e-5):
        raise ValueError(
            f"{name}(weights={known.tolist()}): weights must be at least 0 and sum to 1, but sum to {total:.6g}; "
            "divide them by their sum, or use uniform_weights or geometric_weights."
        )
    weights = jnp.asarray(weights)
    return weights if jnp.issubdtype(weights.dtype, jnp.floating) else weights.astype(jnp.result_type(float))


def _check_length(weights: Float[Array, " n"], num_inner_steps: int, name: str) -> None:
    if weights.shape[0] != num_inner_steps:
        raise ValueError(
            f"{name} was given {weights.shape[0]} weights for {num_inner_steps} inner steps; give one for each, for "
            f"instance uniform_weights({num_inner_steps})."
        )
