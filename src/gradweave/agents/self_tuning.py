"""A learner that tunes its own hyper-parameters while it learns: agent x estimator x mode x meta-optimiser.

One meta-step is one window of L inner updates. Each update uses the newest rollout, each rollout the newest parameters;
the outer loss of x_k is taken on the rollout collected *after* update k, which then drives update k + 1 (online
cross-validation, Xu et al. 2018, arXiv 1805.09801), and the last one is the first batch of the next window. No
environment step is spent on the outer loss alone. The environment is never inside a differentiated function: states,
inner gradients and batches are recorded while learning, and the meta-gradient is taken of the recording.
"""

import functools
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from gradweave.agents.actor_critic import ActorCriticEta
from gradweave.agents.collection import collect_with
from gradweave.agents.experience import AdvantageMoments, Apply, Experience, policy_logits
from gradweave.agents.objectives import OuterObjective, log_likelihood, mean_reward
from gradweave.agents.running import (
    WindowStatistics,
    advantage_moments,
    empty_statistics,
    reward_baseline,
    with_window,
)
from gradweave.agents.schedule import ScheduleNetwork
from gradweave.agents.state import CollectedWindow, MetaStepMetrics, SelfTuningState, Updated
from gradweave.core import (
    AbstractEstimator,
    AbstractMode,
    GradientLearner,
    HorizonRecording,
    LearnerState,
    MetaGradient,
    MetaProblemLike,
    Recording,
    SamplingCorrection,
    clip_raw,
    constrain,
    contextual,
    corrected_meta_gradient,
    meta_gradient,
)
from gradweave.core.bijectors import learned_to_eta, split_learned
from gradweave.core.estimators.base import chosen_mode
from gradweave.core.learner import RecordedBatch
from gradweave.core.modes.base import ravel_learned
from gradweave.core.modes.forward import tracked_horizons, tracked_update, zero_tangents
from gradweave.core.sampling_correction import check_correctable
from gradweave.envs import Observation, VectorEnvironment
from gradweave.rl import EpisodeTotals, RolloutState, init_rollout, mode, rollout, sample

_FOR_ESTIMATOR = 1 << 31  # the first numbers folded into a key give what splitting it gives

__all__ = ["CollectedWindow", "MetaStepMetrics", "SelfTuning", "SelfTuningState"]


class SelfTuning(eqx.Module):
    """Joins an agent to an estimator, a mode and a meta-optimiser.

    Attributes:
        problem: the agent, from `actor_critic`.
        apply: its network.
        environment: where it acts; shared by all inner steps. If its environments are split over an axis of devices,
            `init` and `step` are to be called inside a `jax.shard_map` over that axis, and `problem` and a distance in
            the estimator have to know the axis as well.
        initial_raw: where the meta-parameters start, unconstrained.
        spec: bijectors; every leaf `Fixed` makes this plain actor-critic, and nothing is spent on a meta-gradient.
        estimator: what meta-gradient is estimated.
        mode: how it is differentiated.
        meta_optimizer: moves the unconstrained meta-parameters, learning rate included; it is not differentiated
            through.
        num_inner_steps: L, at least 1.
        num_steps: steps of each environment in one inner batch.
        condition_on_eta: feed the learned raw meta-parameters to the network (Xu et al. 2018, section 2.3).
        outer_rollout: "next": the rollout after update k, which drives update k + 1, is also what the outer loss is
            evaluated on at x_k. "own": a rollout after every update serves the outer loss alone, as in Bonnet et al.
            2022 (arXiv 2211.10550); its steps are counted, and the environments go on from its end. No such rollout is
            made where nothing is learned.
        objective: the outer objective that `problem` was made with; needed only where it has a `kl_cost` or
            standardises advantages, for which more has to be noted than the trajectories.
        sampling_correction: account for how the meta-parameters change the data; None does not.
        schedule: a network that moves the meta-parameters by statistics of learning; None leaves them to the
            meta-optimiser alone.
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
    outer_rollout: str = eqx.field(static=True, default="next")
    objective: OuterObjective | None = None
    sampling_correction: SamplingCorrection | None = None
    schedule: ScheduleNetwork | None = None

    def __check_init__(self) -> None:
        if self.num_inner_steps < 1 or self.num_steps < 1:
            raise ValueError(
                f"num_inner_steps={self.num_inner_steps} and num_steps={self.num_steps} must both be at least 1."
            )
        if self.outer_rollout not in ("next", "own"):
            raise ValueError(f'outer_rollout={self.outer_rollout!r} is not known: give "next" or "own".')
        if self.learns:
            self.estimator.check(self.num_inner_steps)
            chosen_mode(self.estimator, self.mode)
            if self.sampling_correction is not None:
                check_correctable(self.estimator)
                if self.outer_rollout == "own":
                    raise ValueError(
                        "a sampling correction needs batches that update and evaluate: outer_rollout next."
                    )
                if self.objective is not None and self.objective.standardize_advantages:
                    raise ValueError("a sampling correction is in units of rewards, standardised advantages are not.")
        elif self.schedule is not None:
            raise ValueError(
                "a schedule moves learned meta-parameters, but every leaf of the spec is Fixed; let one be learned, or "
                "leave the schedule out."
            )

    @property
    def learns(self) -> bool:
        """Whether any meta-parameter is learned."""
        return bool(jax.tree.leaves(split_learned(self.initial_raw, self.spec)[0]))

    @property
    def steps_per_rollout(self) -> int:
        """Environment steps of one inner batch."""
        return self.environment.num_envs * self.num_steps

    def environment_steps(self, num_meta_steps: int) -> int:
        """Environment steps taken after that many meta-steps, the very first rollout and outer rollouts included."""
        per_window = self.num_inner_steps * (2 if self.collects_outer else 1)
        return (1 + num_meta_steps * per_window) * self.steps_per_rollout

    @property
    def collects_outer(self) -> bool:
        """Whether rollouts are collected for the outer loss alone."""
        return self.learns and self.outer_rollout == "own"

    def init(self, params: PyTree, *, key: Key[Array, ""]) -> SelfTuningState:
        """The state before the first meta-step; takes the first rollout.

        Args:
            params: the network's initial parameters.
            key: for the environments and all randomness after.
        """
        raw: PyTree = self.initial_raw
        if self.schedule is not None:
            key, schedule_key = jax.random.split(key)
            raw = self.schedule.init(raw, self.spec, key=schedule_key)
        key, reset_key, rollout_key = jax.random.split(key, 3)
        running = init_rollout(self.environment, key=reset_key)
        running, batch, _ = self.collect(params, raw, running, key=rollout_key)
        learner = self.problem.init(params)
        return SelfTuningState(
            learner=learner,
            raw=raw,
            meta_optimizer_state=self.meta_optimizer.init(split_learned(raw, self.meta_spec)[0]),
            # fold_in leaves the key itself untouched: agents without such an estimator stay what they were, to the bit.
            estimator_state=self.estimator.init(
                raw, self.meta_spec, learner, key=jax.random.fold_in(key, _FOR_ESTIMATOR)
            ),
            rollout=running,
            batch=batch,
            key=key,
            num_meta_steps=jnp.zeros((), jnp.int32),
            statistics=self._statistics(),
        )

    def step(self, state: SelfTuningState) -> tuple[SelfTuningState, MetaStepMetrics]:
        """One meta-step: L rollouts and updates, then one move of the meta-parameters.

        Pure, made to be scanned. A bound method of a module with arrays cannot be hashed, so jit it as
        `jax.jit(lambda state: agent.step(state))`.
        """
        key, window_key = jax.random.split(state.key)
        collect = self.collect_tracked_window if self.tracks_tangents else self.collect_window
        window = collect(state, key=window_key)
        learner = window.recording.final_state
        raw, meta_state = state.raw, state.meta_optimizer_state
        memory, statistics = state.estimator_state, state.statistics
        grad, outer_loss, outer = jax.tree.map(jnp.zeros_like, raw), jnp.zeros(()), {}
        if self.learns:
            result = self.window_gradient(state, window)
            grad, outer_loss, memory = result.grad, result.outer_loss, result.estimator_state
            outer = jax.tree.map(jnp.mean, result.aux.outer)
            raw, meta_state = self._move(raw, grad, meta_state)
            statistics = with_window(statistics, outer, self._mean_rewards(window.batches))
        if self.schedule is not None:
            context = state.raw.context.observe(window.episodes, window.aux["gradient_norm"])
            raw = raw._replace(context=context)
        new_state = SelfTuningState(
            learner, raw, meta_state, memory, window.rollout, window.batch, key, state.num_meta_steps + 1, statistics
        )
        metrics = MetaStepMetrics(
            episodes=jax.tree.map(jnp.sum, window.episodes),
            eta=self.eta(state.raw),
            raw=self.raw_eta(state.raw),
            # A schedule adds to its base, so that the derivative by the base is that by the sum.
            grad=grad if self.schedule is None else grad.weights.base,
            outer_loss=outer_loss,
            inner=jax.tree.map(jnp.mean, window.aux),
            outer=outer,
            finite=_all_finite((learner.params, raw, grad)),
        )
        return new_state, metrics

    @property
    def meta_problem(self) -> MetaProblemLike:
        """What is differentiated: `problem`, over the schedule's weights if there is one."""
        schedule = self.schedule
        if schedule is None:
            return self.problem
        return contextual(self.problem, lambda weights, context: schedule.eta(weights, context, self.spec))

    @property
    def meta_spec(self) -> PyTree:
        """Bijectors of the raw meta-parameters as the state holds them."""
        return self.spec if self.schedule is None else self.schedule.spec(self.spec)

    def raw_eta(self, raw: PyTree) -> ActorCriticEta:
        """The unconstrained meta-parameters in use: `raw` itself, or what a schedule makes of it."""
        return raw if self.schedule is None else self.schedule.raw_eta(raw.weights, raw.context, self.spec)

    def eta(self, raw: PyTree) -> ActorCriticEta:
        """The natural meta-parameters in use."""
        return constrain(self.raw_eta(raw), self.spec)

    def window_gradient(self, state: SelfTuningState, window: CollectedWindow) -> MetaGradient:
        """The meta-gradient of a window that was collected from `state`."""
        recording = window.recording if self.mode.recording is Recording else None
        if self.sampling_correction is None:
            return meta_gradient(
                self.meta_problem,
                state.raw,
                self.meta_spec,
                state.learner,
                window.batches,
                window.outer_batches,
                estimator=self.estimator,
                mode=self.mode,
                estimator_state=state.estimator_state,
                recording=recording if window.horizons is None else window.horizons,
            )
        return corrected_meta_gradient(
            self.meta_problem,
            state.raw,
            self.meta_spec,
            state.learner,
            window.batches,
            correction=self.sampling_correction,
            log_prob=functools.partial(log_likelihood, axis=self.environment.axis),
            reward=functools.partial(mean_reward, axis=self.environment.axis),
            estimator=self.estimator,
            baseline=reward_baseline(state.statistics),
            mode=self.mode,
            recording=recording,
        )

    @property
    def tracks_tangents(self) -> bool:
        """Whether tangents are carried through the updates while they are made, so that forward mode replays nothing.

        Not where the estimate needs other weights than the horizons', not where rollouts are collected for the outer
        loss alone, and not where batches are annotated for the outer objective, which is done when all are there.
        """
        objective = self.objective
        annotates = objective is not None and (objective.kl_cost != 0 or objective.standardize_advantages)
        return (
            self.learns
            and self.mode.recording is HorizonRecording
            and self.estimator.reads_horizons(self.num_inner_steps)
            and self.sampling_correction is None
            and not self.collects_outer
            and not annotates
        )

    def collect_window(self, state: SelfTuningState, *, key: Key[Array, ""]) -> CollectedWindow:
        """L updates at fixed meta-parameters, each on the newest rollout, and a rollout after each. Moves no
        meta-parameter.
        """
        eta = self.eta(state.raw)

        def update(learner: LearnerState, tangents: None, batch: Experience | RecordedBatch) -> Updated:
            gradient, aux = self.problem.inner_gradient(learner, eta, batch)
            return Updated(self.problem.apply_gradient(gradient, learner, eta), None, (gradient, aux), None)

        return collect_with(self, update, None, state, key=key)[0]

    def collect_tracked_window(self, state: SelfTuningState, *, key: Key[Array, ""]) -> CollectedWindow:
        """The same with tangents carried along, and so with every horizon's gradient. Only where `tracks_tangents`."""
        problem = cast(GradientLearner, self.meta_problem)
        learned, fixed = split_learned(state.raw, self.meta_spec)
        to_eta = learned_to_eta(fixed, self.meta_spec)

        def update(learner: LearnerState, tangents: PyTree, batch: Experience) -> Updated:
            return Updated(*tracked_update(problem, to_eta, learned, learner, tangents, batch))

        start = zero_tangents(state.learner, ravel_learned(learned)[0].size)
        window, tangents, judged = collect_with(self, update, start, state, key=key)
        learner = window.recording.final_state
        return window._replace(horizons=tracked_horizons(problem, learner, tangents, judged, window.batch))

    def collect(
        self, params: PyTree, raw: PyTree, running: RolloutState, *, key: Key[Array, ""]
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
            return sample(outputs.logits, observations.action_mask, key=key, axis=self.environment.axis)

        return act

    def greedy_policy(self, params: PyTree, conditioning: Array | None) -> Any:
        """The most probable action of these parameters, `(observations, key) -> actions`; the key is not used."""

        def act(observations: Observation, key: Key[Array, ""]) -> Int[Array, " batch"]:
            outputs = jax.vmap(lambda observation: self.apply(params, observation, conditioning))(observations)
            return mode(outputs.logits, observations.action_mask)

        return act

    def conditioning(self, raw: PyTree) -> Float[Array, " size"] | None:
        """What the network is fed beside the observation: the learned raw meta-parameters, None if there are none."""
        if not (self.condition_on_eta and self.learns):
            return None
        return ravel_pytree(split_learned(self.raw_eta(raw), self.spec)[0])[0]

    def annotated(self, batches: Experience, state: SelfTuningState) -> Experience:
        """The batches of a window with what the outer objective reads beside them."""
        objective = self.objective
        if objective is None or not self.learns:
            return batches
        if objective.kl_cost != 0:
            logits = jax.lax.map(lambda batch: policy_logits(self.apply, state.learner.params, batch), batches)
            batches = batches._replace(anchor_logits=logits)
        if objective.standardize_advantages and state.statistics is not None:
            moments = advantage_moments(state.statistics)
            count = batches.trajectory.rewards.shape[0]
            batches = batches._replace(
                advantage_moments=AdvantageMoments(*(jnp.broadcast_to(moment, (count,)) for moment in moments))
            )
        return batches

    def _mean_rewards(self, batches: Experience) -> Float[Array, ""]:
        """Mean reward per step of a window; the first batch belongs to the window before."""
        return self.environment.axis.mean(batches.trajectory.rewards[1:].mean())

    def _statistics(self) -> WindowStatistics | None:
        """Before the first window."""
        moments = self.objective is not None and self.objective.standardize_advantages
        return empty_statistics(
            moments=self.learns and moments, reward=self.learns and self.sampling_correction is not None
        )

    def _move(self, raw: PyTree, grad: PyTree, meta_state: PyTree) -> tuple[PyTree, PyTree]:
        # Fixed leaves are kept away from the meta-optimiser: one with weight decay, say, would move them without a
        # gradient.
        learned, fixed = split_learned(raw, self.meta_spec)
        slopes, _ = split_learned(grad, self.meta_spec)
        with jax.numpy_dtype_promotion("standard"):  # as in GradientLearner: optax mixes integer counts and floats
            updates, meta_state = self.meta_optimizer.update(slopes, meta_state, learned)
        moved = eqx.combine(jax.tree.map(jnp.add, learned, updates), fixed)
        return clip_raw(moved, self.meta_spec), meta_state


def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
