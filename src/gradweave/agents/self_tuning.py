"""A learner that tunes its own hyper-parameters while it learns: agent x estimator x mode x meta-optimiser.

One meta-step is one window of L inner updates. Each update uses the newest rollout, each rollout the newest parameters;
the outer loss of x_k is taken on the rollout collected *after* update k, which then drives update k + 1 (online
cross-validation, Xu et al. 2018, arXiv 1805.09801), and the last one is the first batch of the next window. No
environment step is spent on the outer loss alone. The environment is never inside a differentiated function: states,
inner gradients and batches are recorded while learning, and the meta-gradient is taken of the recording.
"""

from collections.abc import Mapping
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Key, PyTree

from gradweave.agents.agent import Agent
from gradweave.agents.checks import check_parts
from gradweave.agents.collection import collect_rollout, collect_with
from gradweave.agents.differentiation import sampling_terms, window_gradient
from gradweave.agents.return_guard import ReturnGuard
from gradweave.agents.running import DECAY, RunningMean
from gradweave.agents.schedule import ScheduleNetwork
from gradweave.agents.state import (
    CollectedWindow,
    MetaStepMetrics,
    SelfTuningState,
    Updated,
    carried_on,
    learning_part,
    named_leaves,
)
from gradweave.agents.trust_region import cut_to_trust_region
from gradweave.agents.tuners import AbstractTuner, seen_by, start_tuners, tune
from gradweave.core import (
    AbstractEstimator,
    AbstractMode,
    GradientLearner,
    HorizonRecording,
    LearnerState,
    MetaGradient,
    MetaProblemLike,
    MinibatchLearner,
    SamplingCorrection,
    clip_raw,
    constrain,
    contextual,
)
from gradweave.core.bijectors import learned_to_eta, split_learned
from gradweave.core.finite import all_finite
from gradweave.core.learner import sliced_out
from gradweave.core.modes.base import ravel_learned
from gradweave.core.modes.forward import tracked_horizons, tracked_update, zero_tangents
from gradweave.envs import Observation, VectorEnvironment
from gradweave.rl import (
    Acted,
    EpisodeTotals,
    Normalization,
    Policy,
    RolloutState,
    init_rollout,
    normalized,
    pooled,
)

_FOR_ESTIMATOR = 1 << 31  # the first numbers give the keys of a split

__all__ = ["CollectedWindow", "MetaStepMetrics", "SelfTuning", "SelfTuningState"]


class SelfTuning(eqx.Module):
    """Joins an agent to an estimator, a mode and a meta-optimiser.

    Attributes:
        agent: the learner with its policy, from `actor_critic_agent` for example.
        environment: of the agent; shared by all inner steps. If its environments are split over an axis of devices,
            `init` and `step` are to be called inside a `jax.shard_map` over that axis, and the agent and a distance in
            the estimator have to know the axis as well.
        initial_raw: the initial unconstrained meta-parameters.
        spec: bijectors; every leaf `Fixed` makes this plain actor-critic, and nothing is spent on a meta-gradient.
        estimator: of the meta-gradient.
        mode: the mode of differentiation.
        meta_optimizer: moves the unconstrained meta-parameters, learning rate included; it is not differentiated
            through.
        num_inner_steps: L, at least 1.
        num_steps: steps of each environment in one inner batch.
        condition_on_eta: feed the learned raw meta-parameters to the network (Xu et al. 2018, section 2.3).
        outer_rollout: "next": the outer loss at x_k is evaluated on the rollout after update k, which also drives
            update k + 1. "own": a rollout after every update serves the outer loss alone, as in Bonnet et al.
            2022 (arXiv 2211.10550); its steps are counted, and the environments go on from its end. No such rollout is
            made where nothing is learned.
        sampling_correction: account for how the meta-parameters change the data; None does not.
        schedule: a network that moves the meta-parameters by statistics of learning; None leaves them to the
            meta-optimiser alone.
        tuners: rules that move meta-parameters without a gradient, by their names (`gradweave.agents.tuners`); the spec
            of each is `Fixed`.
        guard: goes back to an earlier state when returns were lost for long; None does not.
        trust_region: limit, in nats, on the policy's next update after a move of the learned meta-parameters;
            a move is cut to that (`gradweave.agents.trust_region`). None: no limit.
    """

    agent: Agent
    environment: VectorEnvironment[Any]
    initial_raw: PyTree
    spec: PyTree
    estimator: AbstractEstimator
    mode: AbstractMode
    meta_optimizer: optax.GradientTransformation
    num_inner_steps: int = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)
    condition_on_eta: bool = eqx.field(static=True, default=False)
    outer_rollout: str = eqx.field(static=True, default="next")
    sampling_correction: SamplingCorrection | None = None
    schedule: ScheduleNetwork | None = None
    tuners: Mapping[str, AbstractTuner] = eqx.field(default_factory=dict)
    guard: ReturnGuard | None = None
    trust_region: float | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        check_parts(self)

    @property
    def problem(self) -> MetaProblemLike:
        """The agent's learner."""
        return self.agent.problem

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
        learned, fixed = split_learned(raw, self.meta_spec)
        fixed, tuner_states = start_tuners(self.tuners, fixed)
        raw = eqx.combine(learned, fixed)
        running = init_rollout(
            self.environment,
            memory=self.agent.memory,
            reward_discount=self._reward_discount(fixed),
            counts_observations=self.agent.normalize_observations,
            key=reset_key,
        )
        running, batch, _ = self.collect(params, raw, running, key=rollout_key)
        learner, annotation = self.agent.start(params), self.agent.annotation
        state = SelfTuningState(
            learner=learner,
            learned=learned,
            fixed=fixed,
            meta_optimizer_state=self.meta_optimizer.init(learned),
            # fold_in leaves the key itself untouched: agents without such an estimator are unchanged, to the bit.
            estimator_state=self.estimator.init(
                raw, self.meta_spec, learner, key=jax.random.fold_in(key, _FOR_ESTIMATOR)
            ),
            rollout=running,
            batch=batch,
            key=key,
            num_meta_steps=jnp.zeros((), jnp.int32),
            statistics=annotation.initial() if annotation is not None and self.learns else None,
            usual_reward=RunningMean.empty() if self.learns and self.sampling_correction is not None else None,
            tuner_states=tuner_states,
        )
        return state if self.guard is None else state._replace(guard=self.guard.start(state))

    def step(self, state: SelfTuningState) -> tuple[SelfTuningState, MetaStepMetrics]:
        """One meta-step: L rollouts and updates, then one move of the meta-parameters.

        Pure, made to be scanned. A bound method of a module with arrays cannot be hashed, so jit it as
        `jax.jit(lambda state: agent.step(state))`.
        """
        key, window_key = jax.random.split(state.key)
        collect = self.collect_tracked_window if self.tracks_tangents else self.collect_window
        window = collect(state, key=window_key)
        learner = window.recording.final_state
        changes: dict[str, Any] = {}
        if self.schedule is not None:
            context = self.schedule.observe(state.fixed.context, window, self.agent.sampling)
            changes["fixed"] = state.fixed._replace(context=context)
        if self.tuners:
            seen = seen_by(self.tuners, self.agent, state.learner, window, state.num_meta_steps)
            changes["fixed"], changes["tuner_states"] = tune(self.tuners, state.fixed, state.tuner_states, seen)
        grad, outer_loss, outer, kept = jax.tree.map(jnp.zeros_like, state.raw), jnp.zeros(()), {}, None
        if self.learns:
            result = self.window_gradient(state, window)
            grad, outer_loss = result.grad, result.outer_loss
            outer = jax.tree.map(jnp.mean, result.aux.outer)
            changes |= self._moved(state, grad) | self._observed(state, window, outer)
            changes["estimator_state"] = result.estimator_state
            if self.trust_region is not None:
                fixed = changes.get("fixed", state.fixed)  # as the next update will have them
                changes["learned"], kept = cut_to_trust_region(
                    self.agent,
                    learner,
                    window.batch,
                    lambda learned: self.eta(eqx.combine(learned, fixed)),
                    *(state.learned, changes["learned"], self.trust_region),
                )
        new_state = state._replace(
            learner=learner,
            rollout=window.rollout,
            batch=window.batch,
            key=key,
            num_meta_steps=state.num_meta_steps + 1,
            **changes,
        )
        episodes, restored = jax.tree.map(jnp.sum, window.episodes), None
        if self.guard is not None:
            new_state, restored = self.guard.watch(state, new_state, episodes)
        metrics = MetaStepMetrics(
            episodes=episodes,
            eta=self.eta(state.raw),
            raw=self.raw_eta(state.raw),
            # A schedule adds to its base, so that the derivative by the base is that by the sum.
            grad=grad if self.schedule is None else grad.weights.base,
            outer_loss=outer_loss,
            inner=jax.tree.map(jnp.mean, window.aux),
            outer=outer,
            finite=self._is_finite((grad, outer_loss, window.aux, outer), new_state),
            restored=restored,
            kept=kept,
        )
        return new_state, metrics

    def _is_finite(self, found: PyTree, state: SelfTuningState) -> Bool[Array, ""]:
        """Whether what was found in a window, and all that is carried on after it, are finite; the same on all devices,
        each of which has the statistics of its own environments.
        """
        statistics = carried_on(state).rollout
        finite = all_finite((learning_part(state), found))
        if not jax.tree.leaves(statistics):
            return finite
        lost = self.environment.axis.sum(1 - all_finite(statistics).astype(jnp.int32))
        return finite & (lost == 0)

    @property
    def meta_problem(self) -> MetaProblemLike:
        """The problem that is differentiated: `problem`, over the schedule's weights if there is one."""
        schedule = self.schedule
        if schedule is None:
            return self.problem
        return contextual(self.problem, lambda weights, context: schedule.eta(weights, context, self.spec))

    @property
    def meta_spec(self) -> PyTree:
        """Bijectors of the raw meta-parameters as the state holds them."""
        return self.spec if self.schedule is None else self.schedule.spec(self.spec)

    def raw_eta(self, raw: PyTree) -> PyTree:
        """The unconstrained meta-parameters in use: `raw` itself, or the output of a schedule."""
        return raw if self.schedule is None else self.schedule.raw_eta(raw.weights, raw.context, self.spec)

    def eta(self, raw: PyTree) -> PyTree:
        """The natural meta-parameters in use."""
        return constrain(self.raw_eta(raw), self.spec)

    def window_gradient(self, state: SelfTuningState, window: CollectedWindow) -> MetaGradient:
        """The meta-gradient of a window that was collected from `state`."""
        return window_gradient(self, state, window)

    @property
    def tracks_tangents(self) -> bool:
        """Whether tangents are carried through the updates while they are made, so that forward mode replays nothing.

        Not where the estimate needs other weights than the horizons', not where rollouts are collected for the outer
        loss alone, and not where batches are annotated for the outer objective, which is done when all are there.
        """
        return (
            self.learns
            and isinstance(self.agent.problem, GradientLearner)
            and self.mode.recording is HorizonRecording
            and self.estimator.reads_horizons(self.num_inner_steps)
            and self.sampling_correction is None
            and not self.collects_outer
            and self.agent.annotation is None
        )

    def collect_window(self, state: SelfTuningState, *, key: Key[Array, ""]) -> CollectedWindow:
        """L updates at fixed meta-parameters, each on the newest rollout, and a rollout after each. Moves no
        meta-parameter.
        """
        eta, problem = self.eta(state.raw), self.agent.problem

        def update(learner: Any, tangents: None, batch: PyTree) -> Updated:
            if isinstance(problem, GradientLearner | MinibatchLearner):
                learner, gradient, aux = problem.recorded_update(learner, eta, batch)
                return Updated(learner, None, (gradient, aux), None)
            learner, aux = problem.update(learner, eta, sliced_out(batch))
            return Updated(learner, None, (None, aux), None)

        return collect_with(self, update, None, state, key=key)[0]

    def collect_tracked_window(self, state: SelfTuningState, *, key: Key[Array, ""]) -> CollectedWindow:
        """The same with tangents carried along, and so with every horizon's gradient. Only where `tracks_tangents`."""
        problem = cast(GradientLearner, self.meta_problem)
        to_eta = learned_to_eta(state.fixed, self.meta_spec)

        def update(learner: LearnerState, tangents: PyTree, batch: PyTree) -> Updated:
            return Updated(*tracked_update(problem, to_eta, state.learned, learner, tangents, batch))

        start = zero_tangents(state.learner, ravel_learned(state.learned)[0].size)
        window, tangents, evaluated = collect_with(self, update, start, state, key=key)
        learner = window.recording.final_state
        return window._replace(horizons=tracked_horizons(problem, learner, tangents, evaluated, window.batch))

    def collect(
        self, params: PyTree, raw: PyTree, running: RolloutState, *, key: Key[Array, ""]
    ) -> tuple[RolloutState, PyTree, EpisodeTotals]:
        """One inner batch: a rollout of every environment with these parameters.

        Observations are acted on, and learned from, as normalised by the statistics from before the rollout.
        """
        return collect_rollout(self, params, raw, running, key=key)

    def normalization(self, running: RolloutState) -> Normalization | None:
        """Statistics that normalise observations, from a rollout's state; None if they are not normalised.

        It is the same for all devices. (Read a state that was gathered on one device with an agent of one device.)
        """
        statistics = running.observation_statistics
        return None if statistics is None else pooled(statistics, self.environment.axis)

    def policy(
        self,
        params: PyTree,
        conditioning: Array | None,
        *,
        greedy: bool = False,
        normalization: Normalization | None = None,
    ) -> Policy:
        """The policy of these parameters, sampled or greedy, for `gradweave.rl.rollout`; of the environment's own
        observations; the network may see normalised ones.
        """

        def act(observations: Observation, memory: PyTree, key: Key[Array, ""]) -> Acted:
            seen = normalized(normalization, observations)
            return self.agent.act(params, seen, memory, conditioning, key=key, greedy=greedy)

        return act

    def conditioning(self, raw: PyTree) -> Float[Array, " size"] | None:
        """The network's input beside the observation: the learned raw meta-parameters, or None."""
        if not (self.condition_on_eta and self.learns):
            return None
        return ravel_pytree(split_learned(self.raw_eta(raw), self.spec)[0])[0]

    def _reward_discount(self, fixed: PyTree) -> float | Array | None:
        """Of the returns that rewards are scaled by: a fixed or tuned discount as it begins, else the agent's."""
        discount = self.agent.reward_discount
        return discount if discount is None else named_leaves(fixed).get("discount", discount)

    def _observed(self, state: SelfTuningState, window: CollectedWindow, outer: dict[str, Array]) -> dict[str, Any]:
        """The fields of the state that know of earlier windows, with one more."""
        changes: dict[str, Any] = {}
        if self.agent.annotation is not None:
            changes["statistics"] = self.agent.annotation.observe(state.statistics, outer)
        if state.usual_reward is not None:
            # The first batch belongs to the window before.
            later = jax.tree.map(lambda leaf: leaf[1:], window.batches)
            rewards = jax.vmap(sampling_terms(self).mean_reward)(later)
            changes["usual_reward"] = state.usual_reward.add(rewards.mean(), DECAY)
        return changes

    def _moved(self, state: SelfTuningState, grad: PyTree) -> dict[str, Any]:
        """The fields of the state that the meta-optimiser moves."""
        # Fixed leaves are kept away from the meta-optimiser: one with weight decay, say, would move them without a
        # gradient.
        slopes, _ = split_learned(grad, self.meta_spec)
        with jax.numpy_dtype_promotion("standard"):  # as in GradientLearner: optax mixes integer counts and floats
            updates, meta_state = self.meta_optimizer.update(slopes, state.meta_optimizer_state, state.learned)
        moved = eqx.combine(jax.tree.map(jnp.add, state.learned, updates), state.fixed)
        learned, _ = split_learned(clip_raw(moved, self.meta_spec), self.meta_spec)
        return {"learned": learned, "meta_optimizer_state": meta_state}
