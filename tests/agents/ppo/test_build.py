"""PPO from a configuration: what it cannot do is named, and probes are solved."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradweave as gw
from gradweave.cli.train import parse_config
from gradweave.config.presets import preset
from gradweave.config.schema import Config
from gradweave.config.validation import find_problems
from gradweave.envs import make_environment
from gradweave.runs.metrics import read_metrics
from gradweave.training.build import build_agent, init_state


def test_any_preset_can_be_learned_by_ppo() -> None:
    for name in ("quick", "snake-6x6", "discounting-chain"):
        assert find_problems(parse_config([name, "--learner", "ppo"])) == []


def configured(**inner: Any) -> Config:
    config = preset("ppo")
    return dataclasses.replace(config, inner=dataclasses.replace(config.inner, **inner))


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (configured(num_minibatches=3), "inner.num_minibatches"),
        (configured(num_epochs=0), "inner.num_epochs"),
        (configured(clip_range=0.0), "inner.clip_range"),
        (configured(target_kl=-1.0), "inner.target_kl"),
        (parse_config(["ppo", "--network.action-scale", "dependent"]), "network.action_scale"),
        (dataclasses.replace(preset("ppo"), run=dataclasses.replace(preset("ppo").run, devices=2)), "run.devices"),
        (
            dataclasses.replace(preset("ppo"), meta=dataclasses.replace(preset("ppo").meta, schedule="network")),
            "meta.schedule",
        ),
    ],
)
def test_what_ppo_cannot_do_is_named(config: Config, field: str) -> None:
    assert field in [problem.field for problem in find_problems(config)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tuner", "values"), [("return-choice:0.1,0.2", [0.1, 0.2]), ("evolution:0.5", [0.2 * np.exp(0.5)])]
)
def test_a_tuner_moves_the_clip_range(tuner: str, values: list[float], tmp_path: Path) -> None:
    config = gw.configure(
        "ppo",
        environment={"name": "matched-reward"},
        inner={"num_envs": 4, "num_steps": 8},
        meta={"learned": (), "tuners": (f"clip_range={tuner}",), "num_inner_steps": 1},
        run={"total_steps": 800, "log_every": 1, "finish": "none", "runs_dir": str(tmp_path)},
    )
    run = gw.train(config, quiet=True)
    assert run.path is not None
    ranges = [row["eta/clip_range"] for row in read_metrics(run.path / "metrics.jsonl") if "eta/clip_range" in row]
    assert len(ranges) > 20, "two trials of the choice"
    np.testing.assert_allclose(sorted(set(ranges)), values, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rate", "count"), [("matched-reward", 0.02, 60), ("aimed-reward", 0.003, 100)])
def test_a_probe_is_solved_from_a_configuration(name: str, rate: float, count: int) -> None:
    """The policy finds reward 1, and its value is 1."""
    config = preset("ppo")
    config = dataclasses.replace(
        config,
        environment=dataclasses.replace(config.environment, name=name, options={}),
        inner=dataclasses.replace(
            config.inner, num_envs=16, num_steps=4, learning_rate=rate, entropy_cost=1e-3, scale_rewards="off"
        ),
        meta=dataclasses.replace(config.meta, num_inner_steps=2),
    )
    assert find_problems(config) == []
    agent = build_agent(config)
    run = jax.jit(lambda state: jax.lax.scan(lambda carry, _: agent.step(carry), state, length=count))
    state, metrics = run(init_state(agent, config, key=jax.random.key(0)))
    assert metrics.finite.all()
    assert float(state.batch.experience.trajectory.rewards.mean()) > 0.9
    known = make_environment(name).optimal_values(0.99)
    said = jax.vmap(state.learner.params)(known.observations)
    np.testing.assert_allclose(said.value, known.values, atol=0.1)
    if name == "aimed-reward":
        mean, spread = said.logits[:, 0], said.logits[:, 1]
        np.testing.assert_allclose(mean, known.observations.view[:, 0], atol=0.15)
        assert spread[0] == spread[1] < -1.0, "one spread, whatever is seen, and smaller than at first"


@pytest.mark.slow
def test_a_squashed_policy_with_a_scale_that_it_sees_aims_as_well() -> None:
    config = parse_config(
        [
            "ppo",
            "--environment.name",
            "aimed-reward",
            "--network.action-distribution",
            "tanh-gaussian",
            "--network.action-scale",
            "dependent",
            "--inner.num-envs",
            "16",
            "--inner.num-steps",
            "4",
            "--inner.learning-rate",
            "0.001",
            "--inner.entropy-cost",
            "0.001",
            "--inner.scale-rewards",
            "off",
        ]
    )
    assert find_problems(config) == []
    agent = build_agent(config)
    run = jax.jit(lambda state: jax.lax.scan(lambda carry, _: agent.step(carry), state, length=100))
    state, metrics = run(init_state(agent, config, key=jax.random.key(0)))
    assert metrics.finite.all() and state.learner.params.free_outputs is None
    batch = state.batch.experience.trajectory
    assert float(jnp.abs(batch.actions).max()) < 1
    # Its scale jitters with a constant learning rate: of the last windows the mean, and of the mode the side.
    last = jax.tree.map(lambda leaf: leaf[-20:].sum(), metrics.episodes)
    assert float(last.sum_returns / last.num_episodes) > 0.9
    known = make_environment("aimed-reward").optimal_values(0.99)
    said = jax.vmap(state.learner.params)(known.observations).logits
    assert (jnp.tanh(said[:, 0]) * jnp.sign(known.observations.view[:, 0]) > 0.15).all()
