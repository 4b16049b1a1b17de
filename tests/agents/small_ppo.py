"""A small PPO as an `Agent`: several updates from one rollout, written against the contract and nothing else.

Clipped surrogate of Schulman et al. 2017 (arXiv 1707.06347), epochs over minibatches of environments. Advantages are
computed inside the update, at its first parameters, so that the discount has a derivative.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import gradweave as gw
from gradweave.agents import Agent, bundled_apply, network_policy
from gradweave.rl import Categorical, Trajectory, lambda_returns, trajectory_discounts

HEAD = Categorical(2)
NUM_EPOCHS, NUM_MINIBATCHES = 2, 2
OPTIMIZER = optax.scale_by_adam(eps_root=1e-16)


class Eta(NamedTuple):
    discount: Any
    clip: Any
    learning_rate: Any


class State(NamedTuple):
    params: Any
    optimizer_state: Any


class Batch(NamedTuple):
    trajectory: Trajectory
    orders: Any  # (epochs, environments): the order in which each epoch passes over the environments


def evaluate(params, trajectory):
    outputs = jax.vmap(jax.vmap(lambda observation: params(observation)))(trajectory.observations)
    return outputs.logits[:-1], outputs.value


def advantages_of(params, trajectory, discount):
    values = evaluate(params, trajectory)[1]
    one = lambda rewards, ends, after: lambda_returns(rewards, trajectory_discounts(discount, ends), after, 0.95)  # noqa: E731
    returns = jax.vmap(one, 1, 1)(trajectory.rewards, trajectory.terminations, values[1:])
    return returns - values[:-1], returns


def surrogate(params, trajectory, advantages, returns, clip):
    logits, values = evaluate(params, trajectory)
    mask = trajectory.observations.action_mask[:-1]
    ratio = jnp.exp(HEAD.log_prob(logits, mask, trajectory.actions) - trajectory.record)
    clipped = jnp.clip(ratio, 1 - clip, 1 + clip)
    return -jnp.minimum(ratio * advantages, clipped * advantages).mean() + ((values[:-1] - returns) ** 2).mean()


def update(state, eta, batch):
    trajectory = batch.trajectory
    advantages, returns = advantages_of(state.params, trajectory, eta.discount)

    def one_minibatch(state, places):
        pick = lambda leaf: leaf[:, places]  # noqa: E731
        part = [jax.tree.map(pick, leaf) for leaf in (trajectory, advantages, returns)]
        loss, gradient = jax.value_and_grad(surrogate)(state.params, *part, eta.clip)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts and floats
            direction, optimizer_state = OPTIMIZER.update(gradient, state.optimizer_state)
        params = jax.tree.map(lambda leaf, step: leaf - eta.learning_rate * step, state.params, direction)
        return State(params, optimizer_state), loss

    places = batch.orders.reshape(NUM_EPOCHS * NUM_MINIBATCHES, -1)
    state, losses = jax.lax.scan(one_minibatch, state, places)
    return state, {"loss": losses.mean()}


def outer_loss(state, batch):
    """The policy gradient on the rewards to go of the batch, which are data."""
    trajectory = batch.trajectory
    nothing = jnp.zeros_like(trajectory.rewards[:, 0])
    one = lambda rewards, ends: lambda_returns(rewards, trajectory_discounts(0.99, ends), nothing, 1.0)  # noqa: E731
    to_go = jax.vmap(one, 1, 1)(trajectory.rewards, trajectory.terminations)
    logits, _ = evaluate(state.params, trajectory)
    log_probs = HEAD.log_prob(logits, trajectory.observations.action_mask[:-1], trajectory.actions)
    loss = -(log_probs * (to_go - to_go.mean())).mean()
    return loss, {"outer_policy_loss": loss}


def batch_of(trajectory, conditioning, *, key):
    num_envs = trajectory.rewards.shape[1]
    orders = jax.vmap(lambda key: jax.random.permutation(key, num_envs))(jax.random.split(key, NUM_EPOCHS))
    return Batch(trajectory, orders)


AGENT = Agent(
    problem=gw.MetaProblem(update, outer_loss),
    act=network_policy(bundled_apply, HEAD, record_log_probs=True),
    batch=batch_of,
    init=lambda params: State(params, OPTIMIZER.init(params)),
)
