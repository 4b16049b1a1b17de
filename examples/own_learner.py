"""A learner of one's own: REINFORCE as an `Agent`, whose discount, entropy cost and learning rate tune themselves.

REINFORCE (Williams 1992) weighs the log-probability of each action by the rewards that follow it. Here it is checked,
then trained on CartPole from a learning rate that is far too low. Runs in about half a minute on one core.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import gradweave as gw
from gradweave.agents import network_policy
from gradweave.envs import VectorEnvironment, make_environment
from gradweave.rl import Categorical, NetworkOutput, lambda_returns, trajectory_discounts, trajectory_lambda


class Eta(NamedTuple):
    """The meta-parameters."""

    discount: Any
    entropy_cost: Any
    learning_rate: Any


HEAD = Categorical(2)  # two actions
OUTER_DISCOUNT = 0.99  # of the outer loss: not tuned


def network(params, observation, conditioning):
    hidden = jnp.tanh(observation.view @ params["hidden"])
    return NetworkOutput(hidden @ params["logits"], value=jnp.zeros(hidden.shape[:-1]), outer_value=None)


def log_probs_and_entropy(params, trajectory):
    seen = jax.tree.map(lambda leaf: leaf[:-1], trajectory.observations)  # the last one is seen after the last action
    logits = network(params, seen, None).logits
    return HEAD.log_prob(logits, seen.action_mask, trajectory.actions), HEAD.entropy(logits, seen.action_mask).mean()


def advantages(trajectory, discount):
    """Discounted sums of the rewards to come in the rollout, less their mean over the environments."""

    def rewards_to_go(rewards, terminations, truncations):
        discounts, lambda_ = trajectory_discounts(discount, terminations), trajectory_lambda(1.0, truncations)
        return lambda_returns(rewards, discounts, jnp.zeros_like(rewards), lambda_)

    to_go = jax.vmap(rewards_to_go, 1, 1)(trajectory.rewards, trajectory.terminations, trajectory.truncations)
    return to_go - to_go.mean(axis=1, keepdims=True)


def loss(params, targets, eta, trajectory):
    log_probs, entropy = log_probs_and_entropy(params, trajectory)
    policy_loss = -(log_probs * targets).mean()
    return policy_loss - eta.entropy_cost * entropy, {"policy_loss": policy_loss, "entropy": entropy}


def outer_loss(state, trajectory):
    log_probs, _ = log_probs_and_entropy(state.params, trajectory)
    total = -(log_probs * advantages(trajectory, OUTER_DISCOUNT)).mean()
    return total, {"outer_policy_loss": total}


learner = gw.GradientLearner(
    targets=lambda params, eta, trajectory: advantages(trajectory, eta.discount),
    loss=loss,
    optimizer=gw.differentiable(optax.scale_by_adam()),
    learning_rate=lambda eta: eta.learning_rate,
    outer_loss=outer_loss,
)
reinforce = gw.Agent(problem=learner, act=network_policy(network, HEAD))

start = Eta(discount=0.9, entropy_cost=0.01, learning_rate=3e-4)
spec = Eta(gw.Interval(0.0, 1.0), gw.Positive(), gw.Positive())
agent = gw.SelfTuning(
    agent=reinforce,
    environment=VectorEnvironment(make_environment("gymnax:CartPole-v1"), num_envs=16),
    initial_raw=gw.unconstrain(start, spec),
    spec=spec,
    estimator=gw.HorizonMix(gw.uniform_weights(3)),
    mode=gw.MixedMode(),
    meta_optimizer=optax.adam(0.1),
    num_inner_steps=3,
    num_steps=32,
)


def main(quick: bool = False) -> dict[str, float]:
    keys = jax.random.split(jax.random.key(0), 4)
    params = {"hidden": jax.random.normal(keys[0], (4, 32)), "logits": jax.random.normal(keys[1], (32, 2)) / 100}
    collect = jax.jit(jax.vmap(lambda key: agent.init(params, key=key).batch))
    batches = collect(jax.random.split(keys[2], 3))
    report = gw.check_learner(learner, agent.initial_raw, spec, learner.init(params), batches)
    print(report)
    assert report.ok

    fixed = Eta(gw.Fixed(), gw.Fixed(), gw.Fixed())
    plain = dataclasses.replace(agent, initial_raw=gw.unconstrain(start, fixed), spec=fixed)
    results = {}
    for name, learning in ({"tuned": agent} if quick else {"tuned": agent, "plain": plain}).items():
        run = gw.train(learning, params, total_steps=80_000 if quick else 150_000, key=keys[3], quiet=quick)
        _, returns = run.metrics.series("return")
        results[f"return at the beginning, {name}"] = float(returns[0])
        results[f"return at the end, {name}"] = float(returns[-10:].mean())
        results |= {f"{field} at the end, {name}": value for field, value in run.eta.items()}
    return results


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name:<32}{value:.3g}")
