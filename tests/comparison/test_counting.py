"""Environments that count: the same environments, and a number that is right."""

import jax
import jax.numpy as jnp
import pytest

from gradweave.comparison.counting import CountingEnvironment
from gradweave.envs import VectorEnvironment
from gradweave.envs.registry import make_environment


@pytest.mark.slow
def test_they_are_the_same_environments_and_every_step_is_counted():
    plain = VectorEnvironment(make_environment("truncated-reward", num_steps=2), 3)  # resets every other step
    counting = CountingEnvironment.of(plain)
    state, observation = plain.reset(key=jax.random.key(0))
    counted, same = counting.reset(key=jax.random.key(0))
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), observation, same))
    for number in range(1, 6):
        actions = jnp.zeros(3, jnp.int32)
        state, step = plain.step(state, actions, key=jax.random.key(number))
        counted, same = counting.step(counted, actions, key=jax.random.key(number))
        assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), step, same))
        assert int(counted.num_steps) == 3 * number


def test_they_refuse_what_environments_refuse():
    with pytest.raises(ValueError, match="num_envs"):
        CountingEnvironment(make_environment("chosen-reward"), 0)
