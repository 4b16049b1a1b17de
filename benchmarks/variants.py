"""The programs that are compared: whole meta-steps of the public agent, and the loop as it is usually written."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from timing import Program

from gradweave.agents import SelfTuning, parameter_groups
from gradweave.config.presets import preset
from gradweave.config.schema import Config
from gradweave.core import ForwardMode, MixedMode, Positive, ReverseMode, constrain, unconstrain
from gradweave.training.build import build_agent, init_state

__all__ = [
    "LEARNED",
    "MODES",
    "agent_for",
    "configured",
    "forward_passes",
    "meta_step",
    "naive_meta_step",
    "seeds_in_one_program",
]

MODES = {
    "mixed": MixedMode(),
    "reverse": ReverseMode(),
    "reverse-remat": ReverseMode("step"),
    "forward": ForwardMode(),
}
LEARNED: Mapping[int, tuple[str, ...]] = {
    0: (),
    1: ("discount",),
    2: ("discount", "lambda_"),
    4: ("discount", "lambda_", "entropy_cost", "learning_rate"),
    8: ("discount", "lambda_", "entropy_cost", "value_cost", "learning_rate"),  # with four rates: see _with_four_rates
}


def configured(changes: Mapping[str, Any]) -> Config:
    """A preset ("preset" -> name, by default `quick`) with changes, by section.field or environment.options.name."""
    fields = dict(changes)
    config = preset(fields.pop("preset", "quick"))
    for name, value in fields.items():
        config = _changed(config, name.split("."), value)
    return config


def _changed(part: Any, path: Sequence[str], value: Any) -> Any:
    name, *rest = path
    new = _changed(part[name] if isinstance(part, Mapping) else getattr(part, name), rest, value) if rest else value
    return {**part, name: new} if isinstance(part, Mapping) else dataclasses.replace(part, **{name: new})


def agent_for(changes: Mapping[str, Any], num_learned: int, num_updates: int) -> tuple[SelfTuning, Config]:
    """The agent that learns a number of meta-parameters (0, 1, 2, 4 or 8) over windows of a number of updates."""
    given = {"meta.learned": LEARNED[num_learned], "meta.num_inner_steps": num_updates, **changes}
    config = configured(given)
    agent = build_agent(config)
    return (_with_four_rates(agent, config) if num_learned == 8 else agent), config


def meta_step(changes: Mapping[str, Any], num_learned: int, num_updates: int, mode: str = "mixed") -> Program:
    """One whole meta-step (rollouts, updates, meta-gradient, move); plain learning when nothing is learned."""
    agent, config = agent_for(changes, num_learned, num_updates)
    agent = dataclasses.replace(agent, mode=MODES[mode])
    return Program(lambda state: agent.step(state), _start(agent, config), num_updates)


def forward_passes(changes: Mapping[str, Any], num_updates: int) -> Program:
    """Acting alone: rollouts without any update, the one forward pass on every observation that cannot be avoided."""
    agent, config = agent_for(changes, 0, num_updates)
    state = _start(agent, config)

    def act(running: Any, key: Any) -> tuple[Any, Any]:
        running, batch, _ = agent.collect(state.learner.params, state.raw, running, key=key)
        return running, batch.trajectory.rewards.sum()

    def run(carry: Any) -> tuple[Any, Any]:
        running, key = carry
        key, used = jax.random.split(key)
        running, rewards = jax.lax.scan(act, running, jax.random.split(used, num_updates))
        return (running, key), rewards

    return Program(run, (state.rollout, state.key), num_updates)


def naive_meta_step(changes: Mapping[str, Any], num_learned: int, num_updates: int) -> Program:
    """The same meta-step as everyone writes it: `jax.grad` of a loop that acts, updates and evaluates.

    The gradient is that of the agent with a uniform mix of horizons; tests/test_benchmarks.py compares the two.
    """
    agent, config = agent_for(changes, num_learned, num_updates)
    problem, weight = agent.problem, 1.0 / num_updates

    def loss(learned: Any, fixed: Any, state: Any) -> tuple[Any, Any]:
        eta = constrain(eqx.combine(learned, fixed), agent.spec)

        def update(carry: Any, key: Any) -> tuple[Any, Any]:
            learner, running, batch, total = carry
            learner, _ = problem.update(learner, eta, batch)
            running, batch, _ = agent.collect(learner.params, state.raw, running, key=key)
            evaluated, _ = problem.outer_loss(learner, batch)
            return (learner, running, batch, total + weight * evaluated.astype(total.dtype)), None

        key, used = jax.random.split(state.key)
        start = (state.learner, state.rollout, state.batch, jnp.zeros(()))
        (learner, running, batch, total), _ = jax.lax.scan(update, start, jax.random.split(used, num_updates))
        return total, state._replace(learner=learner, rollout=running, batch=batch, key=key)

    def step(state: Any) -> tuple[Any, Any]:
        grad, state = jax.grad(loss, has_aux=True)(state.learned, state.fixed, state)
        with jax.numpy_dtype_promotion("standard"):  # optax multiplies integer counts with floats
            changes, meta_state = agent.meta_optimizer.update(grad, state.meta_optimizer_state)
        learned = eqx.apply_updates(state.learned, changes)
        return state._replace(learned=learned, meta_optimizer_state=meta_state), grad

    return Program(step, _start(agent, config), num_updates)


def seeds_in_one_program(
    changes: Mapping[str, Any], num_learned: int, num_updates: int, num_seeds: int, how: str
) -> Program:
    """Meta-steps of several seeds along a leading axis: one after another ("map") or vectorised ("vmap")."""
    agent, config = agent_for(changes, num_learned, num_updates)
    keys = jax.random.split(jax.random.key(config.run.seed), num_seeds)
    state = jax.jit(jax.vmap(lambda key: init_state(agent, config, key=key)))(keys)

    def step(state: Any) -> Any:
        one = lambda state: agent.step(state)  # noqa: E731 - a bound method of a module with arrays cannot be hashed
        return jax.lax.map(one, state) if how == "map" else jax.vmap(one)(state)

    return Program(step, state, num_updates * num_seeds)


def _start(agent: SelfTuning, config: Config) -> Any:
    return jax.jit(lambda key: init_state(agent, config, key=key))(jax.random.key(config.run.seed))


def _with_four_rates(agent: SelfTuning, config: Config) -> SelfTuning:
    """Eight meta-parameters: four learning rates beside discount, lambda, entropy cost and value cost."""
    params = jax.eval_shape(lambda key: init_state(agent, config, key=key), jax.random.key(0)).learner.params
    heads = {"policy_head": "policy", "value_head": "value", "outer_head": "outer"}
    groups = parameter_groups(params, heads, default="torso")
    problem = eqx.tree_at(
        lambda problem: problem.learning_rate,
        agent.problem,
        lambda eta: jax.tree.map(lambda name: eta.learning_rate[name], groups),
    )
    rates = dict.fromkeys((*heads.values(), "torso"), jnp.asarray(config.inner.learning_rate))
    spec = agent.spec._replace(learning_rate=dict.fromkeys(rates, Positive()))
    eta = constrain(agent.initial_raw, agent.spec)._replace(learning_rate=rates)
    learner = dataclasses.replace(agent.agent, problem=problem)
    return dataclasses.replace(agent, agent=learner, spec=spec, initial_raw=unconstrain(eta, spec))
