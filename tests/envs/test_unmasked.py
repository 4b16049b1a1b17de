"""A hidden mask changes what is seen and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.envs import Unmasked, VectorEnvironment, make_environment, snake


@pytest.mark.slow
def test_only_the_mask_differs():
    masked = snake(4, 4, 30)
    unmasked = make_environment("snake", num_rows=4, num_cols=4, time_limit=30, action_mask=False)
    assert isinstance(unmasked, Unmasked) and unmasked.num_actions == 4 and unmasked.can_truncate == masked.can_truncate
    one, two = masked.reset(key=jax.random.key(3)), unmasked.reset(key=jax.random.key(3))
    for action in (1, 2, 1, 0, 3):
        for (_, seen), (_, shown) in [(one, two)]:
            assert shown.action_mask.all() and shown.action_mask.dtype == bool
            np.testing.assert_array_equal(seen.view, shown.view)
            np.testing.assert_array_equal(seen.scalars, shown.scalars)
        (state, step), (other, shown) = (
            env.step(pair[0], jnp.asarray(action, jnp.int32), key=jax.random.key(0))
            for env, pair in ((masked, one), (unmasked, two))
        )
        assert step.reward == shown.reward and step.terminated == shown.terminated and not shown.truncated
        one, two = (state, step.observation), (other, shown.observation)


@pytest.mark.slow
def test_a_forbidden_action_ends_the_episode_of_snake():
    environment = Unmasked(snake(4, 4, 30))
    state, _ = environment.reset(key=jax.random.key(1))
    _, observation = snake(4, 4, 30).reset(key=jax.random.key(1))
    allowed = {int(action): bool(mask) for action, mask in enumerate(observation.action_mask)}
    assert not all(allowed.values()), "this board begins at an edge"
    for action, is_allowed in allowed.items():
        _, step = environment.step(state, jnp.asarray(action, jnp.int32), key=jax.random.key(0))
        assert bool(step.terminated) is not is_allowed


def fruits_of_random_play(environment, num_steps=400):
    """Per episode, under uniform choice among the actions that the mask allows."""
    environments = VectorEnvironment(environment, 64)

    def body(carry, key):
        state, observation = carry
        action_key, step_key = jax.random.split(key)
        actions = jax.random.categorical(action_key, jnp.where(observation.action_mask, 0.0, -1e9))
        state, step = environments.step(state, actions.astype(jnp.int32), key=step_key)
        return (state, step.observation), (step.reward, step.terminated)

    start = environments.reset(key=jax.random.key(0))
    rewards, ends = jax.jit(lambda: jax.lax.scan(body, start, jax.random.split(jax.random.key(1), num_steps))[1])()
    return float(rewards.sum()) / max(1, int(ends.sum()))


@pytest.mark.slow
def test_random_play_needs_the_mask_to_survive():
    fruits = [
        fruits_of_random_play(make_environment("snake", num_rows=6, num_cols=6, time_limit=200, **options))
        for options in ({"action_mask": False}, {})
    ]
    assert fruits[0] < 0.3 < 3 < fruits[1]


def test_the_option_is_a_switch():
    with pytest.raises(ValueError, match="True or False"):
        make_environment("snake", action_mask=1)
