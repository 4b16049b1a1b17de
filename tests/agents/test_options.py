"""Options in configurations: refused where they cannot be, built where they can, without a trace where they are off."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from gradweave.agents import ScheduleNetwork
from gradweave.config.learners.actor_critic import PARTS
from gradweave.config.presets import preset
from gradweave.config.schema import Config
from gradweave.config.toml_file import read_config, write_config
from gradweave.config.validation import validate
from gradweave.core import SamplingCorrection
from gradweave.errors import ConfigError
from gradweave.runs.progress import Progress
from gradweave.runs.run_folder import RunFolder
from gradweave.training.build import build_agent, init_state
from gradweave.training.loop import load_agent, train


def changed(**others: Any) -> Config:
    """A small agent on the discounting chain with fields changed, as section__name."""
    base = preset("discounting-chain")
    small = {"inner__num_envs": 4, "inner__num_steps": 5, "meta__num_inner_steps": 2}
    small |= {"network__policy_layers": (8,), "network__value_layers": (8,)}
    config = base
    for name, value in (small | others).items():
        section, field = name.split("__", 1)
        part = dataclasses.replace(getattr(config, section), **{field: value})
        config = dataclasses.replace(config, **{section: part})
    return config


ALL = {
    "meta__learned": ("discount", "learning_rate"),
    "meta__schedule": "network",
    "inner__learning_rate_groups": "parts",
    "inner__targets": "stopped",
    "outer__kl_cost": 0.5,
    "outer__standardize_advantages": True,
    "network__condition_on_eta": True,
}


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("meta__sampling_correction", 1.5, "--meta.sampling-correction"),
        ("meta__sampling_correction", float("nan"), "--meta.sampling-correction"),
        ("inner__learning_rate_groups", "parts", "--meta.learned"),
        ("outer__kl_cost", -1.0, "--outer.kl-cost"),
    ],
)
def test_bad_options_name_their_field_and_a_remedy(field: str, value: Any, remedy: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validate(changed(**{field: value}))
    assert raised.value.field == field.replace("__", ".")
    assert remedy in raised.value.remedy
    assert raised.value.others == ()


def test_a_schedule_needs_something_to_move() -> None:
    with pytest.raises(ConfigError, match=r"(?s)meta\.schedule.*'none'"):
        validate(changed(meta__schedule="network", meta__learned=()))


def test_options_survive_a_file(tmp_path: Path) -> None:
    config = changed(**ALL)
    validate(config)
    write_config(config, tmp_path / "config.toml")
    assert read_config(tmp_path / "config.toml") == config


@pytest.mark.slow
def test_options_are_built() -> None:
    agent = build_agent(changed(**ALL))
    assert build_agent(changed(meta__sampling_correction=0.1)).sampling_correction == SamplingCorrection(0.1)
    assert agent.schedule == ScheduleNetwork()
    assert agent.agent.annotation is not None and build_agent(changed()).agent.annotation is None
    assert set(agent.initial_raw.learning_rate) == set(PARTS)
    config = changed(**ALL)
    assert len(config.learned_names) == 4
    state = jax.eval_shape(lambda: init_state(agent, config, key=jax.random.key(0)))
    assert state.batch.conditioning.shape == (4,)
    assert [weight.shape for weight, _ in state.raw.weights.layers] == [(8, 4), (4, 8)]


@pytest.mark.slow
def test_without_options_there_is_no_trace_of_them() -> None:
    """The meta-step is the same program, instruction by instruction, whether options are left out or set to nothing."""
    config = changed()
    agent = build_agent(config)
    assert agent.sampling_correction is None and agent.schedule is None
    state = jax.eval_shape(lambda: init_state(agent, config, key=jax.random.key(0)))
    assert state.statistics is None and state.batch.anchor_logits is None and state.batch.advantage_moments is None
    never_told = dataclasses.replace(agent, agent=dataclasses.replace(agent.agent, annotation=None))
    programs = [str(jax.make_jaxpr(one.step)(state)) for one in (agent, never_told)]
    assert programs[0] == programs[1]


@pytest.mark.slow
def test_without_options_the_numbers_are_those_of_before_there_were_any() -> None:
    """The fifth meta-step of a small run, recorded when the agent had no options and these defaults."""
    config = changed(outer__value_cost=0.5, network__outer_torso="shared")
    agent = build_agent(config)
    state = jax.jit(lambda key: init_state(agent, config, key=key))(jax.random.key(0))
    _, metrics = jax.jit(lambda state: jax.lax.scan(lambda carry, _: agent.step(carry), state, length=5))(state)
    last = jax.tree.map(lambda leaf: float(leaf[-1]), metrics)
    found = [last.eta.discount, last.eta.lambda_, last.outer_loss, *last.inner.values(), *last.outer.values()]
    recorded = [0.8972580972199437, 0.898801949413387, 0.013741582168822816]
    assert list(last.inner) == ["entropy", "gradient_norm", "outer_critic_loss", "policy_loss", "value_loss"]
    recorded += [1.6094184001440408, 0.04677376893474054, 9.110617713220103e-05, -0.03672518694671943]
    assert list(last.outer) == ["outer_advantage", "outer_policy_loss"]
    recorded += [0.0026538920335852706, 0.008501861776145486, 0.013693024910386332]
    np.testing.assert_allclose(found, recorded, rtol=1e-9)
    np.testing.assert_allclose(last.grad.discount, -1.1006370551734748e-08, rtol=1e-6)


@pytest.mark.slow
def test_a_run_with_every_option_logs_what_it_used_and_resumes(tmp_path: Path) -> None:
    run = {"run__total_steps": 240, "run__chunk_size": 3, "run__evaluation_episodes": 2, "run__runs_dir": str(tmp_path)}
    config = changed(**ALL, **run, run__max_episode_steps=120, run__evaluate_every=0)
    with RunFolder.create(config) as folder, open(os.devnull, "w") as nowhere:
        with Progress(config.meta.learned, 1, stream=nowhere) as progress:
            summary = train(config, folder, progress)
        rows = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
        _, state = load_agent(folder, warn=pytest.fail)
    assert len(rows) == 6
    for name in ("discount", "learning_rate/policy", "learning_rate/torso", "learning_rate/value"):
        assert {f"eta/{name}", f"raw/{name}", f"meta_gradient/{name}"} <= set(rows[0])
    assert rows[0]["eta/learning_rate/policy"] == rows[0]["eta/learning_rate/value"] == pytest.approx(1e-3)
    assert rows[-1]["eta/learning_rate/policy"] != rows[-1]["eta/learning_rate/value"]
    assert rows[-1]["meta_gradient/learning_rate/torso"] == 0  # a vector is seen by no torso
    assert all(row["meta_gradient/learning_rate/policy"] != 0 for row in rows)
    assert all(row["outer_kl"] > 0 for row in rows)
    used = summary.agent.eta(state.raw)
    assert float(used.learning_rate["policy"]) != pytest.approx(1e-3)
    for one, other in zip(*map(jax.tree.leaves, (state.raw, summary.state.raw)), strict=True):
        np.testing.assert_array_equal(one, other)
