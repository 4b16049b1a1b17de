"""Material for these tests: synthetic experience, small networks, a probe, an actor-critic written out in loops."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

import gradweave as gw
from gradweave.agents import (
    ActorCriticEta,
    Experience,
    SelfTuning,
    actor_critic_agent,
    bundled_apply,
    inner_optimizer,
)
from gradweave.envs import AbstractEnvironment, Observation, Step, VectorEnvironment
from gradweave.rl import Trajectory, actor_critic_network

NUM_STEPS, NUM_ENVS, NUM_ACTIONS = 5, 3, 4

# What these tests compile runs a few times, on a handful of numbers: optimising it would take most of the time.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

LEARNED = ActorCriticEta(gw.Interval(), gw.Interval(), gw.Positive(), gw.Positive(), gw.Positive())
ETA = ActorCriticEta(*(jnp.array(value) for value in (0.9, 0.8, 0.05, 0.4, 0.1)))


class Fork(AbstractEnvironment[Array]):
    """Two steps; one of three actions is forbidden, depending on a number that is shown and that ends or cuts."""

    num_actions: int = 3
    can_truncate: bool = True

    def reset(self, *, key: Any) -> tuple[Array, Observation]:
        state = jnp.stack([jax.random.uniform(key, minval=-1.0), jnp.zeros(())])
        return state, self.observe(state)

    def step(self, state: Array, action: Array, *, key: Any) -> tuple[Array, Step]:
        del key
        reward = state[0] * action.astype(float) + 0.3
        state = state + jnp.array([0.1, 1.0])
        last = state[1] >= 2
        return state, Step(self.observe(state), reward, last & (state[0] > 0), last & (state[0] <= 0))

    def observe(self, state: Array) -> Observation:
        forbidden = jnp.where(state[0] > 0, 0, 2)
        return Observation(state, jnp.zeros(0), jnp.arange(3) != forbidden)


def observations(key: Any, *leading: int) -> Observation:
    """Random views and masks; the first mask of all allows nothing."""
    view_key, scalar_key, mask_key = jax.random.split(key, 3)
    mask = jax.random.bernoulli(mask_key, 0.6, (*leading, NUM_ACTIONS)).at[..., 1].set(True)
    mask = mask.reshape(-1, NUM_ACTIONS).at[0].set(False).reshape(*leading, NUM_ACTIONS)
    return Observation(jax.random.normal(view_key, (*leading, 4)), jax.random.uniform(scalar_key, (*leading, 1)), mask)


def experience(key: Any, *, truncates: bool, num_envs: int = NUM_ENVS) -> Experience:
    """One inner batch: terminations, and truncations with final observations when asked for."""
    keys = iter(jax.random.split(key, 6))
    seen = observations(next(keys), NUM_STEPS + 1, num_envs)
    shape = (NUM_STEPS, num_envs)
    allowed = jnp.where(seen.action_mask[:-1], 0.0, -jnp.inf)
    ends = jax.random.uniform(next(keys), shape)
    trajectory = Trajectory(
        observations=seen,
        actions=jax.random.categorical(
            next(keys), jnp.where(jnp.isneginf(allowed).all(-1, keepdims=True), 0.0, allowed)
        ),
        rewards=jax.random.normal(next(keys), shape),
        terminations=ends < 0.15,
        truncations=(ends > 0.75) & truncates,
        final_observations=observations(next(keys), NUM_STEPS, num_envs) if truncates else None,
    )
    return Experience(trajectory)


def network(key: Any, *, outer_critic: bool, conditioning_size: int = 0) -> Any:
    """A small network, with a last policy layer large enough that the policy is far from uniform."""
    example = jax.tree.map(lambda leaf: leaf[0], observations(jax.random.key(9), 1))
    drawn = actor_critic_network(
        example,
        NUM_ACTIONS,
        policy_layers=(6,),
        value_layers=(5,),
        outer_critic=outer_critic,
        outer_torso="shared",
        conditioning_size=conditioning_size,
        key=key,
    )
    *first, last = drawn.policy_head
    return drawn.__class__(**(vars(drawn) | {"policy_head": (*first, jax.tree.map(lambda leaf: 60 * leaf, last))}))


# ------------------------------------------------------------------------------------- an actor-critic written out


class Numbers(NamedTuple):
    """What the networks say of one batch, as numpy arrays; the values have one entry more than the logits."""

    logits: Any
    values: Any
    final_values: Any


def evaluate(params: Any, batch: Experience, head: str) -> Numbers:
    """The network applied observation by observation; `head` is "value" or "outer_value"."""
    return _evaluate(params, batch, head)


@functools.partial(jax.jit, static_argnums=2)
def _evaluate(params: Any, batch: Experience, head: str) -> Numbers:
    trajectory = batch.trajectory
    apply = jax.vmap(jax.vmap(lambda observation: params(observation, batch.conditioning)))
    everywhere = apply(trajectory.observations)
    final = None if trajectory.final_observations is None else getattr(apply(trajectory.final_observations), head)
    return Numbers(everywhere.logits[:-1], getattr(everywhere, head), final)


def looped_returns(numbers: Numbers, trajectory: Trajectory, discount: float, lambda_: float) -> Any:
    """Lambda-returns, number by number: 0 after an end, the final observation's value after a cut."""
    values = np.asarray(numbers.values)
    returns = np.zeros((NUM_STEPS, values.shape[1]))
    for b in range(values.shape[1]):
        following = None
        for t in reversed(range(NUM_STEPS)):
            value = values[t + 1, b]
            if trajectory.terminations[t, b]:
                target = 0.0
            elif trajectory.truncations[t, b]:
                target = float(numbers.final_values[t, b])
            else:
                target = value if following is None else (1 - lambda_) * value + lambda_ * following
            returns[t, b] = following = float(trajectory.rewards[t, b]) + discount * target
    return returns


def looped_policy(logits: Any, trajectory: Trajectory) -> tuple[Any, Any]:
    """(log-probabilities of the actions taken, entropies), step by step."""
    logits, taken = np.asarray(logits), np.asarray(trajectory.actions)
    masks = np.asarray(trajectory.observations.action_mask[:-1])
    log_probs, entropies = np.zeros(taken.shape), np.zeros(taken.shape)
    for t in range(taken.shape[0]):
        for b in range(taken.shape[1]):
            allowed = [a for a in range(NUM_ACTIONS) if masks[t, b, a]]
            weights = {a: np.exp(logits[t, b, a]) for a in allowed} or dict.fromkeys(range(NUM_ACTIONS), 1.0)
            probabilities = {a: weight / sum(weights.values()) for a, weight in weights.items()}
            log_probs[t, b] = np.log(probabilities[int(taken[t, b])])
            entropies[t, b] = -sum(p * np.log(p) for p in probabilities.values())
    return log_probs, entropies


def surrogate(
    numbers: Numbers, trajectory: Trajectory, returns: Any, advantages: Any, costs: tuple[float, float]
) -> Any:
    """policy + value_cost * value - entropy_cost * entropy at constant returns and advantages; differentiable."""
    value_cost, entropy_cost = costs
    mask = trajectory.observations.action_mask[:-1]
    some = mask.any(-1, keepdims=True)
    mask, logits = jnp.where(some, mask, True), jnp.where(some, numbers.logits, 0.0)  # without a choice all are alike
    log_probs = jax.nn.log_softmax(jnp.where(mask, logits, -1e30))
    taken = jnp.take_along_axis(log_probs, trajectory.actions[..., None], -1)[..., 0]
    entropy = -jnp.sum(jnp.where(mask, jnp.exp(log_probs) * jnp.where(mask, log_probs, 0.0), 0.0), -1)
    error = returns - numbers.values[:-1]
    return -jnp.mean(taken * advantages) + value_cost * jnp.mean(error**2) - entropy_cost * jnp.mean(entropy)


# --------------------------------------------------------------------------------------------------------- a probe


class Ladder(AbstractEnvironment[Int[Array, "2"]]):
    """Climb or fall. An episode ends at the top and is cut off after `limit` steps; without either it never stops.

    State: (rung, steps). The last action is forbidden on the lowest rung.
    """

    top: int = 4
    limit: int = 7
    num_actions: int = NUM_ACTIONS
    can_truncate: bool = True

    def reset(self, *, key: Key[Array, ""]) -> tuple[Int[Array, "2"], Observation]:
        state = jnp.stack([jax.random.randint(key, (), 0, 2, dtype=int), jnp.zeros((), int)])
        return state, self.observe(state)

    def step(
        self, state: Int[Array, "2"], action: Int[Array, ""], *, key: Key[Array, ""]
    ) -> tuple[Int[Array, "2"], Step]:
        slip = jax.random.bernoulli(key, 0.2).astype(int)
        rung = jnp.maximum(state[0] + jnp.where(action == 1, 1, 0) - slip, 0)
        state = jnp.stack([rung, state[1] + 1])
        terminated = rung >= self.top
        truncated = (state[1] >= self.limit) & ~terminated & self.can_truncate
        reward = (rung - state[0]).astype(float) + 0.3 * rung.astype(float) - 0.1 * action.astype(float)
        return state, Step(self.observe(state), reward, terminated, truncated)

    def observe(self, state: Int[Array, "2"]) -> Observation:
        rung = state[0].astype(float)
        view: Float[Array, "4"] = jnp.stack([rung, jnp.sin(rung), jnp.cos(rung), jnp.ones_like(rung)])
        return Observation(view, 0.1 * state[1:].astype(float), jnp.ones(NUM_ACTIONS, bool).at[-1].set(state[0] > 0))


ENDLESS = Ladder(top=10**6, can_truncate=False)


def small_agent(spec: Any, meta_optimizer: optax.GradientTransformation, **changes: Any) -> SelfTuning:
    """A self-tuning actor-critic on a ladder, three inner updates in a window."""
    return SelfTuning(
        **{
            "agent": actor_critic_agent(bundled_apply, inner_optimizer("sgd")),
            "environment": VectorEnvironment(Ladder(), NUM_ENVS),
            "initial_raw": gw.unconstrain(ETA, spec),
            "spec": spec,
            "estimator": gw.Unrolled(),
            "mode": gw.MixedMode(),
            "meta_optimizer": meta_optimizer,
            "num_inner_steps": 3,
            "num_steps": NUM_STEPS,
            **changes,
        }
    )
