"""Evolution strategies: meta-gradients from differences of outer losses, for learners without derivatives.

With unit normal directions n_i and F(raw) = J(x_L(raw)),

    estimate = 1 / (2 sigma N) sum_i n_i (F(raw + sigma n_i) - F(raw - sigma n_i)),

the gradient of F smoothed by a normal distribution of width sigma, antithetic (Salimans et al. 2017, arXiv
1703.03864). Persistent evolution strategies (Vicol, Metz, Sohl-Dickstein 2021, arXiv 2112.13835) remove the bias of
short windows: every particle keeps its own learner from window to window, and its loss is credited to the sum of all
perturbations that this learner has lived under,

    estimate = 1 / (2 sigma N) sum_i (n_i^1 + ... + n_i^t) (J(x^{i+}_t) - J(x^{i-}_t)),

which is unbiased for the smoothed gradient of the loss after window t through all t windows.
"""

import warnings
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from gradweave.core.bijectors import as_float, split_learned
from gradweave.core.contract import strong
from gradweave.core.estimators.base import AbstractEstimator, checked_memory
from gradweave.core.estimators.trace import check_memory_shapes
from gradweave.core.modes.base import AbstractMode, Differentiand, Differentiated, leading, ravel_learned
from gradweave.core.problem import unroll


class EvolutionMemory(NamedTuple):
    """`key` for the perturbations to come."""

    key: Key[Array, ""]


class PersistentEvolutionMemory(NamedTuple):
    """State of the particles between windows.

    Attributes:
        key: for the perturbations to come.
        states: learner states, leading axes (2, num_pairs): under +n and under -n.
        perturbations: sum of all n_i since the particles' start, (num_pairs, P).
        num_windows: windows since the particles' start.
    """

    key: Key[Array, ""]
    states: PyTree
    perturbations: Float[Array, "pairs P"]
    num_windows: Int[Array, ""]


def _one_pair_for_true(num_pairs: int) -> int:
    if num_pairs is not True:
        return num_pairs
    warnings.warn(
        "EvolutionStrategies(num_pairs=True) draws one pair, num_pairs=1; particles that keep their learners from "
        "window to window are PersistentEvolutionStrategies(sigma).",
        stacklevel=4,
    )
    return 1


class EvolutionStrategies(AbstractEstimator):
    """The smoothed gradient of the window's last outer loss, from 2 num_pairs perturbed unrolls.

    Costs 2 num_pairs unrolls, all at once, and nothing is differentiated: neither the update nor the outer loss needs a
    derivative. At small sigma an unbiased estimate of `Unrolled`, if the outer loss stops no derivatives: differences
    see terms that `stop_gradient` hides, e.g. the returns and baselines of an actor-critic's outer loss. Its variance
    grows with the number P of meta-parameters, about (P + 1) / num_pairs times the squared gradient even on noiseless
    data. Not for anything that can be differentiated and is smooth; of use as a reference, and where the loss is so
    rugged that smoothing helps.

    Attributes:
        sigma: width of the perturbations in raw units, above 0.
        num_pairs: N, at least 1.
    """

    supported_modes: ClassVar[tuple[type[AbstractMode], ...]] = ()

    sigma: float = eqx.field(static=True)
    num_pairs: int = eqx.field(static=True, default=8, converter=_one_pair_for_true)

    def __check_init__(self) -> None:
        _check_fields(type(self).__name__, self.sigma, self.num_pairs)

    def init(self, raw: PyTree, spec: PyTree, state: PyTree, *, key: Key[Array, ""] | None = None) -> EvolutionMemory:
        """The key for all perturbations to come; a fixed one for None."""
        return EvolutionMemory(jax.random.key(0) if key is None else key)

    def check(self, num_inner_steps: int) -> None:
        """Every length will do."""

    def estimate(self, differentiand: Differentiand, mode: AbstractMode, memory: PyTree) -> tuple[Differentiated, Any]:
        """Draw directions and compare both sides."""
        key, noise_key = jax.random.split(checked_memory(self, memory).key)
        flat, unravel = ravel_learned(differentiand.learned)
        noise = jax.random.normal(noise_key, (self.num_pairs, flat.size), flat.dtype)
        start = differentiand.window.state
        outer_loss_of = _outer_loss_of(differentiand)
        losses, _ = jax.vmap(jax.vmap(lambda offset: outer_loss_of(flat + offset, start)))(
            self.sigma * _both_signs(noise)
        )
        gradient = _credit(losses, noise, self.sigma)
        return _at_center(differentiand, unravel(gradient)), EvolutionMemory(key)


class PersistentEvolutionStrategies(AbstractEstimator):
    """The smoothed gradient of the window's last outer loss through *all* windows since the particles' start.

    Costs 2 num_pairs unrolls, as the plain kind, and memory holds as many learner states. Unbiased however short the
    windows; the variance grows with the number of windows since the start, so particles should start anew with each
    inner problem, or every `num_windows`. Particles see the recorded batches, which the unperturbed learner collected:
    in reinforcement learning these are off-policy for them, and the more so the longer they live.

    Attributes:
        sigma: width of the perturbations in raw units, above 0.
        num_pairs: N, at least 1.
        num_windows: the number of windows until all particles start anew from the learner's state; None for never. 1 is
            the plain kind.
    """

    supported_modes: ClassVar[tuple[type[AbstractMode], ...]] = ()

    sigma: float = eqx.field(static=True)
    num_pairs: int = eqx.field(static=True, default=8)
    num_windows: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        _check_fields(type(self).__name__, self.sigma, self.num_pairs)
        if self.num_windows is not None and self.num_windows < 1:
            raise ValueError(
                f"PersistentEvolutionStrategies(num_windows={self.num_windows!r}): at least 1, or None for never."
            )

    def init(
        self, raw: PyTree, spec: PyTree, state: PyTree, *, key: Key[Array, ""] | None = None
    ) -> PersistentEvolutionMemory:
        """All particles at the learner's state; a fixed key for None."""
        learned, _ = split_learned(jax.tree.map(jnp.asarray, raw), spec)
        flat, _ = ravel_learned(jax.tree.map(as_float, learned))
        states = self._spread(jax.tree.map(strong, state))
        perturbations = jnp.zeros((self.num_pairs, flat.size), flat.dtype)
        return PersistentEvolutionMemory(
            jax.random.key(0) if key is None else key, states, perturbations, jnp.zeros((), jnp.int32)
        )

    def check(self, num_inner_steps: int) -> None:
        """Every length will do."""

    def estimate(self, differentiand: Differentiand, mode: AbstractMode, memory: PyTree) -> tuple[Differentiated, Any]:
        """One window further for every particle."""
        key, states, perturbations, num_windows = checked_memory(self, memory)
        key, noise_key = jax.random.split(key)
        flat, unravel = ravel_learned(differentiand.learned)
        needed = (self._spread(differentiand.window.state), jnp.zeros((self.num_pairs, flat.size)))
        check_memory_shapes(self, (states, perturbations), needed)
        # A Python number in the learner's state may have settled at another dtype since `init`.
        states = jax.tree.map(lambda old, now: jnp.asarray(old, now.dtype), states, differentiand.window.state)
        if self.num_windows is not None:
            anew = num_windows >= self.num_windows
            fresh = self._spread(differentiand.window.state)
            states = jax.tree.map(lambda new, old: jnp.where(anew, new, old), fresh, states)
            perturbations = jnp.where(anew, 0, perturbations)
            num_windows = jnp.where(anew, 0, num_windows)
        noise = jax.random.normal(noise_key, perturbations.shape, flat.dtype)
        perturbations = perturbations + noise
        outer_loss_of = _outer_loss_of(differentiand)

        def run(offset: Array, start: PyTree) -> tuple[Array, PyTree]:
            return outer_loss_of(flat + offset, start)

        losses, states = jax.vmap(jax.vmap(run))(self.sigma * _both_signs(noise), states)
        gradient = _credit(losses, perturbations, self.sigma)
        carried = PersistentEvolutionMemory(key, states, perturbations, num_windows + 1)
        return _at_center(differentiand, unravel(gradient)), carried

    def _spread(self, state: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (2, self.num_pairs, *leaf.shape)), state)


def _outer_loss_of(differentiand: Differentiand) -> Callable[[Array, PyTree], tuple[Array, PyTree]]:
    """`(flat learned numbers, x_0) -> (J(x_L), x_L)` on the window's data."""
    problem, to_eta, learned, window = differentiand
    _, unravel = ravel_learned(learned)

    def outer_loss_of(flat: Array, state: PyTree) -> tuple[Array, PyTree]:
        final, _ = unroll(problem, to_eta(unravel(flat)), state, window.inner)
        return problem.outer_loss(final, window.last_outer)[0], final

    return outer_loss_of


def _both_signs(noise: Array) -> Array:
    return jnp.stack([noise, -noise])


def _credit(losses: Float[Array, "2 pairs"], directions: Float[Array, "pairs P"], sigma: float) -> Float[Array, " P"]:
    ahead, behind = losses.astype(directions.dtype)
    return (ahead - behind) @ directions / (2 * sigma * directions.shape[0])


def _at_center(differentiand: Differentiand, grad: PyTree) -> Differentiated:
    """The estimate with the results of the unperturbed learner; its updates are not made where recorded."""
    problem, window = differentiand.problem, differentiand.window
    if window.recording is None:
        final, inner_aux = unroll(problem, differentiand.eta, window.state, window.inner)
    else:
        final, inner_aux = window.recording.final_state, None
    outer_loss, outer_aux = problem.outer_loss(final, window.last_outer)
    outer_losses, outer_aux = leading((outer_loss, outer_aux))
    return Differentiated(grad, outer_loss, outer_losses, outer_aux, inner_aux, final)


def _check_fields(name: str, sigma: float, num_pairs: int) -> None:
    if not sigma > 0:
        raise ValueError(f"{name}(sigma={sigma!r}): the width of the perturbations must be above 0, 0.1 for instance.")
    if isinstance(num_pairs, bool) or not isinstance(num_pairs, int) or num_pairs < 1:
        raise ValueError(f"{name}(num_pairs={num_pairs!r}): an integer of at least 1 is needed.")
