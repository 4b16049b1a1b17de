"""The study of arrows: its intervals, its count of signs, and that what it varies is all that differs."""

import jax
import numpy as np
import pytest
from scipy.stats import t as student

from gradweave.training.build import build_agent, init_state
from gradweave.training.evaluation import evaluate
from gradweave.training.loading import LoadedAgent


def test_an_interval_is_students(script):
    run = script("arrows", "run")
    values = np.array([1.0, 2.0, 4.0, 9.0])
    found = run.interval(values)
    low, high = student.interval(0.95, 3, values.mean(), values.std(ddof=1) / 2)
    assert (found["value"], found["low"], found["high"], found["num"]) == pytest.approx((4.0, low, high, 4))


def test_only_signs_that_are_told_from_0_are_counted(script):
    run = script("arrows", "run")

    def row(seed, updates, value, width, **more):
        known = {"seed": seed, "step": 10, "meta_parameter": "discount", "updates": updates}
        return {**known, "value": value, "low": value - width, "high": value + width, **more}

    gradients = [row(0, 1, 2.0, 1.0), row(1, 1, -2.0, 1.0), row(2, 1, 2.0, 3.0)]
    effects = [row(seed, 5, 1.0, 0.5, way="differences") for seed in range(3)]
    effects += [row(0, 7, 1.0, 1.5, way="differences"), row(0, 7, 1.0, 0.1, way="evolution")]
    found = {
        (entry["meta_parameter"], entry["horizon"], entry["updates"]): (entry["told"], entry["agreeing"])
        for entry in run.agreement_rows(gradients, effects)
    }
    assert found["discount", 1, 5] == (2, 1)
    assert found["discount", 1, 7] == (0, 0)
    assert found["lambda_", 1, 5] == (0, 0)


@pytest.mark.slow
def test_at_a_learning_rate_of_0_the_agent_stays_what_it_is(script):
    run = script("arrows", "run")
    config = run.base("tiny")
    agent = build_agent(config)
    loaded = LoadedAgent(config, agent, init_state(agent, config, key=jax.random.key(3)), 0)
    keys = jax.random.split(jax.random.key(4), 2)
    still = np.array([[-90.0, 0, 0, 0], [-90.0, 0, 0, 0], [0, 0, 0, 0]])
    with jax.debug_key_reuse(False):  # pairs share their randomness
        found = run.returns_after(config, loaded, still, keys[jax.numpy.array([0, 1, 0])], (1, 2))
    playing = [jax.random.split(key)[1] for key in keys]
    for member in range(2):
        for place, updates in enumerate((1, 2)):
            played = evaluate(
                agent,
                loaded.state.learner.params,
                loaded.state.raw,
                key=jax.random.fold_in(playing[member], updates),
                greedy=False,
                num_episodes=config.run.evaluation_episodes,
                max_steps=config.run.max_episode_steps,
            )
            assert found[member, place] == pytest.approx(float(played.returns.mean()))


def test_agents_are_pooled_with_their_own_errors(script):
    run = script("arrows", "run")
    place = {"step": 10, "meta_parameter": "discount", "updates": 3, "num": 8.0}
    half = {2.0: student.ppf(0.975, 7), 4.0: 2 * student.ppf(0.975, 7)}  # standard errors of 1 and 2
    rows = [{**place, "value": value, "low": value - wide, "high": value + wide} for value, wide in half.items()]
    (found,) = run.pooled_rows(rows, [])
    assert (found["way"], found["agents"], found["value"]) == ("gradient", 2, 3.0)
    np.testing.assert_allclose(found["high"] - found["value"], 1.96 * np.sqrt(1 + 4) / 2, rtol=1e-12)
