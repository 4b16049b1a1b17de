"""Measurements of a tiny agent against meta-gradients of the very windows they were taken from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.config.configure import configure
from gradweave.config.learners.actor_critic import InnerConfig, NetworkConfig
from gradweave.config.schema import Config, EnvironmentConfig, MetaConfig
from gradweave.core import (
    HorizonMix,
    ReverseMode,
    SamplingCorrection,
    Truncated,
    TruncationMix,
    Unrolled,
    meta_gradient,
    uniform_weights,
)
from gradweave.errors import NonFiniteError
from gradweave.measurement.sampling import (
    GradientSamples,
    default_estimators,
    episode_rollouts,
    estimator_samples,
    measure_agent,
    with_num_envs,
)
from gradweave.training.build import build_agent, init_state

LEARNED = ("discount", "entropy_cost", "learning_rate")
LENGTH = 3
OPTIONS = {"num_samples": 5, "burn_in_rollouts": 2, "chunk_size": 2}


def tiny(learned=LEARNED, **inner):
    config = Config(
        environment=EnvironmentConfig("discounting-chain"),
        network=NetworkConfig(policy_layers=(4,), value_layers=(4,)),
        inner=InnerConfig(num_envs=3, num_steps=2, learning_rate=0.05, **inner),
        meta=MetaConfig(learned=learned, num_inner_steps=LENGTH),
    )
    agent = build_agent(config)
    return agent, jax.jit(lambda key: init_state(agent, config, key=key))(jax.random.key(0))


@pytest.fixture(name="subject", scope="module")
def make_subject():
    return tiny()


@pytest.fixture(name="samples", scope="module")
def make_samples(subject):
    seen = []
    agent, state = subject
    samples = measure_agent(
        agent, state, key=jax.random.key(7), progress=lambda done, total: seen.append((done, total)), **OPTIONS
    )
    assert seen == [(2, 5), (4, 5), (5, 5)]
    return samples


@pytest.mark.slow
def test_rates_by_part_are_measured_apart():
    agent, state = tiny(("discount", "learning_rate"), learning_rate_groups="parts")
    samples = measure_agent(agent, state, key=jax.random.key(1), **OPTIONS)
    assert samples.names == ("discount", "learning_rate/policy", "learning_rate/torso", "learning_rate/value")
    means = np.abs(samples.horizons).mean((0, 1))
    assert means[1] > 0
    assert means[2] == 0  # a vector has no torso
    assert means[3] > 0
    assert means[1] != means[3]


def window_of(agent, state, key, burn_in_rollouts):
    """The window that a sample is taken from, collected step by step."""
    count_key, burn_key, batch_key, window_key = jax.random.split(key, 4)
    collect = jax.jit(lambda running, key: agent.collect(state.learner.params, state.raw, running, key=key)[:2])
    running = state.rollout
    count = int(jax.random.randint(count_key, (), burn_in_rollouts, 2 * burn_in_rollouts + 1))
    for index in range(count):
        running, _ = collect(running, jax.random.fold_in(burn_key, index))
    running, batch = collect(running, batch_key)
    window = jax.jit(lambda state, key: agent.collect_window(state, key=key).batches)
    return window(state._replace(rollout=running, batch=batch), window_key)


@pytest.mark.slow
def test_samples_are_meta_gradients_of_their_windows(subject, samples):
    agent, state = subject
    estimators = {
        "horizons": HorizonMix(uniform_weights(LENGTH)),
        "windows": TruncationMix(jnp.array([0.2, 0.5, 0.3])),
    }
    found = estimator_samples(samples, estimators)

    @jax.jit
    def gradients(batches):
        return {
            name: meta_gradient(
                agent.problem,
                state.raw,
                agent.spec,
                state.learner,
                batches,
                None,
                estimator=estimator,
                mode=ReverseMode(),
            ).grad
            for name, estimator in estimators.items()
        }

    key = jax.random.split(jax.random.key(7), 5)[3]
    for name, expected in gradients(window_of(agent, state, key, 2)).items():
        row = [getattr(expected, parameter) for parameter in LEARNED]
        np.testing.assert_allclose(found[name][3], row, rtol=1e-8, atol=1e-14)
        assert np.abs(found[name]).max() > 0


@pytest.mark.slow
def test_an_interrupted_measurement_goes_on_and_more_samples_begin_with_fewer(subject, samples):
    kept = []
    options = {**OPTIONS, "num_samples": 3}
    shorter = measure_agent(*subject, key=jax.random.key(7), keep=kept.append, **options)
    np.testing.assert_array_equal(shorter.contributions, samples.contributions[:3])
    assert [len(one) for one in kept] == [2, 3]
    seen = []
    rest = measure_agent(
        *subject, key=jax.random.key(7), known=kept[-1], progress=lambda done, _: seen.append(done), **OPTIONS
    )
    np.testing.assert_array_equal(rest.contributions, samples.contributions)
    assert seen == [5]
    with pytest.raises(ValueError, match="known samples have shape"):
        measure_agent(*subject, key=jax.random.key(7), known=kept[-1][:, :2], **OPTIONS)


@pytest.mark.slow
def test_batches_of_another_size(subject, samples):
    agent, state = subject
    same = measure_agent(*with_num_envs(agent, state, 3), key=jax.random.key(7), **OPTIONS)
    np.testing.assert_array_equal(same.contributions, samples.contributions)
    large, large_state = with_num_envs(agent, state, 5)
    assert large.environment.num_envs == 5
    before, after = jax.tree.leaves(state.rollout), jax.tree.leaves(large_state.rollout)
    for old, new in zip(before, after, strict=True):
        assert (new[3:] == old[:2]).all(), "the surplus begin as copies"
    found = measure_agent(large, large_state, key=jax.random.key(7), **OPTIONS)
    assert found.contributions.shape == samples.contributions.shape
    assert not np.allclose(found.contributions, samples.contributions)
    with pytest.raises(ValueError, match="at least 1"):
        with_num_envs(agent, state, 0)


@pytest.mark.slow
def test_batches_of_another_size_of_a_learner_with_minibatches():
    def built(num_envs):
        config = configure(
            "ppo",
            environment={"name": "discounting-chain"},
            inner={"num_envs": num_envs, "num_steps": 4, "num_epochs": 1, "num_minibatches": 2},
            network={"policy_layers": (4,), "value_layers": (4,)},
            meta={"learned": ("discount",), "num_inner_steps": 2},
        )
        return build_agent(config), config

    (agent, config), (larger, _) = built(2), built(6)
    state = init_state(agent, config, key=jax.random.key(0))
    found, state = with_num_envs(agent, state, 6, problem=larger.problem)
    one, other = (measure_agent(each, state, key=jax.random.key(7), **OPTIONS) for each in (found, larger))
    np.testing.assert_array_equal(one.contributions, other.contributions)


@pytest.mark.slow
def test_batches_of_another_size_need_parts_that_fit():
    agent, state = tiny(microbatches=3)
    with pytest.raises(ValueError, match="3 equal parts"):
        with_num_envs(agent, state, 2)
    whole, _ = tiny()
    assert with_num_envs(agent, state, 2, problem=whole.problem)[0].problem is whole.problem
    assert with_num_envs(agent, state, 6)[0].problem is agent.problem


@pytest.mark.slow
def test_samples_are_named_independent_and_shaped(samples):
    assert samples.names == LEARNED
    assert samples.contributions.shape == (5, LENGTH, LENGTH, len(LEARNED))
    assert (samples.num_samples, samples.num_inner_steps) == (5, LENGTH)
    for index in range(len(LEARNED)):
        assert len(np.unique(samples.horizons[:, -1, index])) == 5


@pytest.mark.slow
def test_default_estimators_fit_and_begin_with_the_reference(samples):
    found = estimator_samples(samples, default_estimators(LENGTH))
    assert next(iter(found)) == "unrolled"
    np.testing.assert_allclose(found["unrolled"], samples.horizons[:, -1])
    np.testing.assert_allclose(found["truncated 1"], samples.truncations[:, 0])
    np.testing.assert_allclose(found["horizon-mix uniform"], samples.horizons.mean(1))
    geometric = 0.5 * samples.truncations[:, 0] + 0.25 * samples.truncations[:, 1] + 0.25 * samples.truncations[:, 2]
    np.testing.assert_allclose(found["truncation-mix 0.5"], geometric)


def test_an_estimator_that_does_not_fit_is_an_error(samples):
    with pytest.raises(ValueError, match="reaches back further"):
        estimator_samples(samples, {"long": Truncated(LENGTH + 1)})


def test_weights_of_both_kinds_together():
    table = np.arange(4.0).reshape(1, 2, 2, 1) * np.tri(2)[..., None]

    class Both(Unrolled):
        def kernel_weights(self, num_inner_steps):
            weights = super().kernel_weights(num_inner_steps)
            return weights._replace(steps=jnp.array([0.5, 2.0]), horizons=jnp.array([10.0, 1.0]))

    found = estimator_samples(GradientSamples(("discount",), table), {"both": Both()})["both"]
    assert found.item() == 10 * 0.5 * 0 + 0.5 * 2 + 2 * 3


def test_plain_actor_critic_has_nothing_to_measure():
    agent, state = tiny(learned=())
    with pytest.raises(ValueError, match="learns no meta-parameter"):
        measure_agent(agent, state, key=jax.random.key(0), num_samples=2, burn_in_rollouts=0)


def test_a_sampling_correction_is_not_left_out_silently(subject):
    agent, state = subject
    corrected = dataclasses.replace(agent, sampling_correction=SamplingCorrection(1.0))
    with pytest.raises(ValueError, match="would not be measured"):
        measure_agent(corrected, state, key=jax.random.key(0), num_samples=2, burn_in_rollouts=0)


def test_the_burn_in_is_an_episode():
    rows = [{"step": step, "num_episodes": 2, "episode_length": 10.0 * step} for step in range(1, 201)]
    assert episode_rollouts(rows, 20, 200) == 76  # 1505, the mean of 1010 to 2000, by rollouts of 20
    assert episode_rollouts(rows, 20, 100) == 26
    assert episode_rollouts(rows, 5, 200) == 100
    assert episode_rollouts([*rows[:2], {"step": 3, "num_episodes": 0, "episode_length": None}], 5, 3) == 20
    assert episode_rollouts([], 5, 3) == 20


@pytest.mark.parametrize(
    "options",
    [
        {"num_samples": 1, "burn_in_rollouts": 0},
        {"num_samples": 2, "burn_in_rollouts": -1},
        {"num_samples": 2, "burn_in_rollouts": 0, "horizons": 0},
        {"num_samples": 2, "burn_in_rollouts": 0, "chunk_size": 0},
    ],
)
def test_numbers_out_of_range(subject, options):
    with pytest.raises(ValueError, match="at least"):
        measure_agent(*subject, key=jax.random.key(0), **options)


@pytest.mark.slow
def test_a_sample_that_is_not_finite_is_named(subject):
    agent, state = subject
    learned = state.learned._replace(entropy_cost=jnp.array(jnp.inf))
    with pytest.raises(NonFiniteError, match=r"discount is not finite.*\b3 updates"):
        measure_agent(agent, state._replace(learned=learned), key=jax.random.key(7), **OPTIONS)
