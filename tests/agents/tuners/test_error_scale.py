"""The range is a multiple of the root mean square error of the values over a window."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradweave as gw
from gradweave.agents.built import configured_bijectors, configured_eta
from gradweave.agents.ppo import PPOEta
from gradweave.agents.tuners import AbstractTuner, ErrorScale, Seen
from gradweave.config.validation import find_problems
from gradweave.envs import Step, VectorEnvironment
from gradweave.envs.probes import ConstantReward
from gradweave.runs.metrics import read_metrics
from gradweave.training.tuners import configured_tuners

from ..differences import begun
from ..material import quick_jit
from .test_target_entropy import NO_EPISODES


def seen(*losses: float) -> Seen:
    return Seen({"value_loss": jnp.asarray(losses)}, NO_EPISODES, None)


@pytest.mark.parametrize(("losses", "moved"), [((4.0,), 1.0), ((1.0, 7.0), 1.0), ((1e4, 1e4), 50.0)])
def test_it_follows_the_error_in_its_unit(losses: tuple[float, ...], moved: float) -> None:
    tuner = ErrorScale(0.5)
    value, state = tuner.start(jnp.asarray(0.2))
    assert value == jnp.asarray(0.2)
    found, state = tuner.move(value, state, seen(*losses))
    np.testing.assert_allclose(found, moved)
    assert tuner.move(found, state, seen(*losses))[0] == found


@pytest.mark.parametrize("loss", [np.nan, np.inf, 0.0])
def test_an_error_that_says_nothing_leaves_the_range(loss: float) -> None:
    assert ErrorScale().move(jnp.asarray(0.2), None, seen(1.0, loss) if loss else seen(loss))[0] == jnp.asarray(0.2)


def test_what_it_cannot_be_given() -> None:
    with pytest.raises(ValueError, match="needs scale > 0"):
        ErrorScale(0.0)
    with pytest.raises(ValueError, match="reads 'value_loss'"):
        ErrorScale().move(jnp.asarray(0.2), None, Seen({}, NO_EPISODES, None))


class HundredReward(ConstantReward):
    """One step, one action, reward 100; the value is 100."""

    def step(self, state: Any, action: Any, *, key: Any) -> tuple[Any, Step]:
        after, step = super().step(state, action, key=key)
        return after, step._replace(reward=100 * step.reward)


def value_learned(tuners: dict[str, AbstractTuner]) -> float:
    """What clipped values come to in 40 windows of the probe above, from a range of 0.2."""
    probe = HundredReward()
    eta = jax.tree.map(jnp.asarray, PPOEta(0.9, 0.9, 0.0, 0.5, 0.3, 0.2, 0.2))
    spec = PPOEta(*[gw.Fixed()] * 7)
    agent = gw.SelfTuning(
        agent=gw.ppo_agent(options=gw.PPOOptions(num_epochs=16, num_minibatches=1, clip_values=True)),
        environment=VectorEnvironment(probe, 4),
        initial_raw=gw.unconstrain(eta, spec),
        spec=spec,
        estimator=gw.Unrolled(),
        mode=gw.ReverseMode(),
        meta_optimizer=optax.sgd(0.0),
        num_inner_steps=1,
        num_steps=4,
        tuners=tuners,
    )
    state = begun(agent, probe)
    learn = quick_jit(lambda state: jax.lax.scan(lambda state, _: (agent.step(state)[0], None), state, length=40)[0])
    (value,) = jax.vmap(learn(state).learner.params)(probe.optimal_values(0.9).observations).value
    return float(value)


@pytest.mark.slow
def test_a_value_far_beyond_the_range_is_learned() -> None:
    """A step that has left the range has no gradient, so that few of a window's sixteen count."""
    assert value_learned({"value_clip_range": ErrorScale()}) == pytest.approx(100.0, abs=5.0)
    assert value_learned({}) < 70.0


def configured(clip_values: bool, tmp_path: Path, **meta: object) -> gw.Config:
    return gw.configure(
        "ppo",
        environment={"name": "matched-reward"},
        inner={"num_envs": 4, "num_steps": 8, "clip_values": clip_values},
        meta={"learned": (), **meta},
        run={"total_steps": 200, "log_every": 1, "finish": "none", "runs_dir": str(tmp_path)},
    )


@pytest.mark.slow
def test_a_run_moves_the_range_where_values_are_clipped(tmp_path: Path) -> None:
    run = gw.train(
        configured(True, tmp_path, tuners=("value_clip_range=error-scale:2",), num_inner_steps=1), quiet=True
    )
    assert run.path is not None
    rows = [row for row in read_metrics(run.path / "metrics.jsonl") if "value_loss" in row]
    assert len(rows) > 3
    for before, after in itertools.pairwise(rows):
        np.testing.assert_allclose(after["eta/value_clip_range"], 2 * before["value_loss"] ** 0.5, rtol=1e-5)


def test_auto_leaves_it_out_where_values_are_not_clipped(tmp_path: Path) -> None:
    with_clipping, without = (configured(clip, tmp_path, preset="auto") for clip in (True, False))
    assert set(configured_tuners(with_clipping)) - set(configured_tuners(without)) == {"value_clip_range"}
    assert "value_clip_range" in with_clipping.moving_names and "value_clip_range" not in without.moving_names
    assert set(configured_eta(with_clipping)) - set(configured_eta(without)) == {"value_clip_range"}
    assert set(configured_bijectors(without)) == set(configured_eta(without))


def test_a_range_without_effect_is_refused(tmp_path: Path) -> None:
    config = configured(True, tmp_path)
    inner = dataclasses.replace(config.inner, value_clip_range=0.5)  # type: ignore[call-arg]
    assert not list(find_problems(dataclasses.replace(config, inner=inner)))
    (problem,) = find_problems(
        dataclasses.replace(config, inner=dataclasses.replace(inner, clip_values=False))  # type: ignore[call-arg]
    )
    assert (problem.field, "--inner.clip-values" in problem.remedy) == ("inner.value_clip_range", True)
    meta = dataclasses.replace(config.meta, tuners=("value_clip_range=error-scale",))
    without = dataclasses.replace(configured(False, tmp_path), meta=meta)
    (problem,) = find_problems(without)
    assert (problem.field, "--inner.clip-values" in problem.remedy) == ("meta.tuners", True)
    learned = dataclasses.replace(config.meta, learned=("value_clip_range",))
    (problem,) = find_problems(dataclasses.replace(configured(False, tmp_path), meta=learned))
    assert "--inner.clip-values --meta.tuners value_clip_range=error-scale" in problem.remedy
    negative = dataclasses.replace(inner, clip_values=False, value_clip_range=-1.0)  # type: ignore[call-arg]
    assert len(list(find_problems(dataclasses.replace(config, inner=negative)))) == 1
    other = dataclasses.replace(meta, preset="auto", tuners=("value_clip_range=error-scale:2",))  # of another auto
    assert not list(find_problems(dataclasses.replace(without, meta=other)))
