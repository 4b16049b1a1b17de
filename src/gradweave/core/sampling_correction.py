"""The sampling correction: meta-parameters also change which data later updates see.

A window's batches are held fixed while differentiating. But tau_j was drawn with theta_j(eta), so that the derivative
of an *expected* outer return has a second part, by the score function, for every batch before the evaluated one:

    d/d(eta) E[R(tau_k)] = E[ d/d(theta) (policy gradient at x_k) . dx_k/d(eta) ]
                         + E[ sum_{1 <= j < k} d/d(eta) log p(tau_j | theta_j(eta)) (R(tau_k) - b) ]

(Al-Shedivat et al. 2017, arXiv 1710.03641; Vuoristo et al. 2022, arXiv 2209.11303). tau_0 is not in the sum: theta_0
came before the window. With outer losses weighted by h_k this is the plain estimate of a derived outer loss,

    sum_k h_k J(x_k; tau_k) + rho sum_{j >= 1} c_j log p(tau_j | x_j),     c_j = -sum_{k > j} h_k (R(tau_k) - b),

whose c_j are constants. So nothing has to be written for it but that loss, and every mode serves. The baseline b, any
number that does not depend on the window's data, changes the variance only.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PyTree

from gradweave.core.bijectors import as_float
from gradweave.core.contract import check_scalar
from gradweave.core.estimators.base import AbstractEstimator, AbstractLinearEstimator
from gradweave.core.finite import all_finite
from gradweave.core.learner import GradientLearner
from gradweave.core.meta_gradient import MetaGradient, checked_window, meta_gradient
from gradweave.core.modes.base import AbstractMode, KernelWeights
from gradweave.core.problem import HorizonRecording, MetaProblem, MetaProblemLike, Recording

__all__ = ["SamplingCorrection", "check_correctable", "corrected_meta_gradient", "correction_coefficients"]


class SamplingCorrection(eqx.Module):
    """The correction, times a coefficient. An option of self-tuning agents, off by default.

    1 makes the estimate unbiased within the window, 0 is the usual one; in between, bias is traded against
    variance. The variance grows with the number of samples in a batch times L, because the log-likelihood is a sum over
    them: on large batches expect to need a small coefficient, or none.

    Attributes:
        coefficient: rho, in [0, 1].
    """

    coefficient: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not 0 <= self.coefficient <= 1:
            raise ValueError(
                f"SamplingCorrection(coefficient={self.coefficient!r}): the coefficient must lie in [0, 1]; 1 is the "
                "whole correction, 0 none."
            )


class _WeighedBatch(NamedTuple):
    """A batch with the constants of its outer loss."""

    batch: PyTree
    weight: Float[Array, "*steps"]  # h_k; 0 for the batch without an outer loss
    score: Float[Array, "*steps"]  # rho c_k


class _Reweighted(AbstractLinearEstimator):
    """The kernel with weights that were found elsewhere, every horizon counting once."""

    steps: Float[Array, " steps"] | None

    def check(self, num_inner_steps: int) -> None:
        """The weights were made for this window."""

    def kernel_weights(self, num_inner_steps: int) -> KernelWeights:
        """Horizon weights are in the batches."""
        return KernelWeights(self.steps, jnp.ones((num_inner_steps,)))


def corrected_meta_gradient(
    problem: MetaProblemLike,
    raw: PyTree,
    spec: PyTree,
    state: PyTree,
    batches: PyTree,
    *,
    correction: SamplingCorrection,
    log_prob: Callable[[PyTree, PyTree], Array],
    reward: Callable[[PyTree], Array],
    estimator: AbstractEstimator,
    baseline: Num[Array, ""] | float | int = 0.0,
    mode: AbstractMode | None = None,
    recording: Recording | None = None,
) -> MetaGradient:
    """`meta_gradient` of one window with the sampling correction.

    Args:
        problem: the learner.
        raw: as for `meta_gradient`.
        spec: as for `meta_gradient`.
        state: x_0.
        batches: L + 1 entries, entry k collected with x_k; it evaluates x_k and then drives update k + 1.
        correction: holds its coefficient.
        log_prob: `(state, batch) -> log p(batch | state)` up to terms that do not depend on the state: the sum of the
            log-probabilities of all actions. Given a `forward`, the state holds its outputs, as for `outer_loss`.
        reward: `(batch) -> R`, the quantity to maximise, in units of the loss: if the outer loss is a mean over steps,
            a mean over steps.
        estimator: a linear one.
        baseline: b, from data of other windows.
        mode: the differentiation mode.
        recording: of states and inner gradients, as for `meta_gradient`; one of horizons knows no correction.

    Returns:
        As `meta_gradient`; `outer_loss` and `aux` are those without the correction. Costs every horizon's outer loss,
        for every estimator.

    Raises:
        ValueError: the estimator is not linear, or `reward` or `log_prob` is no scalar; and as `meta_gradient`.
        TypeError: a `HorizonRecording` was given, or `log_prob` is no real number; and as `meta_gradient`.
    """
    if isinstance(recording, HorizonRecording):
        raise TypeError("corrected_meta_gradient cannot use a HorizonRecording: give it a Recording, or none.")
    linear = check_correctable(estimator)
    length = checked_window(state, batches, None, recording).num_inner_steps
    linear.check(length)
    weights = linear.kernel_weights(length)
    horizons = jnp.zeros((length,)).at[-1].set(1) if weights.horizons is None else weights.horizons
    rewards = as_float(jax.vmap(_scalar(reward))(jax.tree.map(lambda leaf: leaf[1:], batches)))
    advantages = rewards - (baseline.astype(rewards.dtype) if isinstance(baseline, jax.Array) else float(baseline))
    scores = correction.coefficient * correction_coefficients(advantages, horizons.astype(rewards.dtype))
    weighed = _WeighedBatch(batches, *(jnp.concatenate([jnp.zeros_like(one[:1]), one]) for one in (horizons, scores)))
    result = meta_gradient(
        _corrected(problem, log_prob),
        raw,
        spec,
        state,
        weighed,
        None,
        estimator=_Reweighted(weights.steps),
        mode=mode,
        recording=recording,
    )
    outer_losses, outer_aux = result.aux.outer
    if weights.horizons is None:
        outer_losses, outer_aux = jax.tree.map(lambda leaf: leaf[-1:], (outer_losses, outer_aux))
        horizons = horizons[-1:]
    aux = result.aux._replace(outer=outer_aux, outer_losses=outer_losses)
    outer_loss = jnp.dot(horizons.astype(outer_losses.dtype), outer_losses)
    finite = all_finite((result.grad, outer_loss))
    return result._replace(outer_loss=outer_loss, aux=aux, finite=finite)


def correction_coefficients(
    advantages: Float[Array, " horizons"], horizons: Float[Array, " horizons"]
) -> Float[Array, " horizons"]:
    """c_j = -sum_{k > j} h_k (R(tau_k) - b), j = 1 .. L; the last one is 0.

    Args:
        advantages: R(tau_k) - b, k = 1 .. L.
        horizons: h_k.
    """
    weighted = horizons * advantages
    return weighted - jnp.cumsum(weighted[::-1])[::-1]


def check_correctable(estimator: AbstractEstimator) -> AbstractLinearEstimator:
    """The estimator, or a ValueError that names those which can be corrected."""
    if isinstance(estimator, AbstractLinearEstimator):
        return estimator
    raise ValueError(
        f"a sampling correction needs the weights of a linear estimator, but {type(estimator).__name__} is none; use "
        "Unrolled, Truncated, TruncationMix or HorizonMix, or leave the correction out."
    )


def _scalar(reward: Callable[[PyTree], Array]) -> Callable[[PyTree], Array]:
    """The same reward, refused where it has a shape; whole numbers and booleans will do."""

    def checked(batch: PyTree) -> Array:
        value = jnp.asarray(reward(batch))
        if value.shape != ():
            raise ValueError(
                f"reward must be a scalar for each batch, of shape (), but has shape {value.shape}; take its mean, in "
                "units of the outer loss."
            )
        return value

    return checked


def _corrected(problem: MetaProblemLike, log_prob: Callable[[PyTree, PyTree], Array]) -> MetaProblemLike:
    """The derived problem, over batches of `_WeighedBatch`; its outer aux is (J, aux of J)."""

    def add(evaluated: tuple[Array, PyTree], state: PyTree, weighed: _WeighedBatch) -> tuple[Array, Any]:
        loss, aux = evaluated
        likelihood = log_prob(state, weighed.batch)
        check_scalar(likelihood, "log_prob")
        total = weighed.weight.astype(loss.dtype) * loss
        return total + weighed.score.astype(loss.dtype) * likelihood, (loss, aux)

    if not isinstance(problem, GradientLearner):
        return MetaProblem(
            lambda state, eta, weighed: problem.update(state, eta, weighed.batch),
            lambda state, weighed: add(problem.outer_loss(state, weighed.batch), state, weighed),
        )
    parts = problem.microbatches

    def part(weighed: _WeighedBatch, index: Array) -> _WeighedBatch:
        assert parts is not None
        # A log-probability is a sum over the batch, and of the parts the mean is taken.
        return weighed._replace(batch=parts.part(weighed.batch, index), score=parts.num_parts * weighed.score)

    learner = problem.map_batch(lambda weighed: weighed.batch, None if parts is None else part)
    return learner.with_outer_loss(lambda state, weighed: add(learner.outer_loss_of(state, weighed), state, weighed))
