"""Bootstrapped meta-gradients of an actor-critic: the distance by loops, its direction, and the table's comparisons."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import gradweave as gw
from gradweave.agents import actor_critic, bundled_apply, inner_optimizer, policy_distance
from gradweave.core.modes.mixed import record

from ..material import ETA, LEARNED, evaluate, experience, network, quick_jit

NUM_INNER_STEPS, TARGET_STEPS, VALUE_COST = 3, 2, 0.7


def two_states():
    learner = actor_critic(bundled_apply, inner_optimizer("sgd"))
    return [learner.init(network(jax.random.key(seed), outer_critic=True)) for seed in (4, 5)]


def looped_distance(state, target, batch, value_cost):
    """KL(target ‖ policy) and the squared difference of values, observation by observation."""
    said, wanted = (evaluate(each.params, batch, "value") for each in (state, target))
    masks = np.asarray(batch.trajectory.observations.action_mask)[:-1]
    total = 0.0
    for place in np.ndindex(masks.shape[:2]):
        p, q = (np.exp(np.asarray(numbers.logits)[place][masks[place]]) for numbers in (wanted, said))
        p, q = p / p.sum(), q / q.sum()  # of no actions where nothing is allowed, which adds nothing
        values = np.asarray(said.values)[place] - np.asarray(wanted.values)[place]
        total += (p * np.log(p / q)).sum() + value_cost * values**2
    return total / masks[..., 0].size


@pytest.mark.parametrize("value_cost", [0.0, VALUE_COST])
def test_the_distance_is_the_divergence_from_the_targets_side(value_cost):
    state, target = two_states()
    batch = experience(jax.random.key(0), truncates=True)
    distance = quick_jit(policy_distance(bundled_apply, value_cost=value_cost))
    expected = looped_distance(state, target, batch, value_cost)
    np.testing.assert_allclose(distance(state, target, batch), expected, rtol=1e-9)
    assert abs(expected - looped_distance(target, state, batch, value_cost)) > 1e-6  # the other side is another number
    np.testing.assert_allclose(distance(state, state, batch), 0, atol=1e-12)


def test_a_negative_cost_is_refused():
    with pytest.raises(ValueError, match="value_cost"):
        policy_distance(bundled_apply, value_cost=-1.0)


@pytest.mark.slow
def test_all_modes_agree_with_each_other_and_with_differences():
    learner = actor_critic(bundled_apply, inner_optimizer("rmsprop"))
    start = learner.init(network(jax.random.key(4), outer_critic=True))
    keys = jax.random.split(jax.random.key(1), NUM_INNER_STEPS + 1)
    batches = [experience(key, truncates=False) for key in keys]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)
    raw = gw.unconstrain(ETA, LEARNED)
    distance = policy_distance(bundled_apply, value_cost=VALUE_COST)
    estimator = gw.Bootstrapped(TARGET_STEPS, distance)

    @quick_jit
    def gradients(raw):
        inner = jax.tree.map(lambda leaf: leaf[:-1], stacked)
        recording, _ = record(learner, gw.constrain(raw, LEARNED), start, inner)
        ways = [(gw.ReverseMode(), None), (gw.ForwardMode(), None), (gw.MixedMode(), None), (gw.MixedMode(), recording)]
        args = (learner, raw, LEARNED, start, stacked, None)
        return [gw.meta_gradient(*args, estimator=estimator, mode=mode, recording=given) for mode, given in ways]

    @quick_jit
    def advance(raw, state, batch):
        return learner.update(state, gw.constrain(raw, LEARNED), batch)[0]

    def run(raw, num_updates):
        state = start
        for batch in batches[:num_updates]:
            state = advance(raw, state, batch)
        return state

    further = run(raw, NUM_INNER_STEPS)
    slope = quick_jit(jax.grad(lambda state, batch: learner.outer_loss(state, batch)[0], allow_int=True))(
        further, batches[-1]
    )
    target = learner.apply_gradient(slope.params, further, gw.constrain(raw, LEARNED))
    measure = quick_jit(distance)

    def reached(raw):
        return measure(run(raw, NUM_INNER_STEPS - TARGET_STEPS + 1), target, batches[-1])

    flat, unravel = ravel_pytree(raw)
    direction = unravel(jax.random.normal(jax.random.key(2), flat.shape))
    truth = float(gw.finite_difference(reached, raw, direction))
    assert abs(truth) > 1e-7
    for result in gradients(raw):
        found = float(jnp.vdot(ravel_pytree(result.grad)[0], ravel_pytree(direction)[0]))
        np.testing.assert_allclose(found, truth, rtol=1e-5)
        np.testing.assert_allclose(result.outer_loss, reached(raw), rtol=1e-9)
        assert set(result.aux.outer) >= {"outer_policy_loss"}
