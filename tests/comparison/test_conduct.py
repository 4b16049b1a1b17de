"""Conducting a comparison: members are the runs that they would be alone; a stopped one goes on as if it had not."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.comparison.conduct import conduct
from gradweave.comparison.outcome import outcomes, write_outcome
from gradweave.comparison.plan_checks import check_plan
from gradweave.comparison.population import Population
from gradweave.config.learners.actor_critic import InnerConfig, NetworkConfig
from gradweave.config.schema import Config, EnvironmentConfig, MetaConfig, RunConfig
from gradweave.config.search import SearchRange
from gradweave.errors import ConfigError, DamagedFile
from gradweave.runs.comparison_folder import ComparisonPlan, create_comparison, read_comparison
from gradweave.training.build import build_agent, init_state
from gradweave.training.checkpoints import save

pytestmark = pytest.mark.slow

RATE = {"learning_rate": SearchRange(1e-3, 1e-1)}


def tiny(tmp_path, **inner):
    return Config(
        environment=EnvironmentConfig("matched-reward"),
        network=NetworkConfig(policy_layers=(4,), value_layers=(4,)),
        inner=InnerConfig(num_envs=4, num_steps=2, **inner),
        meta=MetaConfig(),
        run=RunConfig(
            runs_dir=str(tmp_path), total_steps=168, seed=3, evaluation_episodes=8, max_episode_steps=4, finish="none"
        ),
    )


def test_each_member_is_the_run_it_would_be_alone(tmp_path):
    config = tiny(tmp_path)
    population = Population(config, at_once=2)
    members = population.begin([3, 4, 5], [{}, {"learning_rate": 0.1}, {"discount": 0.5, "learning_rate": 0.05}])
    members, found = population.advance(members, 5)
    alone = [tiny(tmp_path), tiny(tmp_path, learning_rate=0.1), tiny(tmp_path, discount=0.5, learning_rate=0.05)]
    for index, (seed, config) in enumerate(zip((3, 4, 5), alone, strict=True)):
        agent = build_agent(config)
        state = init_state(agent, config, key=jax.random.key(seed))
        step, earned, count = jax.jit(lambda state, agent=agent: agent.step(state)), 0.0, 0.0
        for _ in range(5):
            state, metrics = step(state)
            earned += float(metrics.episodes.sum_returns)
            count += float(metrics.episodes.num_episodes)
        expected = jax.tree.leaves(state.learner.params)
        for leaf, value in zip(jax.tree.leaves(members.learner.params), expected, strict=True):
            np.testing.assert_allclose(leaf[index], value, rtol=1e-9, atol=1e-12)
        assert found.training_return[index] == pytest.approx(earned / count)
        assert found.environment_steps[index] == agent.environment_steps(5) == 4 * 2 * 6
        assert found.eta["learning_rate"][index] == pytest.approx(config.inner.learning_rate)


def test_tuners_begin_from_a_members_own_settings(tmp_path):
    """The bandit begins with its first candidate, whatever is configured; a rate within bounds, at the nearer one."""
    tuners = ("learning_rate=return-choice:0.01,0.02", "entropy_cost=entropy-share:0.5,0.003,0.03")
    meta = MetaConfig(learned=(), estimator="unrolled", tuners=tuners, guard=True)
    config, same = (
        dataclasses.replace(tiny(tmp_path, learning_rate=rate, entropy_cost=0.2), meta=meta) for rate in (1e-3, 0.5)
    )
    population = Population(config, at_once=1)
    asked = [{}, {"learning_rate": 0.5, "entropy_cost": 0.2}]
    members, _ = population.advance(population.begin([3, 3], asked), 1)
    alone, _ = Population(same, at_once=1).advance(Population(same, at_once=1).begin([3], [{}]), 1)
    for leaf, other in zip(jax.tree.leaves(members.learner), jax.tree.leaves(alone.learner), strict=True):
        np.testing.assert_array_equal(leaf[0], other[0])
        np.testing.assert_array_equal(leaf[1], other[0])


def test_rewards_are_scaled_by_a_members_own_discount_from_the_first_rollout_on(tmp_path):
    config, same = (tiny(tmp_path, scale_rewards="on", discount=discount) for discount in (0.9, 0.3))
    drawn = Population(config, at_once=1).begin([3, 3], [{"discount": 0.3}, {}])
    alone = Population(same, at_once=1).begin([3], [{}])
    for leaf, other in zip(jax.tree.leaves(drawn), jax.tree.leaves(alone), strict=True):
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(leaf[0], other[0])


def test_members_are_evaluated_with_what_they_have_seen(tmp_path):
    population = Population(tiny(tmp_path, normalize_observations=True), at_once=1)
    members, found = population.advance(population.begin([3], [{}]), 2)
    assert np.isfinite(found.evaluation_return).all()
    assert int(members.rollout.observation_statistics.num_steps.sum()) == found.environment_steps[0]


def test_the_guard_and_tuners_of_a_rival_know_how_many_windows_its_members_have(tmp_path, monkeypatch):
    meta = MetaConfig(learned=(), estimator="unrolled", tuners=("learning_rate=kl-anneal",), guard=True)
    config = dataclasses.replace(tiny(tmp_path), meta=meta)
    plan = ComparisonPlan(config, ("plain", "meta"), RATE, trials=2, seeds=(3,), at_once=1)
    planned = []

    class Noted(Population):
        def __init__(self, config, at_once):
            planned.append((config.planned_windows, config.window_steps))
            super().__init__(config, at_once)

    monkeypatch.setattr(sys.modules[conduct.__module__], "Population", Noted)
    rows = conduct(plan, create_comparison(plan), lambda text: None)
    ends = [max(row["environment_steps"] for row in rows if row["rival"] == rival) for rival in plan.rivals]
    first = config.inner.num_envs * config.inner.num_steps
    assert [first + windows * steps for windows, steps in planned] == ends


def test_a_copy_keeps_its_own_randomness_and_count(tmp_path):
    population = Population(tiny(tmp_path), at_once=3)
    members = population.begin([0, 1, 2], [{}] * 3)
    copied = population.copied(members, [0, 0, 2])
    for leaf, before in zip(jax.tree.leaves(copied.learner), jax.tree.leaves(members.learner), strict=True):
        assert (leaf[1] == before[0]).all()
        assert (leaf[2] == before[2]).all()
    assert (jax.random.key_data(copied.key) == jax.random.key_data(members.key)).all()


@pytest.fixture(autouse=True)
def without_key_reuse_check():
    """Under vmap JAX takes the use of one key of a split for the use of all; each member alone is checked elsewhere."""
    with jax.debug_key_reuse(False):
        yield


class Killed(BaseException):
    """As if the process had gone."""


def test_a_stopped_comparison_goes_on_as_if_it_had_not_stopped(tmp_path):
    plan = ComparisonPlan(tiny(tmp_path), ("plain", "sweep", "pbt"), RATE, trials=4, seeds=(3, 4), at_once=4)
    check_plan(plan)
    path, other = create_comparison(plan), create_comparison(plan)
    assert read_comparison(path) == plan
    whole = conduct(plan, path, lambda text: None)
    said = []

    def killing(text):
        said.append(text)
        if len(said) in (12, 24):
            raise Killed

    rows = None
    while rows is None:
        try:
            rows = conduct(read_comparison(other), other, killing)
        except Killed:
            continue
    assert rows == whole
    # What it costs: a search shares the budget, and the sweep has all of it for each trial on seeds of its own.
    text = write_outcome(plan, rows, path)
    steps = {
        row["rival"]: row["environment_steps"]
        for row in rows
        if row["stretch"] == max(other["stretch"] for other in rows if other["rival"] == row["rival"])
    }
    assert 4 * steps["pbt"] <= 168
    assert steps["plain"] == steps["sweep"] == steps["sweep-search"] == 168
    assert f"{168 + 2 * 4 * 168:,}" in text
    assert "168 of 168 planned environment steps" in text
    assert all((path / name).is_file() for name in ("comparison.csv", "summary.csv", "outcomes.csv", "comparison.png"))
    # Nor is a file that lacks what it should say gone on from, or one of another plan.
    save(path / "plain.safetensors", {"x": np.zeros(1)}, 0, {"plan": plan.identity})
    with pytest.raises(DamagedFile, match="begins anew"):
        conduct(plan, path, lambda text: None)
    edited = dataclasses.replace(plan, trials=5)
    with pytest.raises(ConfigError, match="undo the edits"):
        conduct(edited, path, lambda text: None)


@pytest.mark.parametrize(("total", "trials"), [(168, 4), (199, 4), (500, 4), (500, 3), (64, 4)])
def test_every_rival_takes_the_same_steps_up_to_one_window(tmp_path, total, trials):
    config = tiny(tmp_path)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, total_steps=total, evaluation_episodes=1))
    plan = ComparisonPlan(config, ("plain", "random", "pbt-copy"), RATE, trials=trials, seeds=(3,), at_once=4)
    check_plan(plan)
    rows = conduct(plan, create_comparison(plan), lambda text: None)
    for found in outcomes(rows, plan.seeds):
        assert total - config.window_steps < found["environment_steps"] <= total
    ended = {(row["rival"], row["member"]): row["environment_steps"] for row in rows}
    of_members = [steps for (rival, _), steps in ended.items() if rival != "plain"]
    assert max(of_members) - min(of_members) <= config.window_steps


def test_a_member_that_is_not_finite_has_no_training_return(tmp_path):
    population = Population(tiny(tmp_path), at_once=2)
    members = population.begin([3, 4], [{}, {}])
    spoilt = jax.tree.map(lambda leaf: leaf.at[1].set(np.nan), members.learner.params)
    _, found = population.advance(members._replace(learner=members.learner._replace(params=spoilt)), [2, 3])
    assert found.finite.tolist() == [True, False]
    assert np.isfinite(found.training_return).tolist() == [True, False]
    assert found.environment_steps.tolist() == [24, 32]


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [({"trials": 1}, "--trials 8"), ({"at_once": 0}, "--at-once 8"), ({"trials": 60}, "lower --trials")],
)
def test_plans_that_cannot_be_are_refused(tmp_path, changes, remedy):
    plan = ComparisonPlan(tiny(tmp_path), ("random",), RATE, trials=4, seeds=(3,), at_once=4)
    with pytest.raises(ConfigError, match=remedy):
        check_plan(dataclasses.replace(plan, **changes))
