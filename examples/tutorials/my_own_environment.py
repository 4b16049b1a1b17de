# %% [markdown]
# # My own environment
#
# An environment is one class with two pure functions, `reset` and `step`. It is checked, and then trained on like those
# that come with the library.

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import gradweave as gw
from gradweave.agents import bundled_apply
from gradweave.envs import AbstractEnvironment, Observation, Step, VectorEnvironment
from gradweave.rl import actor_critic_network


# %%
class Corridor(AbstractEnvironment):
    """Walk to the right end: reward 1."""

    length: int = eqx.field(static=True, default=6)
    num_actions: int = eqx.field(static=True, default=2)
    can_truncate: bool = eqx.field(static=True, default=True)

    def reset(self, *, key):
        state = {"cell": jnp.zeros((), jnp.int32), "time": jnp.zeros((), jnp.int32)}
        return state, self._observe(state)

    def step(self, state, action, *, key):
        move = jnp.where(jax.random.bernoulli(key, 0.1), 0, 2 * action - 1).astype(jnp.int32)
        state = {"cell": jnp.clip(state["cell"] + move, 0, self.length - 1), "time": state["time"] + 1}
        terminated = state["cell"] == self.length - 1
        truncated = (state["time"] >= 30) & ~terminated
        return state, Step(self._observe(state), terminated.astype(float), terminated, truncated)

    def _observe(self, state):
        view = (jnp.arange(self.length) == state["cell"]).astype(float)
        return Observation(view, scalars=jnp.zeros(0), action_mask=jnp.ones(2, bool))


environment = Corridor()

# %% [markdown]
# ## The check
#
# Shapes and types, ends of one kind, finite rewards, the same play for the same key, nothing compiled twice.

# %%
report = gw.check_environment(environment)
print(report)
assert report.ok

# %% [markdown]
# ## Train on it
#
# An actor-critic that tunes its discount and learning rate.

# %%
keys = jax.random.split(jax.random.key(0), 3)
_, seen = environment.reset(key=keys[0])
params = actor_critic_network(seen, 2, policy_layers=(16,), value_layers=(16,), key=keys[1])
eta = gw.ActorCriticEta(*map(jnp.asarray, (0.9, 0.9, 0.01, 0.5, 0.003)))
spec = gw.ActorCriticEta(gw.Interval(), gw.Fixed(), gw.Fixed(), gw.Fixed(), gw.Positive())
agent = gw.SelfTuning(
    agent=gw.actor_critic_agent(bundled_apply, gw.inner_optimizer("adam")),
    environment=VectorEnvironment(environment, 16),
    initial_raw=gw.unconstrain(eta, spec),
    spec=spec,
    estimator=gw.HorizonMix(gw.uniform_weights(3)),
    mode=gw.MixedMode(),
    meta_optimizer=optax.adam(0.02),
    num_inner_steps=3,
    num_steps=8,
)
trained = gw.train(agent, params, total_steps=40_000, key=keys[2])
_, returns = trained.metrics.series("return")
print(f"return {returns[:5].mean():.2f} -> {returns[-5:].mean():.2f}, {trained.eta}")
assert returns[-5:].mean() > 0.9
