"""Divergence from the previous policy, advantages standardised by running statistics, and stopped targets."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradweave as gw
from gradweave.agents import (
    AdvantageMoments,
    OuterObjective,
    SelfTuning,
    actor_critic,
    actor_critic_agent,
    bundled_apply,
    inner_optimizer,
)
from gradweave.envs import VectorEnvironment
from gradweave.rl import kl

from ..material import (
    ETA,
    LEARNED,
    NUM_ENVS,
    NUM_STEPS,
    Ladder,
    evaluate,
    experience,
    looped_policy,
    looped_returns,
    network,
)

MODES = {"reverse": gw.ReverseMode(), "forward": gw.ForwardMode(), "mixed": gw.MixedMode()}
RAW = gw.unconstrain(ETA, LEARNED)
BASIS = [RAW._replace(**dict.fromkeys(RAW._fields, jnp.zeros(())) | {name: jnp.ones(())}) for name in RAW._fields]


def learner(outer=None, **options):
    problem = actor_critic(bundled_apply, inner_optimizer("sgd"), outer, **options)
    return problem, problem.init(network(jax.random.key(1), outer_critic=False))


def agent(objective, *, num_inner_steps=2, mode=None, spec=LEARNED):
    return SelfTuning(
        agent=actor_critic_agent(bundled_apply, inner_optimizer("sgd"), objective),
        environment=VectorEnvironment(Ladder(), NUM_ENVS),
        initial_raw=RAW,
        spec=spec,
        estimator=gw.HorizonMix(gw.uniform_weights(num_inner_steps)),
        mode=gw.MixedMode() if mode is None else mode,
        meta_optimizer=optax.sgd(0.1),
        num_inner_steps=num_inner_steps,
        num_steps=NUM_STEPS,
    )


def started(one):
    return one.init(network(jax.random.key(1), outer_critic=False), key=jax.random.key(2))


# ---------------------------------------------------------------------------------------------------- divergence


def looped_divergence(anchor, logits, trajectory):
    """Mean KL(anchor || policy), step by step over the allowed actions."""
    masks, total = np.asarray(trajectory.observations.action_mask[:-1]), 0.0
    for t in range(NUM_STEPS):
        for b in range(NUM_ENVS):
            p, q = (np.exp(np.asarray(one[t, b]))[masks[t, b]] for one in (anchor, logits))
            p, q = p / p.sum(), q / q.sum()  # of no actions where nothing is allowed, which adds nothing
            total += (p * np.log(p / q)).sum()
    return total / NUM_STEPS / NUM_ENVS


def test_the_divergence_is_added_to_the_outer_loss():
    batch = experience(jax.random.key(3), truncates=True)
    batch = batch._replace(anchor_logits=jax.random.normal(jax.random.key(4), (NUM_STEPS, NUM_ENVS, 4)))
    problem, state = learner(OuterObjective(kl_cost=0.7))
    value, aux = problem.outer_loss(state, batch)
    expected = looped_divergence(batch.anchor_logits, evaluate(state.params, batch, "value").logits, batch.trajectory)
    np.testing.assert_allclose(aux["outer_kl"], expected, rtol=1e-9)
    np.testing.assert_allclose(value - learner()[0].outer_loss(state, batch)[0], 0.7 * expected, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("num_inner_steps", [1, 3])
def test_the_divergence_has_an_honest_derivative_in_every_mode(num_inner_steps):
    """What the term adds to the meta-gradient is the central difference of the divergence itself, nothing frozen."""
    objective = OuterObjective(kl_cost=1.0)
    one, plain = (
        agent(objective, num_inner_steps=num_inner_steps),
        agent(OuterObjective(), num_inner_steps=num_inner_steps),
    )
    state = started(one)
    window = jax.jit(lambda state: one.collect_window(state, key=jax.random.key(5)))(state)
    assert window.batch.anchor_logits is None  # the state of an agent does not grow
    assert window.batches.anchor_logits.shape == (num_inner_steps + 1, NUM_STEPS, NUM_ENVS, 4)
    first = jax.tree.map(lambda leaf: leaf[0], window.batches)
    np.testing.assert_allclose(first.anchor_logits, evaluate(state.learner.params, first, "value").logits, rtol=1e-9)

    @jax.jit
    def updated(learner, raw, batch):
        return one.problem.update(learner, gw.constrain(raw, LEARNED), batch)[0]

    @jax.jit
    def departure(learner, batch):
        logits = evaluate(learner.params, batch, "value").logits
        return kl(batch.anchor_logits, logits, batch.trajectory.observations.action_mask[:-1]).mean()

    def divergence(raw):
        learner, total = state.learner, jnp.zeros(())
        for k in range(num_inner_steps):
            now, then = (jax.tree.map(lambda leaf: leaf[j], window.batches) for j in (k, k + 1))  # noqa: B023
            learner = updated(learner, raw, now)
            total = total + departure(learner, then)
        return total / num_inner_steps

    variants = {name: (agent(objective, num_inner_steps=num_inner_steps, mode=mode)) for name, mode in MODES.items()}
    found, base = jax.jit(
        lambda state: (
            {name: variant.window_gradient(state, window) for name, variant in variants.items()},
            plain.window_gradient(state, window),
        )
    )(state)
    expected = np.array([float(gw.finite_difference(divergence, RAW, direction)) for direction in BASIS])
    assert np.abs(expected).max() > 1e-4
    for result in found.values():
        added = np.array(result.grad) - np.array(base.grad)
        np.testing.assert_allclose(added, expected, rtol=1e-5, atol=1e-8 * np.abs(expected).max())
    assert set(found["mixed"].aux.outer) == {"outer_policy_loss", "outer_advantage", "outer_kl"}


# ------------------------------------------------------------------------------------------ standardised advantages


def test_standardised_advantages_are_shifted_and_scaled_by_constants():
    batch = experience(jax.random.key(3), truncates=True)
    batch = batch._replace(advantage_moments=AdvantageMoments(jnp.array(0.4), jnp.array(2.5)))
    outer = OuterObjective(standardize_advantages=True, value_cost=0.0)
    problem, state = learner(outer)
    value, aux = problem.outer_loss(state, batch)
    numbers = evaluate(state.params, batch, "value")
    advantages = looped_returns(numbers, batch.trajectory, outer.discount, outer.lambda_) - numbers.values[:-1]
    log_probs, _ = looped_policy(numbers.logits, batch.trajectory)
    np.testing.assert_allclose(value, -np.mean(log_probs * (advantages - 0.4) / 2.5), rtol=1e-9)
    np.testing.assert_allclose(aux["outer_advantage"], advantages.mean(), rtol=1e-9)
    np.testing.assert_allclose(aux["outer_squared_advantage"], (advantages**2).mean(), rtol=1e-9)


@pytest.mark.slow
def test_moments_run_over_earlier_windows_only():
    one = agent(OuterObjective(standardize_advantages=True))
    state, seen = started(one), []
    step = jax.jit(lambda state: one.step(state))
    collect = jax.jit(lambda state: one.collect_window(state, key=jax.random.key(9)).batches.advantage_moments)
    for _ in range(3):
        used = collect(state)
        weights = 0.99 ** np.arange(len(seen))[::-1]
        mean, square = np.average(seen, axis=0, weights=weights) if seen else (0.0, 1.0)
        np.testing.assert_allclose(used.mean, np.full(3, mean), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(used.std, np.full(3, np.sqrt(square - mean**2)), rtol=1e-9)
        state, metrics = step(state)
        seen.append((float(metrics.outer["outer_advantage"]), float(metrics.outer["outer_squared_advantage"])))
    assert state.usual_reward is None


def test_plain_learning_keeps_no_statistics():
    fixed = jax.tree.map(lambda _: gw.Fixed(), LEARNED, is_leaf=lambda node: isinstance(node, gw.AbstractBijector))
    one = agent(OuterObjective(standardize_advantages=True, kl_cost=1.0), spec=fixed)
    assert not one.learns
    assert jax.eval_shape(lambda: started(one)).statistics is None


@pytest.mark.parametrize(
    ("option", "message"), [("kl_cost", "anchor_logits"), ("standardize_advantages", "advantage_moments")]
)
def test_an_objective_that_the_agent_was_not_told_of_is_refused(option, message):
    one = agent(OuterObjective(**{option: True}))
    one = dataclasses.replace(one, agent=dataclasses.replace(one.agent, annotation=None))
    with pytest.raises(ValueError, match=f"{message}, but the batch has none"):
        jax.eval_shape(
            lambda key: one.step(one.init(network(jax.random.key(1), outer_critic=False), key=key)), jax.random.key(0)
        )


# ----------------------------------------------------------------------------------------------- stopped targets


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 2, 4])
def test_stopped_targets_agree_for_one_update_and_depart_from_two_on(length):
    problems = {
        name: actor_critic(bundled_apply, inner_optimizer("sgd"), targets=name)
        for name in ("differentiated", "stopped")
    }
    state = problems["stopped"].init(network(jax.random.key(1), outer_critic=True))
    batches = jax.vmap(lambda key: experience(key, truncates=True))(jax.random.split(jax.random.key(6), length + 1))
    modes = MODES if length == 2 else {"mixed": gw.MixedMode()}

    @jax.jit
    def gradients(raw, state, batches):
        return {
            (name, mode_name): gw.meta_gradient(problem, raw, LEARNED, state, batches, None, mode=mode)
            for name, problem in problems.items()
            for mode_name, mode in modes.items()
        }

    found = gradients(RAW, state, batches)
    grads = {name: np.array(result.grad) for name, result in found.items()}
    for name in problems:
        for mode in modes:
            np.testing.assert_allclose(grads[name, mode], grads[name, "mixed"], rtol=1e-9, atol=1e-13)
    # The learner itself is the same, to the bit.
    ends = [jax.tree.leaves(found[name, "mixed"].state) for name in problems]
    assert all((one == other).all() for one, other in zip(*ends, strict=True))
    if length == 1:
        np.testing.assert_allclose(grads["stopped", "mixed"], grads["differentiated", "mixed"], rtol=1e-12)
    else:
        departure = np.abs(grads["stopped", "mixed"] - grads["differentiated", "mixed"]).max()
        assert departure > 1e-3 * np.abs(grads["differentiated", "mixed"]).max()


def test_an_unknown_writing_of_targets_is_refused():
    with pytest.raises(ValueError, match=r"targets='detached'\): accepted are \"differentiated\""):
        actor_critic(bundled_apply, inner_optimizer("sgd"), targets="detached")
