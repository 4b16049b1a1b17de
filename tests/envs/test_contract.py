"""What every environment owes: steps that a scan can carry, flags that never contradict, promises that hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.envs import AbstractEnvironment, VectorEnvironment, make_environment

NAMES = (
    ("snake", {"num_rows": 3, "num_cols": 4, "time_limit": 9}),
    ("discounting-chain", {}),
    ("constant-reward", {}),
    ("observed-reward", {}),
    ("chosen-reward", {}),
    ("matched-reward", {}),
    ("masked-action", {}),
    ("delayed-reward", {}),
    ("truncated-reward", {"num_steps": 4}),
    ("terminated-reward", {"num_steps": 4}),
    ("jumanji:Game2048-v1", {"board_size": 3}),
    ("gymnax:CartPole-v1", {"max_steps_in_episode": 12}),
)


@pytest.fixture(params=NAMES, ids=[name for name, _ in NAMES])
def environment(request: pytest.FixtureRequest) -> AbstractEnvironment:
    name, options = request.param
    return make_environment(name, **options)


def test_a_step_gives_back_the_shapes_and_types_that_a_reset_began_with(environment: AbstractEnvironment) -> None:
    state, observation = jax.eval_shape(lambda key: environment.reset(key=key), jax.random.key(0))
    next_state, step = jax.eval_shape(
        lambda state, key: environment.step(state, jnp.zeros((), jnp.int32), key=key), state, jax.random.key(0)
    )
    for before, after in ((state, next_state), (observation, step.observation)):
        assert jax.tree.structure(before) == jax.tree.structure(after)
        for first, second in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
            assert (first.shape, first.dtype, first.weak_type) == (second.shape, second.dtype, second.weak_type)
    assert observation.view.dtype == observation.scalars.dtype == step.reward.dtype == jnp.float64
    assert observation.view.ndim in (1, 3)
    assert observation.scalars.ndim == 1
    assert observation.action_mask.shape == (environment.num_actions,)
    assert observation.action_mask.dtype == step.terminated.dtype == step.truncated.dtype == bool
    assert step.reward.shape == step.terminated.shape == step.truncated.shape == ()


def test_episodes_end_in_one_way_only_and_promises_hold(environment: AbstractEnvironment) -> None:
    environments = VectorEnvironment(environment, 4)

    def body(carry, key):
        state, observation = carry
        action_key, step_key = jax.random.split(key)
        logits = jnp.where(observation.action_mask, 0.0, -1e9)
        actions = jax.random.categorical(action_key, logits).astype(jnp.int32)
        state, step = environments.step(state, actions, key=step_key)
        return (state, step.observation), (step.reward, step.terminated, step.truncated)

    @jax.jit
    def play(key):
        reset_key, key = jax.random.split(key)
        return jax.lax.scan(body, environments.reset(key=reset_key), jax.random.split(key, 130))[1]

    reward, terminated, truncated = play(jax.random.key(0))
    assert np.isfinite(reward).all()
    assert np.any(terminated | truncated), "no episode ended: this test would show nothing"
    assert not np.any(terminated & truncated)
    if not environment.can_truncate:
        assert not np.any(truncated)
