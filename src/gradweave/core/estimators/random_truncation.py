"""Truncation at a random depth that is unbiased: Russian roulette over the depth of differentiation.

Let c_j be the contribution of the step j steps before the end to the full gradient, c_1 + ... + c_L. With a
random depth K,

    estimate = sum_j 1[K >= j] / P(K >= j) c_j,

whose expectation is the full gradient, because each step counts with an expected weight of one. This is the
compensation of ARTBP (Tallec & Ollivier 2017, arXiv 1705.08209) for one outer loss at the window's end.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from gradweave.core.estimators.base import AbstractEstimator, checked_memory
from gradweave.core.modes.base import AbstractMode, Differentiand, Differentiated, KernelWeights


class RandomTruncationMemory(NamedTuple):
    """`key` for the depths to come."""

    key: Key[Array, ""]


class RandomTruncation(AbstractEstimator):
    """`Truncated` at a geometrically distributed depth, compensated so that its mean is `Unrolled`.

    The last update always counts; each step further back is followed with `probability`, P(K >= j) = probability^(j-1).

    All modes serve, one kernel each: as costly as `Unrolled`, because the shape of a compiled program cannot depend on
    K. It is a reference for the bias of truncation, not a way to save time. Its variance is larger than that
    of `Unrolled`, and without bound where contributions fall off more slowly than sqrt(probability)^j; prefer
    `Unrolled` or `TruncationMix` to learn with.

    Attributes:
        probability: in (0, 1]; 1 is `Unrolled`.
    """

    probability: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise ValueError(
                f"RandomTruncation(probability={self.probability!r}): the probability of following one step further "
                "must lie in (0, 1]; for a fixed depth use Truncated(length)."
            )

    def init(
        self, raw: PyTree, spec: PyTree, state: PyTree, *, key: Key[Array, ""] | None = None
    ) -> RandomTruncationMemory:
        """The key for all depths to come; a fixed one for None."""
        return RandomTruncationMemory(jax.random.key(0) if key is None else key)

    def check(self, num_inner_steps: int) -> None:
        """Every length will do."""

    def estimate(self, differentiand: Differentiand, mode: AbstractMode, memory: PyTree) -> tuple[Differentiated, Any]:
        """Draw a depth and weigh the kernel."""
        key, depth_key = jax.random.split(checked_memory(self, memory).key)
        weights = KernelWeights(steps=self.step_weights(differentiand.window.num_inner_steps, key=depth_key))
        return mode.differentiate(differentiand, weights), RandomTruncationMemory(key)

    def step_weights(self, num_inner_steps: int, *, key: Key[Array, ""]) -> Float[Array, " steps"]:
        """1[K >= j] / P(K >= j) with j = L - k, for k = 0 .. L - 1."""
        dtype = jnp.result_type(float)
        survival = jnp.asarray(self.probability, dtype) ** jnp.arange(num_inner_steps - 1, -1, -1, dtype=dtype)
        # One uniform number decides: K >= j exactly if it is below P(K >= j). Where that underflows, nothing survives.
        survives = jax.random.uniform(key, (), dtype) < survival
        return jnp.where(survives, 1 / jnp.where(survives, survival, 1), 0)
