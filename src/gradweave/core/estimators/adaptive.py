"""A mix of horizons whose weights follow from measurements. Ours: there is no paper behind it.

Running estimates over windows give, for every meta-parameter, the mean m_k and the covariance C of its horizon
gradients g_1 .. g_L. A criterion turns them into non-negative weights that sum to one, and the estimate is
sum_k w_k g_k. The weights that a window is given come from the windows before it, so that they are independent of its
noise. Experiments and their results are in docs/estimators.md.
"""

import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from gradweave.core.bijectors import as_float, split_learned
from gradweave.core.estimators.base import AbstractEstimator, checked_memory
from gradweave.core.estimators.trace import check_memory_shapes
from gradweave.core.modes.base import AbstractMode, Differentiand, Differentiated, ravel_learned
from gradweave.core.modes.forward import ForwardMode, every_horizon


class HorizonMoments(NamedTuple):
    """Running estimates of one meta-parameter's horizon gradients.

    Attributes:
        mean: m_1 .. m_L.
        covariance: C, unbiased.
        num_samples: the effective number of independent windows.
    """

    mean: Float[Array, " L"]
    covariance: Float[Array, "L L"]
    num_samples: Float[Array, ""]


class AbstractMixCriterion(eqx.Module):
    """A criterion by which weights are chosen."""

    @abc.abstractmethod
    def __call__(self, moments: HorizonMoments) -> Float[Array, " L"]:
        """Non-negative weights that sum to one."""


class SignalToNoise(AbstractMixCriterion):
    """The greatest signal-to-noise ratio of the mix: w proportional to C^-1 m sign(m_L), clipped to be non-negative.

    The sign is that of the longest horizon, so that shorter ones that point the other way are left out; where the
    meta-parameters come to rest, only horizons that agree with the longest one have a weight. Indifferent to the
    magnitudes of the horizons, and, up to its scale, the combination of least squared error when weights need not sum
    to one.

    Attributes:
        shrinkage: in (0, 1]; correlations between horizons are multiplied by 1 - shrinkage, variances kept.
    """

    shrinkage: float = eqx.field(static=True, default=0.2)

    def __check_init__(self) -> None:
        _check_shrinkage(self)

    def __call__(self, moments: HorizonMoments) -> Float[Array, " L"]:
        mean = moments.mean * jnp.sign(moments.mean[-1])
        return _clipped_solution(_shrunk(moments.covariance, self.shrinkage), mean)


class LeastError(AbstractMixCriterion):
    """The least mean squared error against the longest horizon: w proportional to (C / n + b b^T)^-1 1, clipped to be
    non-negative, with the bias b_k = m_k - m_L.

    The squared bias, itself biased up by its sampling variance v_k, is corrected: b_k^2 is multiplied by
    max(0, 1 - v_k / b_k^2). Small gradients count as good ones, because an estimate near zero has little variance; so
    short horizons are favoured wherever the bias cannot be told from noise.

    Attributes:
        shrinkage: as in `SignalToNoise`.
        num_averaged: n, over how many windows the meta-optimiser averages: variance counts that much less. 1 is the
            error of a single estimate.
    """

    shrinkage: float = eqx.field(static=True, default=0.2)
    num_averaged: float = eqx.field(static=True, default=100.0)

    def __check_init__(self) -> None:
        _check_shrinkage(self)
        if not self.num_averaged >= 1:
            raise ValueError(f"LeastError(num_averaged={self.num_averaged!r}): at least 1 window is averaged over.")

    def __call__(self, moments: HorizonMoments) -> Float[Array, " L"]:
        covariance, bias = moments.covariance, moments.mean - moments.mean[-1]
        variance = jnp.diagonal(covariance)
        # Rounding may leave a little less than nothing, against which even no bias would count as certain.
        sampling = jnp.maximum(variance + variance[-1] - 2 * covariance[:, -1], 0) / moments.num_samples
        certain = bias**2 > sampling
        bias = bias * jnp.sqrt(jnp.where(certain, 1 - sampling / jnp.where(certain, bias**2, 1), 0))
        error = _shrunk(covariance, self.shrinkage) / self.num_averaged + jnp.outer(bias, bias)
        return _clipped_solution(error, jnp.ones_like(bias))


class AdaptiveMixMemory(NamedTuple):
    """Memory of `AdaptiveMix`; P learned numbers in the order of `jax.tree.leaves`.

    Attributes:
        weights: of the next window, each row non-negative and summing to one.
        mean: running mean of the horizon gradients.
        covariance: running covariance over horizons, as the weighted mean of squared deviations.
        concentration: sum of the squared weights of the running mean; 1 / concentration windows are in it.
        num_windows: windows so far.
    """

    weights: Float[Array, "P L"]
    mean: Float[Array, "P L"]
    covariance: Float[Array, "P L L"]
    concentration: Float[Array, ""]
    num_windows: Int[Array, ""]


class AdaptiveMix(AbstractEstimator):
    """sum_k w_k g_k with weights for each meta-parameter that follow from the measured moments of g_1 .. g_L.

    Weights are uniform for the first `warmup` windows. They need hundreds of windows to mean anything: the
    signal-to-noise of one window is commonly below a half. In the result `outer_loss` is the outer losses weighted by
    the mean weights over meta-parameters, `aux.outer_losses` are all of them, and `estimator_state.weights` reports the
    weights.

    Costs one forward-mode pass with an outer loss after every update, and P solutions of an L x L system; only
    `ForwardMode` gives every g_k, so not for hundreds of meta-parameters. Not for short runs; and where the outer loss
    is estimated well by one batch, `Unrolled` has less bias and is as good or better (see the measurements in
    docs/estimators.md).

    Attributes:
        num_inner_steps: L.
        criterion: `SignalToNoise()` or `LeastError()`, or another `AbstractMixCriterion`.
        decay: of the running estimates, in [0, 1); about 1 / (1 - decay) windows count. Until then they are plain
            means over all windows.
        warmup: windows before the weights are used, at least 2.
    """

    supported_modes: ClassVar[tuple[type[AbstractMode], ...]] = (ForwardMode,)

    num_inner_steps: int = eqx.field(static=True)
    criterion: AbstractMixCriterion = eqx.field(default_factory=SignalToNoise)
    decay: float = eqx.field(static=True, default=0.997)
    warmup: int = eqx.field(static=True, default=50)

    def __check_init__(self) -> None:
        if isinstance(self.num_inner_steps, bool) or not isinstance(self.num_inner_steps, int):
            raise TypeError(f"AdaptiveMix(num_inner_steps={self.num_inner_steps!r}): an integer is needed.")
        if self.num_inner_steps < 1 or not 0 <= self.decay < 1 or self.warmup < 2:
            raise ValueError(
                f"AdaptiveMix(num_inner_steps={self.num_inner_steps}, decay={self.decay}, warmup={self.warmup}): "
                "num_inner_steps must be at least 1, decay in [0, 1) and warmup at least 2."
            )

    def init(self, raw: PyTree, spec: PyTree, state: PyTree, *, key: Key[Array, ""] | None = None) -> AdaptiveMixMemory:
        """Uniform weights, nothing measured."""
        learned, _ = split_learned(jax.tree.map(jnp.asarray, raw), spec)
        return self._nothing_measured(ravel_learned(jax.tree.map(as_float, learned))[0])

    def check(self, num_inner_steps: int) -> None:
        """The window must have the length that weights are kept for."""
        if num_inner_steps != self.num_inner_steps:
            raise ValueError(
                f"AdaptiveMix(num_inner_steps={self.num_inner_steps}) was given {num_inner_steps} inner steps; it "
                f"keeps a weight for each, so make that {num_inner_steps} and begin with its init."
            )

    def reads_horizons(self, num_inner_steps: int) -> bool:
        """All of them."""
        return True

    def estimate(self, differentiand: Differentiand, mode: AbstractMode, memory: PyTree) -> tuple[Differentiated, Any]:
        """Mix with the weights in memory, then measure."""
        known: AdaptiveMixMemory = checked_memory(self, memory)
        flat, unravel = ravel_learned(differentiand.learned)
        check_memory_shapes(self, known, self._nothing_measured(flat))
        inner_aux, (gradients, losses, outer_aux, final) = every_horizon(differentiand)
        gradients = gradients.T.astype(flat.dtype)
        grad = jnp.sum(known.weights * gradients, axis=1)
        outer_loss = jnp.dot(known.weights.mean(0).astype(losses.dtype), losses)
        result = Differentiated(unravel(grad), outer_loss, losses, outer_aux, inner_aux, final)
        return result, self._measure(known, gradients)

    def _nothing_measured(self, flat: Float[Array, " P"]) -> AdaptiveMixMemory:
        num_steps, dtype = self.num_inner_steps, flat.dtype
        return AdaptiveMixMemory(
            weights=jnp.full((flat.size, num_steps), 1 / num_steps, dtype),
            mean=jnp.zeros((flat.size, num_steps), dtype),
            covariance=jnp.zeros((flat.size, num_steps, num_steps), dtype),
            concentration=jnp.ones((), dtype),
            num_windows=jnp.zeros((), jnp.int32),
        )

    def _measure(self, memory: AdaptiveMixMemory, gradients: Float[Array, "P L"]) -> AdaptiveMixMemory:
        """The memory with one more window in it."""
        num_windows = memory.num_windows + 1
        rate = jnp.maximum(1 - self.decay, 1 / num_windows.astype(gradients.dtype))
        surprise = gradients - memory.mean
        mean = memory.mean + rate * surprise
        covariance = (1 - rate) * (memory.covariance + rate * surprise[:, :, None] * surprise[:, None, :])
        concentration = (1 - rate) ** 2 * memory.concentration + rate**2
        # Deviations are from the estimated mean, which takes 1 / num_samples of the variance away.
        unbiased = covariance / jnp.where(concentration < 1, 1 - concentration, 1)
        measured = jax.vmap(lambda m, c: self.criterion(HorizonMoments(m, c, 1 / concentration)))(mean, unbiased)
        weights = jnp.where(num_windows >= self.warmup, measured, memory.weights)
        return AdaptiveMixMemory(weights, mean, covariance, concentration, num_windows)


def _shrunk(covariance: Float[Array, "L L"], shrinkage: float) -> Float[Array, "L L"]:
    """Correlations times 1 - shrinkage, variances kept: magnitudes differ between horizons and must not be mixed."""
    return covariance * (1 - shrinkage + shrinkage * jnp.eye(covariance.shape[0], dtype=covariance.dtype))


def _clipped_solution(matrix: Float[Array, "L L"], target: Float[Array, " L"]) -> Float[Array, " L"]:
    """matrix^-1 target, its negative entries set to zero, over its sum; all weight on the longest horizon where that
    is undefined, as for gradients without noise.
    """
    diagonal = jnp.diagonal(matrix)
    positive = jnp.all(diagonal > 0)
    # Scaled to a diagonal of ones: horizons may differ by orders of magnitude.
    scale = jnp.sqrt(jnp.where(positive, diagonal, 1))
    ridge = jnp.finfo(matrix.dtype).eps ** 0.5
    correlations = matrix / jnp.outer(scale, scale) + ridge * jnp.eye(scale.size, dtype=matrix.dtype)
    solution = jnp.maximum(jnp.linalg.solve(correlations, target / scale), 0) / scale
    total = solution.sum()
    defined = positive & (total > 0) & jnp.isfinite(total)
    longest = jnp.zeros_like(solution).at[-1].set(1)
    return jnp.where(defined, solution / jnp.where(defined, total, 1), longest)


def _check_shrinkage(criterion: SignalToNoise | LeastError) -> None:
    if not 0 < criterion.shrinkage <= 1:
        raise ValueError(
            f"{type(criterion).__name__}(shrinkage={criterion.shrinkage!r}): must lie in (0, 1]; 1 ignores "
            "correlations between horizons, and without any shrinkage the system is close to singular."
        )
