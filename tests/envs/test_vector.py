"""The batch against a Python loop over single environments; resets that are drawn anew and only when needed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.envs import AbstractEnvironment, MaskedAction, Step, TruncatedReward, VectorEnvironment, snake

CALLS: list[int] = []


class CountingEnvironment(AbstractEnvironment):
    """Two steps long; calls back whenever a reset is really computed."""

    inner: TruncatedReward
    num_actions: int = 1
    can_truncate: bool = True

    def reset(self, *, key):
        jax.debug.callback(lambda: CALLS.append(1))
        return self.inner.reset(key=key)

    def step(self, state, action, *, key):
        return self.inner.step(state, action, key=key)


def same(first: object, second: object) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_a_loop_that_resets_by_hand(seed: int) -> None:
    num_envs, environment = 3, snake(3, 3, time_limit=5)
    environments = VectorEnvironment(environment, num_envs)
    reset, step = jax.jit(lambda key: environment.reset(key=key)), jax.jit(environment.step)
    batch_step = jax.jit(environments.step)
    reset_key, *keys = jax.random.split(jax.random.key(seed), 21)

    singles = [reset(key) for key in jax.random.split(jax.random.clone(reset_key), num_envs)]
    state, observation = jax.jit(environments.reset)(key=reset_key)
    random = np.random.default_rng(seed)
    num_ended = 0
    for key in keys:
        for index, single in enumerate(singles):
            same(single, jax.tree.map(lambda leaf, i=index: leaf[i], jax.device_get((state, observation))))
        actions = random.integers(0, 4, num_envs).astype(np.int32)
        fresh_keys = jax.random.split(jax.random.split(jax.random.clone(key))[1], num_envs)
        state, batch = batch_step(state, jnp.asarray(actions), key=key)
        for index in range(num_envs):
            single_state, single = step(singles[index][0], jnp.asarray(actions[index]), key=jax.random.key(0))
            ended = bool(single.terminated | single.truncated)
            num_ended += ended
            mine = jax.tree.map(lambda leaf, i=index: leaf[i], jax.device_get(batch))
            same(single, Step(mine.final_observation, mine.reward, mine.terminated, mine.truncated))
            singles[index] = reset(fresh_keys[index]) if ended else (single_state, single.observation)
        observation = batch.observation
    assert num_ended > 5


@pytest.mark.slow
def test_each_reset_of_each_environment_is_drawn_anew() -> None:
    environments = VectorEnvironment(MaskedAction(num_actions=1000), 8)
    state, _ = environments.reset(key=jax.random.key(0))
    contexts = [state.context]
    step = jax.jit(environments.step)
    for key in jax.random.split(jax.random.key(1), 4):
        state, _ = step(state, state.context, key=key)
        contexts.append(state.context)
    drawn = np.stack(contexts)
    # 40 numbers out of 1000: fewer than 30 different ones would have a probability below 1e-9.
    assert len(np.unique(drawn)) >= 30
    assert drawn.min() >= 0 and drawn.max() < 1000


def test_resets_are_computed_only_when_something_ended() -> None:
    environments = VectorEnvironment(CountingEnvironment(TruncatedReward(num_steps=3)), 2)
    state, _ = environments.reset(key=jax.random.key(0))
    step = jax.jit(environments.step)
    counts = []
    for key in jax.random.split(jax.random.key(1), 4):
        jax.effects_barrier()
        CALLS.clear()
        state, result = step(state, jnp.zeros(2, jnp.int32), key=key)
        jax.block_until_ready(result)
        jax.effects_barrier()
        counts.append(len(CALLS))
    assert counts[0] == counts[1] == counts[3] == 0
    assert counts[2] > 0


def test_truncation_keeps_the_final_observation_apart_from_the_next_first_one() -> None:
    environments = VectorEnvironment(TruncatedReward(num_steps=2), 2)
    state, _ = environments.reset(key=jax.random.key(0))
    for key, final, following in zip(jax.random.split(jax.random.key(1), 2), (0.5, 1.0), (0.5, 0.0), strict=True):
        state, step = environments.step(state, jnp.zeros(2, jnp.int32), key=key)
        np.testing.assert_array_equal(step.final_observation.view, [[final]] * 2)
        np.testing.assert_array_equal(step.observation.view, [[following]] * 2)
    np.testing.assert_array_equal(step.truncated, [True, True])


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="num_envs = 0"):
        VectorEnvironment(MaskedAction(), 0)
