"""Meta-gradients of windows by central differences, for every learner; also an environment with continuous actions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import gradweave as gw
from gradweave.agents import SelfTuning
from gradweave.envs import AbstractEnvironment, Observation, Step
from gradweave.rl import actor_critic_network

from .material import quick_jit


class AimTwice(AbstractEnvironment[Array]):
    """The action is a number, and pays by its distance from what is shown; two steps, and every other step is free."""

    num_actions: int = 1
    can_truncate: bool = True
    continuous: bool = True

    def reset(self, *, key: Any) -> tuple[Array, Observation]:
        state = jnp.stack([jax.random.uniform(key, minval=-1.0), jnp.zeros(())])
        return state, self.observe(state)

    def step(self, state: Array, action: Array, *, key: Any) -> tuple[Array, Step]:
        del key
        state = state + jnp.array([0.3, 1.0])
        last = state[1] >= 2
        step = Step(self.observe(state), -((action[0] - state[0]) ** 2), last & (state[0] > 0), last & (state[0] <= 0))
        return state, step

    def observe(self, state: Array) -> Observation:
        return Observation(state, jnp.zeros(0), jnp.ones(1, bool))


def begun(agent: SelfTuning, environment: Any, **network: Any) -> Any:
    _, example = environment.reset(key=jax.random.key(0))

    def start(key: Any) -> Any:
        params_key, agent_key = jax.random.split(key)
        sizes = {"policy_layers": (4,), "value_layers": (4,), "policy_scale": 1.0, **network}
        return agent.init(
            actor_critic_network(example, environment.num_actions, **sizes, key=params_key), key=agent_key
        )

    return quick_jit(start)(jax.random.key(1))


def slopes_times_differences(agent: SelfTuning, state: Any, window: Any, length: int) -> np.ndarray:
    """The meta-gradient of a uniform mix by central differences of the learner's states, each times the outer loss's
    own gradient there. (The outer loss holds its advantages constant, so that differences of its values are another
    quantity.)
    """

    # Compiled for one step and called for each: whole paths take many times as long to compile.
    @quick_jit
    def update(learner: Any, raw: Any, batch: Any) -> Any:
        return agent.problem.update(learner, gw.constrain(raw, agent.spec), batch)[0]

    @quick_jit
    def slope(learner: Any, batch: Any) -> Any:
        loss = lambda params: agent.problem.outer_loss(learner._replace(params=params), batch)[0]  # noqa: E731
        return jax.grad(loss)(learner.params)

    batches = [jax.tree.map(lambda leaf, k=k: leaf[k], window.batches) for k in range(length + 1)]

    def path(raw: Any) -> list[Any]:
        learner, states = state.learner, []
        for batch in batches[:-1]:
            learner = update(learner, raw, batch)
            states.append(learner)
        return states

    slopes = [slope(learner, batch) for learner, batch in zip(path(state.raw), batches[1:], strict=True)]
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])  # noqa: E731
    found = []
    leaves, structure = jax.tree.flatten(state.raw)
    for index, leaf in enumerate(leaves):
        moved = [path(structure.unflatten([*leaves[:index], leaf + h, *leaves[index + 1 :]])) for h in (1e-5, -1e-5)]
        change = [(flat(up.params) - flat(down.params)) / 2e-5 for up, down in zip(*moved, strict=True)]
        found.append(np.mean([flat(one) @ other for one, other in zip(slopes, change, strict=True)]))
    return np.array(found)
