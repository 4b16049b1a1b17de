"""Flax parameters in a self-tuning actor-critic: hand over `apply`, and everything else stays as it is.

Any network will do whose parameters are a pytree of arrays. Here the torso and the heads also have learning rates of
their own, which the agent tunes together with its discount while it learns to press the button that it is shown.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import gradweave as gw
from gradweave.envs import MatchedReward, VectorEnvironment
from gradweave.rl import NetworkOutput, rollout

NUM_META_STEPS = 60


class Network(nn.Module):
    """One hidden layer, then the policy, the value and the outer critic."""

    num_actions: int

    @nn.compact
    def __call__(self, view):
        hidden = nn.tanh(nn.Dense(16, name="torso")(view))
        logits = nn.Dense(self.num_actions, name="policy")(hidden)
        values = nn.Dense(2, name="value")(hidden)
        return NetworkOutput(logits, values[0], values[1])  # the second value is the outer critic


environment = MatchedReward()
network = Network(environment.num_actions)


def apply(params, observation, conditioning):
    return network.apply(params, observation.view)


def make_agent(params):
    rates = {"torso": jnp.array(0.01), "heads": jnp.array(0.01)}
    groups = gw.parameter_groups(params, {"policy": "heads", "value": "heads"}, default="torso")
    eta = gw.ActorCriticEta(jnp.array(0.9), jnp.array(0.9), jnp.array(0.01), jnp.array(0.5), rates)
    spec = gw.ActorCriticEta(gw.Interval(), gw.Fixed(), gw.Fixed(), gw.Fixed(), gw.Positive())
    return gw.SelfTuning(
        agent=gw.actor_critic_agent(apply, gw.inner_optimizer("sgd"), learning_rate_groups=groups),
        environment=VectorEnvironment(environment, 32),
        initial_raw=gw.unconstrain(eta, spec),
        spec=spec,
        estimator=gw.HorizonMix(gw.uniform_weights(3)),
        mode=gw.MixedMode(),
        meta_optimizer=optax.adam(0.1),
        num_inner_steps=3,
        num_steps=5,
    )


def main() -> dict[str, float]:
    params_key, agent_key, play_key = jax.random.split(jax.random.key(0), 3)
    _, observation = environment.reset(key=jax.random.key(0))
    params = network.init(params_key, observation.view)
    agent = make_agent(params)
    state = agent.init(params, key=agent_key)
    learn = jax.jit(lambda state: jax.lax.scan(lambda carry, _: agent.step(carry), state, length=NUM_META_STEPS))
    state, metrics = learn(state)
    _, _, played = rollout(
        agent.policy(state.learner.params, None, greedy=True), agent.environment, state.rollout, 20, key=play_key
    )
    rates = agent.eta(state.raw).learning_rate
    result = {
        "reward before": float(metrics.episodes.sum_returns[0] / metrics.episodes.num_episodes[0]),
        "reward after": float(played.sum_returns / played.num_episodes),
        "torso rate": float(rates["torso"]),
        "heads rate": float(rates["heads"]),
    }
    for name, value in result.items():
        print(f"{name}: {value:.4f}")
    return result


if __name__ == "__main__":
    main()
