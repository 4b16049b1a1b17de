"""A learner that tunes its own hyper-parameters while it learns: agent x estimator x mode x meta-optimiser.

One meta-step is one window of L inner updates. Each update uses the newest rollout, each rollout the newest parameters;
the rollout collected *after* update k judges it and then drives update k + 1 (online cross-validation, Xu et al. 2018,
arXiv 1805.09801), and the last one is the first batch of the next window. No environment step is spent on the outer
loss alone. The environment is never inside a differentiated function: states, inner gradients and batches are recorded
while learning, and the meta-gradient is taken of the recording.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from gradweave.agents.actor_critic import ActorCriticEta, Apply, Experience
from gradweave.core import (
    AbstractEstimator,
    AbstractMode,
    GradientLearner,
    LearnerState,
    MixedMode,
    Recording,
    constrain,
    meta_gradient,
)
from gradweave.core.bijectors import split_learned
from gradweave.envs import Observation, VectorEnvironment
from gradweave.rl import EpisodeTotals, RolloutState, init_rollout, mode, rollout, sample

__all__ = ["CollectedWindow", "MetaStepMetrics", "SelfTuning", "SelfTuningState"]


class SelfTuningState(NamedTuple):
    """Everything that changes: arrays only, so that it can be checkpointed and scanned.

    Attributes:
        learner: parameters and inner optimiser.
        raw: unconstrained meta-parameters.
        meta_optimizer_state: of the meta-optimiser.
        estimator_state: the estimator's memory, or None.
        rollout: the running episodes.
        batch: the newest rollout, not yet used for an update.
        key: for all randomness to come.
        num_meta_steps: windows finished so far.
    """

    learner: LearnerState
    raw: ActorCriticEta
    meta_optimizer_state: PyTree
    estimator_state: PyTree
    rollout: RolloutState
    batch: Experience
    key: Key[Array, ""]
    num_meta_steps: Int[Array, ""]


class MetaStepMetrics(NamedTuple):
    """What one meta-step reports. Inner quantities are means over the window.

    Attributes:
        episodes: totals over the episodes that ended within the window.
        eta: the natural meta-parameters that the window used.
        raw: the same, unconstrained.
        grad: the meta-gradient with respect to `raw`; 0 where nothing is learned.
        outer_loss: what was differentiated; 0 for plain learning.
        inner: auxiliary scalars of the inner updates, and "gradient_norm".
        outer: auxiliary scalars of the outer loss, empty for plain learning.
        finite: whether parameters, meta-parameters and meta-gradient are all finite.
    """

    episodes: EpisodeTotals
    eta: ActorCriticEta
    raw: ActorCriticEta
    grad: ActorCriticEta
    outer_loss: Float[Array, ""]
    inner: dict[str, Array]
    outer: dict[str, Array]
    finite: Bool[Array, ""]


class CollectedWindow(NamedTuple):
    """What L inner updates, and the rollouts between them, left behind.

    Attributes:
        recording: the learner's states, inner gradients and end.
        batches: leading axis L + 1: batch k drives update k and, from k = 1 on, judges x_k.
        rollout: where the environments stand afterwards.
        batch: the last of `batches`.
        aux: auxiliary scalars of the updates, and "gradient_norm"; leading axis L.
        episodes: totals of each rollout, leading axis L.
    """

    recording: Recording
    batches: Experience
    rollout: RolloutState
    batch: Experience
    aux: dict[str, Array]
    episodes: EpisodeTotals


class SelfTuning(eqx.Module):
    """Joins an agent to an estimator, a mode and a meta-optimiser.

    Attributes:
        problem: the agent, from `actor_critic`.
        apply: its network.
        environment: where it acts; shared by all inner steps.
        initial_raw: where the meta-parameters start, unconstrained.
        spec: bijectors; every leaf `Fixed` makes this plain actor-critic, and nothing is spent on a meta-gradient.
        estimator: what meta-gradient is estimated.
        mode: how it is differentiated.
        meta_optimizer: moves the unconstrained meta-parameters, learning rate included; it is not differentiated
            through.
        num_inner_steps: L, at least 1.
        num_steps: steps of each environment in one inner batch.
        condition_on_eta: feed the learned raw meta-parameters to the network (Xu et al. 2018, section 2.3).
    """

    problem: GradientLearner
    apply: Apply
    environment: VectorEnvironment[Any]
    initial_raw: ActorCriticEta
    spec: ActorCriticEta
    estimator: AbstractEstimator
    mode: AbstractMode
    meta_optimizer: optax.GradientTransformation
    num_inner_steps: int = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)
    condition_on_eta: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if self.num_inner_steps < 1 or self.num_steps < 1:
            raise ValueError(
                f"num_inner_steps={self.num_inner_steps} and num_steps={self.num_steps} must both be at least 1."
            )
        if self.learns:
            self.estimator.check(self.num_inner_steps)

    @property
    def learns(self) -> bool:
        """Whether any meta-parameter is learned."""
        return bool(jax.tree.leaves(split_learned(self.initial_raw, self.spec)[0]))

    @property
    def steps_per_rollout(self) -> int:
        """Environment steps of one inner batch."""
        return self.environment.num_envs * self.num_steps

    def environment_steps(self, num_meta_steps: int) -> int:
        """Environment steps taken after so many meta-steps, the very first rollout included."""
        return (1 + num_meta_steps * self.num_inner_steps) * self.steps_per_rollout

    def init(self, params: PyTree, *, key: Key[Array, ""]) -> SelfTuningState:
        """The state before the first meta-step; takes the first rollout.

        Args:
            params: the network's initial parameters.
            key: for the environments and all randomness after.
        """
        key, reset_key, rollout_key = jax.random.split(key, 3)
        raw = self.initial_raw
        running = init_rollout(self.environment, key=reset_key)
        running, batch, _ = self.collect(params, raw, running, key=rollout_key)
        learner = self.problem.init(params)
        return SelfTuningState(
            learner=learner,
            raw=raw,
            meta_optimizer_state=self.meta_optimizer.init(raw),
            estimator_state=self.estimator.init(raw, self.spec, learner),
            rollout=running,
            batch=batch,
            key=key,
            num_meta_steps=jnp.zeros((), jnp.int32),
        )

    def step(self, state: SelfTuningState) -> tuple[SelfTuningState, MetaStepMetrics]:
        """One meta-step: L rollouts and updates, then one move of the meta-parameters. Pure; made to be scanned and
        jitted.
        """
        key, window_key = jax.random.split(state.key)
        window = self.collect_window(state, key=window_key)
        learner = window.recording.final_state
        raw, meta_state, memory = state.raw, state.meta_optimizer_state, state.estimator_state
        grad, outer_loss, outer = jax.tree.map(jnp.zeros_like, raw), jnp.zeros(()), {}
        if self.learns:
            result = meta_gradient(
                self.problem,
                raw,
                self.spec,
                state.learner,
                window.batches,
                None,
                estimator=self.estimator,
                mode=self.mode,
                estimator_state=memory,
                recording=window.recording if isinstance(self.mode, MixedMode) else None,
            )
            grad, outer_loss, memory = result.grad, result.outer_loss, result.estimator_state
            outer = jax.tree.map(jnp.mean, result.aux.outer)
            raw, meta_state = self._move(raw, grad, meta_state)
        new_state = SelfTuningState(
            learner, raw, meta_state, memory, window.rollout, window.batch, key, state.num_meta_steps + 1
        )
        metrics = MetaStepMetrics(
            episodes=jax.tree.map(jnp.sum, window.episodes),
            eta=constrain(state.raw, self.spec),
            raw=state.raw,
            grad=grad,
            outer_loss=outer_loss,
            inner=jax.tree.map(jnp.mean, window.aux),
            outer=outer,
            finite=_all_finite((learner.params, raw, grad)),
        )
        return new_state, metrics

    def collect_window(self, state: SelfTuningState, *, key: Key[Array, ""]) -> CollectedWindow:
        """L updates at fixed meta-parameters, each on the newest rollout, and a rollout after each. Moves no
        meta-parameter.
        """
        eta = constrain(state.raw, self.spec)

        def inner_step(carry: tuple[LearnerState, RolloutState, Experience], key: Key[Array, ""]) -> tuple[Any, Any]:
            learner, running, batch = carry
            gradient, aux = self.problem.inner_gradient(learner, eta, batch)
            after = self.problem.apply_gradient(gradient, learner, eta)
            running, next_batch, episodes = self.collect(after.params, state.raw, running, key=key)
            aux = aux | {"gradient_norm": optax.tree.norm(gradient)}
            return (after, running, next_batch), (learner, gradient, batch, aux, episodes)

        start = (state.learner, state.rollout, state.batch)
        end, kept = jax.lax.scan(inner_step, start, jax.random.split(key, self.num_inner_steps))
        (learner, running, batch), (states, gradients, batches, aux, episodes) = end, kept
        batches = jax.tree.map(lambda early, last: jnp.concatenate([early, last[None]]), batches, batch)
        return CollectedWindow(Recording(states, gradients, learner), batches, running, batch, aux, episodes)

    def collect(
        self, params: PyTree, raw: ActorCriticEta, running: RolloutState, *, key: Key[Array, ""]
    ) -> tuple[RolloutState, Experience, EpisodeTotals]:
        """One inner batch: a rollout of every environment with these parameters."""
        conditioning = self.conditioning(raw)
        policy = self.policy(params, conditioning)
        running, trajectory, episodes = rollout(policy, self.environment, running, self.num_steps, key=key)
        return running, Experience(trajectory, conditioning), episodes

    def policy(self, params: PyTree, conditioning: Array | None) -> Any:
        """The sampled policy of these parameters, `(observations, key) -> actions`."""

        def act(observations: Observation, key: Key[Array, ""]) -> Int[Array, " batch"]:
            outputs = jax.vmap(lambda observation: self.apply(params, observation, conditioning))(observations)
            return sample(outputs.logits, observations.action_mask, key=key)

        return act

    def greedy_policy(self, params: PyTree, conditioning: Array | None) -> Any:
        """The most probable action of these parameters, `(observations, key) -> actions`; the key is not used."""

        def act(observations: Observation, key: Key[Array, ""]) -> Int[Array, " batch"]:
            outputs = jax.vmap(lambda observation: self.apply(params, observation, conditioning))(observations)
            return mode(outputs.logits, observations.action_mask)

        return act

    def conditioning(self, raw: ActorCriticEta) -> Float[Array, " size"] | None:
        """What the network is fed beside the observation: the learned raw meta-parameters, or None."""
        if not self.condition_on_eta:
            return None
        return ravel_pytree(split_learned(raw, self.spec)[0])[0]

    def _move(self, raw: ActorCriticEta, grad: ActorCriticEta, meta_state: PyTree) -> tuple[ActorCriticEta, PyTree]:
        with jax.numpy_dtype_promotion("standard"):  # as in GradientLearner: optax mixes integer counts and floats
            updates, meta_state = self.meta_optimizer.update(grad, meta_state, raw)
        return jax.tree.map(jnp.add, raw, updates), meta_state


def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
