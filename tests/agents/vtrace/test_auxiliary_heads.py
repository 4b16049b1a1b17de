"""Auxiliary heads of the V-trace actor-critic: their losses by rlax, weight 0, finite differences, configurations."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array

import gradweave as gw
from gradweave.agents import named_leaves
from gradweave.agents.vtrace import VTraceEta, VTraceOptions, vtrace_agent
from gradweave.config.presets import preset
from gradweave.config.schema import Config
from gradweave.config.validation import find_problems
from gradweave.envs import Observation
from gradweave.rl import actor_critic_network, with_auxiliary_heads
from gradweave.training.build import build_agent, init_state

from ..differences import slopes_times_differences
from ..material import Fork, quick_jit
from .test_learner import ETA, OPTIONS, SPEC, configured, rlax_loss, self_tuning

DISCOUNTS, LAMBDAS, COSTS = (0.6, 0.9), (0.5, 0.8), (0.7, 0.3)


class Board(Fork):
    """What is shown lies on a board, so that heads share a torso."""

    def observe(self, state: Array) -> Observation:
        seen = super().observe(state)
        return seen._replace(view=seen.view.reshape(1, 2, 1))


def of_two(costs: Any = COSTS, **changed: Any) -> VTraceEta:
    eta = ETA._replace(**changed)
    return jax.tree.map(jnp.asarray, VTraceEta(*eta[:7], DISCOUNTS, LAMBDAS, costs))


def network(num_heads: int, key: Any) -> Any:
    _, example = Board().reset(key=jax.random.key(0))
    sizes: dict[str, Any] = {"policy_layers": (4,), "value_layers": (4,), "policy_scale": 1.0, "activation": "tanh"}
    board: dict[str, Any] = {"channels": (3,), "strides": (1,)}
    drawn = actor_critic_network(example, 3, **sizes, **board, key=key)
    return with_auxiliary_heads(drawn, num_heads, policy_scale=1.0, key=key)


def begun(agent: Any, num_heads: int = 2) -> Any:
    def start(key: Any) -> Any:
        params_key, agent_key = jax.random.split(key)
        return agent.init(network(num_heads, params_key), key=agent_key)

    return quick_jit(start)(jax.random.key(1))


def without_heads(params: Any) -> Any:
    return dataclasses.replace(params, auxiliary_heads=None)


def tuned(length: int, mode: Any = None, **options: Any) -> Any:
    """Two heads, of which everything is learned."""
    spec = SPEC._replace(auxiliary_discount=gw.Interval(), auxiliary_lambda=gw.Interval(), auxiliary_cost=gw.Positive())
    agent = self_tuning(Board(), vtrace_agent(options=OPTIONS, **options), length, mode=mode)
    return dataclasses.replace(agent, initial_raw=gw.unconstrain(of_two(), spec), spec=spec)


@pytest.mark.filterwarnings("ignore")  # rlax and its dependencies use what has been deprecated
@pytest.mark.slow
def test_each_head_has_the_loss_of_a_network_whose_head_it_is() -> None:
    """By rlax; the heads' policies are not the one that collected. At weight 0 they might as well not be there."""
    options = VTraceOptions(num_epochs=1, num_minibatches=1)
    agent = self_tuning(Board(), vtrace_agent(optimizer=optax.identity(), options=options), 1)
    state, eta = begun(agent), of_two()

    @quick_jit
    def updated(costs: Any) -> Any:
        return agent.problem.update(state.learner, eta._replace(auxiliary_cost=costs), state.batch)[0].params

    plain = agent.problem.init(without_heads(state.learner.params))
    expected = quick_jit(lambda: agent.problem.update(plain, jax.tree.map(jnp.asarray, ETA), state.batch)[0].params)()
    for one, other in zip(*map(jax.tree.leaves, (without_heads(updated((0.0, 0.0))), expected)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-14)

    params = state.learner.params
    trajectory = jax.tree.map(np.asarray, state.batch.trajectory)

    @quick_jit
    def gradient() -> Any:
        def loss(params: Any, fixed: Any) -> Array:
            total = jnp.zeros(())
            for k, cost in enumerate(COSTS):
                given = eta._replace(discount=DISCOUNTS[k], lambda_=LAMBDAS[k])
                total += cost * rlax_loss(headed(params, k), headed(fixed, k), given, trajectory, options)
            return total

        return jax.grad(loss)(params, params)

    def headed(params: Any, k: int) -> Any:
        policy, value = jax.tree.map(lambda leaf: leaf[k], params.auxiliary_heads)
        return dataclasses.replace(params, policy_head=policy, value_head=value, auxiliary_heads=None)

    with jax.numpy_dtype_promotion("standard"):  # rlax multiplies by its mask
        slopes = gradient()
    assert float(jnp.abs(slopes.policy_torso[0].dense.weight).max()) > 1e-3
    change = jax.tree.map(lambda new, old: (old - new) / ETA.learning_rate, updated(COSTS), updated((0.0, 0.0)))
    for one, other in zip(*map(jax.tree.leaves, (change, slopes)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-11)


MODES = (gw.MixedMode(), gw.ReverseMode("step"), gw.ForwardMode())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("length", "modes"),
    [(1, (gw.MixedMode(),)), (2, MODES), (5, MODES)],
    ids=["1", "2", "5"],
)
def test_the_meta_gradient_is_that_of_differences(length: int, modes: tuple[Any, ...]) -> None:
    agents = [tuned(length, mode) for mode in modes]
    state = begun(agents[0])
    window = quick_jit(lambda state: agents[0].collect_window(state, key=jax.random.key(3)))(state)
    expected = slopes_times_differences(agents[0], state, window, length)
    matter = dict(zip(named_leaves(state.raw), np.abs(expected) > 1e-7, strict=True))
    assert len(matter) == 13 and all(each for name, each in matter.items() if name.startswith("auxiliary")), matter
    for agent in agents:
        grad = quick_jit(lambda *args, agent=agent: agent.window_gradient(*args).grad)(state, window)
        np.testing.assert_allclose(np.array(jax.tree.leaves(grad)), expected, rtol=1e-5, atol=1e-8)


def test_a_network_with_heads_draws_the_others_as_without() -> None:
    several, alone = (quick_jit(lambda key, count=count: network(count, key))(jax.random.key(0)) for count in (3, 0))
    assert alone.auxiliary_heads is None
    for one, other in zip(*map(jax.tree.leaves, (without_heads(several), alone)), strict=True):
        np.testing.assert_array_equal(one, other)
    weights = several.auxiliary_heads[0][0].weight
    assert weights.shape[0] == 3 and len(np.unique(weights)) == weights.size, "each drawn by itself"


def with_heads() -> Config:
    """Two heads on a cell that remembers; of each, two numbers are learned."""
    config = configured(auxiliary_heads=2, num_envs=4, num_steps=4, num_epochs=1)
    learned = ("alpha", "auxiliary_cost", "auxiliary_discount")
    sizes: dict[str, Any] = {"policy_layers": (4,), "value_layers": (4,), "memory": "gru", "memory_size": 4}
    return dataclasses.replace(
        config,
        environment=dataclasses.replace(config.environment, name="matched-reward", options={}),
        network=dataclasses.replace(config.network, shared_torso=True, **sizes),
        meta=dataclasses.replace(config.meta, learned=learned, num_inner_steps=1),
    )


def test_every_head_has_numbers_of_its_own() -> None:
    config = with_heads()
    assert find_problems(config) == []
    names = ("alpha", "auxiliary_cost/0", "auxiliary_cost/1", "auxiliary_discount/0", "auxiliary_discount/1")
    assert config.learned_names == names
    raw = build_agent(config).initial_raw
    others = {name for name in VTraceEta._fields if not name.startswith("auxiliary")}
    assert set(named_leaves(raw)) == {*others, *names, "auxiliary_lambda/0", "auxiliary_lambda/1"}


@pytest.mark.slow
def test_heads_are_learned_from_a_configuration() -> None:
    config = with_heads()
    agent = build_agent(config)
    state, metrics = quick_jit(lambda state: agent.step(state))(init_state(agent, config, key=jax.random.key(0)))
    assert metrics.finite and float(metrics.inner["auxiliary_loss"]) != 0
    moved = gw.constrain(state.raw, agent.spec)
    assert moved.auxiliary_cost[0] != 0.1 and moved.auxiliary_lambda == (0.95, 0.95)


@pytest.mark.parametrize(
    ("inner", "learned", "field"),
    [
        ({"auxiliary_heads": -1}, (), "inner.auxiliary_heads"),
        ({"auxiliary_cost": 0.2}, (), "inner.auxiliary_cost"),
        ({}, ("auxiliary_cost",), "meta.learned"),
        ({"auxiliary_heads": 1, "auxiliary_cost": 0.0}, ("auxiliary_cost",), "inner.auxiliary_cost"),
    ],
)
def test_heads_that_cannot_be_are_named(inner: dict[str, Any], learned: tuple[str, ...], field: str) -> None:
    config = configured(**inner)
    config = dataclasses.replace(config, meta=dataclasses.replace(config.meta, learned=learned))
    assert [problem.field for problem in find_problems(config)] == [field]
    assert find_problems(preset("vtrace")) == []
