"""A critic whose values are constants, left out of the meta-gradient; batches computed in parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradweave as gw
from gradweave.agents import OuterObjective, actor_critic, bundled_apply, inner_optimizer

from ..material import ETA, LEARNED, experience, network, quick_jit

OUTER = OuterObjective(discount=0.97, lambda_=0.6, value_cost=0.0, entropy_cost=0.02, critic_cost=0.7)
MODES = {"reverse": gw.ReverseMode(), "forward": gw.ForwardMode(), "mixed": gw.MixedMode()}
NUM_ENVS, NUM_UPDATES = 4, 3


def learner(optimizer="adam", outer=OUTER, **options):
    return actor_critic(bundled_apply, inner_optimizer(optimizer), outer, **options)


def window(truncates=False):
    """Batches of a window and the one that evaluates its end."""
    keys = jax.random.split(jax.random.key(2), NUM_UPDATES + 1)
    parts = [experience(key, truncates=truncates, num_envs=NUM_ENVS) for key in keys]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)


def gradient(problem, mode, truncates=False):
    raw = gw.unconstrain(ETA, LEARNED)
    state = problem.init(network(jax.random.key(4), outer_critic=True))
    mix = gw.HorizonMix(gw.geometric_weights(NUM_UPDATES, 0.7))
    take = quick_jit(
        lambda raw, state, batches: gw.meta_gradient(
            problem, raw, LEARNED, state, batches, None, estimator=mix, mode=mode
        )
    )
    return take(raw, state, window(truncates))


def assert_same(one, other, rtol=1e-9):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-13)


@functools.cache
def attached(truncates=False, value_cost=0.0):
    """The independent answer: the outer critic is differentiated through like all parameters, the batch is whole."""
    return gradient(learner(outer=OUTER._replace(value_cost=value_cost)), gw.ReverseMode(), truncates)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_leaving_the_critic_out_changes_nothing_where_it_only_supplies_numbers(mode):
    apart = gradient(learner(critic_apart=True), mode)
    assert_same(apart.grad, attached().grad)
    assert_same(apart.state, attached().state)
    assert all(leaf != 0 for leaf in jax.tree.leaves(apart.grad))


@pytest.mark.slow
def test_the_critic_apart_is_trained():
    problem = learner(critic_apart=True)
    state = problem.init(network(jax.random.key(4), outer_critic=True))
    batch = experience(jax.random.key(0), truncates=False)
    apart, attached = quick_jit(lambda state: [one.update(state, ETA, batch) for one in (problem, learner())])(state)
    assert_same(apart, attached)
    after, _ = apart
    before, moved = jax.tree.leaves(state.params.outer_head), jax.tree.leaves(after.params.outer_head)
    assert all(bool((one != other).any()) for one, other in zip(before, moved, strict=True))


def test_an_outer_loss_that_differentiates_it_is_refused():
    with pytest.raises(ValueError, match=r"value_cost=0\.3"):
        learner(outer=OUTER._replace(value_cost=0.3), critic_apart=True)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "truncates"), [*((mode, True) for mode in MODES), ("mixed", False)])
def test_parts_of_a_batch_average_to_the_whole(mode, truncates):
    """Every mode with final observations, which are split as well, and one without."""
    parts = gradient(learner(outer=OUTER._replace(value_cost=0.3), num_microbatches=2), MODES[mode], truncates)
    whole = attached(truncates, value_cost=0.3)
    for field in ("grad", "state", "outer_loss", "finite"):
        assert_same(getattr(parts, field), getattr(whole, field))
    assert_same(parts.aux.outer_losses, whole.aux.outer_losses)


def test_parts_must_be_equal():
    problem = learner(num_microbatches=3)
    state = problem.init(network(jax.random.key(4), outer_critic=True))
    with pytest.raises(ValueError, match=r"\b4 environments\b.*\b3\b"):
        problem.update(state, ETA, experience(jax.random.key(0), truncates=False, num_envs=4))
