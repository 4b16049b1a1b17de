"""Every name a configuration can hold becomes an agent that takes a meta-step."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from gradweave import AdaptiveMix, Bootstrapped, ForwardMode, MixedMode, RandomTruncation, Trace
from gradweave.config.configure import configure
from gradweave.config.presets import preset
from gradweave.config.schema import Config
from gradweave.config.validation import validate
from gradweave.errors import ConfigError
from gradweave.training.build import build_agent, init_state


def config_with(*, inner: dict[str, Any] = {}, outer: dict[str, Any] = {}, **meta: Any) -> Config:  # noqa: B006
    config = preset("discounting-chain")
    return dataclasses.replace(
        config,
        inner=dataclasses.replace(config.inner, num_envs=2, num_steps=4, **inner),
        outer=dataclasses.replace(config.outer, **outer),
        network=dataclasses.replace(config.network, policy_layers=(4,), value_layers=(4,)),
        meta=dataclasses.replace(config.meta, **{"num_inner_steps": 3, **meta}),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "kind", "mode"),
    [
        ("adaptive-mix", AdaptiveMix, ForwardMode),
        ("trace", Trace, ForwardMode),
        ("bootstrapped", Bootstrapped, MixedMode),
        ("random-truncation", RandomTruncation, MixedMode),
    ],
)
def test_estimators_by_name(estimator: str, kind: type, mode: type) -> None:
    config = config_with(estimator=estimator)
    validate(config)
    agent = build_agent(config)
    assert isinstance(agent.estimator, kind)
    assert isinstance(agent.mode, mode)

    @jax.jit
    def three_meta_steps(key: jax.Array) -> Any:
        state = init_state(agent, config, key=key)
        return jax.lax.scan(lambda s, _: agent.step(s), state, length=3)[1]

    metrics = three_meta_steps(jax.random.key(0))
    assert metrics.finite.all()
    assert np.all(np.asarray(metrics.grad.discount) != 0)
    assert not np.any(metrics.grad.entropy_cost)
    assert len(np.unique(metrics.eta.discount)) == 3


@pytest.mark.parametrize(
    ("changes", "mode"),
    [
        ({}, ForwardMode),
        ({"estimator": "unrolled"}, ForwardMode),
        ({"estimator": "window-mix"}, MixedMode),
        ({"num_inner_steps": 1}, MixedMode),
        ({"learned": ("discount", "lambda_")}, MixedMode),
        ({"learned": ()}, MixedMode),
        ({"sampling_correction": 1.0}, MixedMode),
        ({"schedule": "network"}, MixedMode),
        ({"mode": "mixed"}, MixedMode),
        ({"outer": {"kl_cost": 0.1}}, MixedMode),
        ({"outer": {"standardize_advantages": True}}, MixedMode),
    ],
)
def test_one_number_over_several_updates_is_learned_in_forward_mode(changes: dict[str, Any], mode: type) -> None:
    assert isinstance(build_agent(config_with(**{"learned": ("discount",), **changes})).mode, mode)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"learned": ("discount",)},
        {"learned": ("discount",), "num_inner_steps": 1},
        {"learned": ("discount", "learning_rate"), "inner": {"microbatches": 2, "learning_rate_groups": "parts"}},
        {"learned": ("discount", "lambda_"), "schedule": "network"},
        {"learned": ("learning_rate",), "estimator": "unrolled", "outer": {"critic": "off"}},
    ],
)
def test_the_mode_changes_the_cost_and_not_the_gradient(changes: dict[str, Any]) -> None:
    config = config_with(**changes, mode="forward")
    agents = {
        mode: build_agent(dataclasses.replace(config, meta=dataclasses.replace(config.meta, mode=mode)))
        for mode in ("forward", "mixed")
    }
    assert [agent.tracks_tangents for agent in agents.values()] == [True, False]

    @jax.jit
    def metrics(key: jax.Array) -> dict[str, Any]:
        def two_meta_steps(agent: Any) -> Any:
            state = init_state(agent, config, key=jax.random.clone(key))
            return jax.lax.scan(lambda s, _: agent.step(s), state, length=2)[1]

        return {mode: two_meta_steps(agent) for mode, agent in agents.items()}

    found = metrics(jax.random.key(0))
    for name in ("grad", "outer_loss", "outer", "inner", "eta"):
        tracked, replayed = (jax.tree.leaves(getattr(found[mode], name)) for mode in ("forward", "mixed"))
        for one, other in zip(tracked, replayed, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12, err_msg=name)
    for name in changes["learned"]:
        assert any(np.all(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(getattr(found["forward"].grad, name)))


@pytest.mark.parametrize(
    ("num_envs", "num_steps", "parts"), [(32, 5, 1), (64, 5, 2), (128, 20, 16), (257, 5, 1), (4, 600, 4), (100, 20, 10)]
)
def test_large_batches_come_in_parts_that_are_neither_large_nor_splinters(
    num_envs: int, num_steps: int, parts: int
) -> None:
    config = config_with()
    config = dataclasses.replace(
        config, inner=dataclasses.replace(config.inner, num_envs=num_envs, num_steps=num_steps)
    )
    microbatches = build_agent(config).problem.microbatches
    assert (1 if microbatches is None else microbatches.num_parts) == parts


def test_the_learned_discount_stays_below_its_bound() -> None:
    start = {"discount": 0.9}
    bounded, free = (build_agent(config_with(inner=start, max_discount=bound)) for bound in (0.95, None))
    far = bounded.initial_raw._replace(discount=jax.numpy.asarray(10.0))
    assert float(bounded.eta(bounded.initial_raw).discount) == pytest.approx(0.9)
    assert 0.94 < float(bounded.eta(far).discount) < 0.95 < float(free.eta(far).discount)
    with pytest.raises(ConfigError) as caught:
        validate(config_with(learned=("lambda_",), max_discount=0.95))
    assert caught.value.field == "meta.max_discount" and "--meta.learned" in caught.value.remedy


@pytest.mark.parametrize("learner", ["actor-critic", "ppo", "vtrace"])
def test_the_learned_learning_rate_approaches_its_bound_and_can_come_back(learner: str) -> None:
    presets = {"actor-critic": "discounting-chain", "ppo": "ppo", "vtrace": "vtrace"}
    meta = {"learned": ("learning_rate",), "max_learning_rate": 0.01}
    agent = build_agent(configure(presets[learner], inner={"num_envs": 4, "learning_rate": 1e-4}, meta=meta))

    def rate(raw: float) -> jax.Array:
        return agent.eta(agent.initial_raw._replace(learning_rate=jax.numpy.asarray(raw))).learning_rate

    assert float(agent.eta(agent.initial_raw).learning_rate) == pytest.approx(1e-4)
    assert 0.0099 < float(rate(6.0)) < float(rate(12.0)) <= 0.01
    # Far below the bound it moves in proportion to itself, as without one; at the bound its derivative is not 0.
    low, start = float(agent.initial_raw.learning_rate), 1e-4
    assert float(jax.grad(rate)(low)) == pytest.approx(start, rel=0.02)
    assert float(jax.grad(rate)(12.0)) > 0


@pytest.mark.parametrize(("learned", "bound"), [("lambda_", 0.1), ("learning_rate", 1e-3), ("learning_rate", 1e4)])
def test_bounds_of_the_learning_rate_that_cannot_be_are_refused(learned: str, bound: float) -> None:
    start = {"learning_rate": 1e-3}
    with pytest.raises(ConfigError) as caught:
        validate(config_with(learned=(learned,), inner=start, max_learning_rate=bound))
    assert caught.value.field == "meta.max_learning_rate" and "--" in caught.value.remedy


def test_the_scale_of_the_last_policy_layer_and_the_outer_rollout_are_the_configured_ones() -> None:
    weights = []
    for scale, rollout in ((0.01, "next"), (1.0, "own")):
        config = config_with(outer={"rollout": rollout})
        config = dataclasses.replace(config, network=dataclasses.replace(config.network, policy_scale=scale))
        agent = build_agent(config)
        assert agent.outer_rollout == rollout
        assert agent.environment_steps(2) - agent.environment_steps(1) == config.window_steps
        state = jax.jit(lambda key, agent=agent, config=config: init_state(agent, config, key=key))(jax.random.key(0))
        weights.append(np.asarray(state.learner.params.policy_head[-1].weight))
    np.testing.assert_allclose(100 * weights[0], weights[1], rtol=1e-5)


@pytest.mark.parametrize("chunk_size", [2, 7])
def test_the_guard_knows_how_many_windows_the_run_will_have(chunk_size: int) -> None:
    config = config_with(guard=True)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, chunk_size=chunk_size))
    guard = build_agent(config).guard
    assert guard is not None and guard.num_windows == config.planned_windows
    assert guard.num_windows % chunk_size == 0  # chunks are whole: the last window is one that comes


def test_a_constant_inside_the_root_floors_the_meta_optimisers_steps() -> None:
    gradient = build_agent(config_with()).initial_raw._replace(discount=jax.numpy.asarray(1e-6))
    moves = []
    for eps_root in (0.0, 1e-8):
        optimizer = build_agent(config_with(eps_root=eps_root, learning_rate=0.1)).meta_optimizer
        with jax.numpy_dtype_promotion("standard"):  # optax counts in integers
            updates, _ = optimizer.update(gradient, optimizer.init(gradient))
        moves.append(float(updates.discount))
    assert moves[0] == pytest.approx(-0.1, rel=0.02)  # Adam's first step is the learning rate whatever the gradient
    assert moves[1] == pytest.approx(-0.1 * 1e-6 / 1.0005e-4, rel=0.02)


@pytest.mark.parametrize(
    ("meta", "field"),
    [
        ({"estimator": "adaptive-mix", "mode": "mixed"}, "meta.mode"),
        ({"estimator": "trace", "mode": "reverse"}, "meta.mode"),
        ({"estimator": "bootstrapped:4"}, "meta.estimator"),
        ({"eps_root": -1e-8}, "meta.eps_root"),
        ({"eps_root": 1e-8, "optimizer": "sgd"}, "meta.eps_root"),
    ],
)
def test_what_does_not_fit_is_named(meta: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(config_with(**meta))
    assert caught.value.field == field
