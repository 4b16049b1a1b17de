"""The actor-critic against losses written out in loops, rlax, and central differences of whole windows of updates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import gradweave as gw
from gradweave.agents import (
    ActorCriticEta,
    OuterObjective,
    actor_critic,
    actor_critic_agent,
    bundled_apply,
    inner_optimizer,
)
from gradweave.agents.actor_critic.experience import evaluate_network, head_returns
from gradweave.envs import VectorEnvironment
from gradweave.rl import Categorical, Gaussian

from ..differences import AimTwice, begun, slopes_times_differences
from ..material import (
    ETA,
    LEARNED,
    Fork,
    evaluate,
    experience,
    looped_policy,
    looped_returns,
    network,
    quick_jit,
    small_agent,
    surrogate,
)

KINDS = [(False, False), (True, False), (False, True), (True, True)]
OUTER = OuterObjective(discount=0.97, lambda_=0.6, value_cost=0.3, entropy_cost=0.02, critic_cost=0.7)


def agent(outer_critic, optimizer="sgd", outer=OUTER, **options):
    learner = actor_critic(bundled_apply, inner_optimizer(optimizer, **options), outer)
    return learner, learner.init(network(jax.random.key(4), outer_critic=outer_critic))


def finite_direction(params, seed=0):
    flat, unravel = ravel_pytree(params)
    return unravel(jax.random.normal(jax.random.key(seed), flat.shape) / np.sqrt(flat.size))


def dot(one, other):
    return sum(float(jnp.vdot(a, b)) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def looped_inner_loss(params, targets, batch, eta):
    """The inner loss at constant targets: (returns, advantages, outer returns or None)."""
    returns, advantages, outer_returns = targets
    numbers = evaluate(params, batch, "value")
    log_probs, entropies = looped_policy(numbers.logits, batch.trajectory)
    policy = -np.mean(log_probs * advantages)
    value = np.mean((returns - np.asarray(numbers.values)[:-1]) ** 2)
    total = policy + float(eta.value_cost) * value - float(eta.entropy_cost) * np.mean(entropies)
    parts = {"policy_loss": policy, "value_loss": value, "entropy": np.mean(entropies)}
    if outer_returns is not None:
        parts["outer_critic_loss"] = np.mean(
            (outer_returns - np.asarray(evaluate(params, batch, "outer_value").values)[:-1]) ** 2
        )
        total += OUTER.critic_cost * parts["outer_critic_loss"]
    return total, parts


def looped_targets(params, batch, eta, outer_critic):
    numbers = evaluate(params, batch, "value")
    returns = looped_returns(numbers, batch.trajectory, float(eta.discount), float(eta.lambda_))
    outer_returns = None
    if outer_critic:
        outer_returns = looped_returns(
            evaluate(params, batch, "outer_value"), batch.trajectory, OUTER.discount, OUTER.lambda_
        )
    return returns, returns - np.asarray(numbers.values)[:-1], outer_returns


@pytest.mark.slow
@pytest.mark.parametrize(("outer_critic", "truncates"), KINDS)
def test_the_inner_gradient_is_that_of_a_loss_written_in_loops(outer_critic, truncates):
    learner, state = agent(outer_critic)
    batch = experience(jax.random.key(1), truncates=truncates)
    assert batch.trajectory.terminations.any() and batch.trajectory.truncations.any() == truncates
    assert not batch.trajectory.observations.action_mask[0, 0].any()
    targets = looped_targets(state.params, batch, ETA, outer_critic)
    gradient, aux = quick_jit(learner.inner_gradient)(state, ETA, batch)
    _, parts = looped_inner_loss(state.params, targets, batch, ETA)
    assert set(aux) == set(parts)
    for name, value in parts.items():
        np.testing.assert_allclose(aux[name], value, rtol=1e-9)
    for seed in range(2):
        direction = finite_direction(state.params, seed)
        expected = gw.finite_difference(
            lambda params: jnp.asarray(looped_inner_loss(params, targets, batch, ETA)[0]), state.params, direction
        )
        np.testing.assert_allclose(dot(gradient, direction), expected, rtol=1e-6)
    # One SGD update is one step down this gradient.
    after, _ = quick_jit(learner.update)(state, ETA, batch)
    for new, old, slope in zip(*map(jax.tree.leaves, (after.params, state.params, gradient)), strict=True):
        np.testing.assert_allclose(new, old - 0.1 * slope, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # rlax and its dependencies use what has been deprecated
def test_the_pieces_agree_with_rlax():
    import rlax

    learner, state = agent(False)
    batch = experience(jax.random.key(2), truncates=False)
    trajectory = batch.trajectory._replace(
        observations=batch.trajectory.observations._replace(
            action_mask=jnp.ones_like(batch.trajectory.observations.action_mask)
        )
    )
    batch = batch._replace(trajectory=trajectory)
    _, aux = learner.inner_gradient(state, ETA, batch)
    numbers = evaluate(state.params, batch, "value")
    ones = jnp.ones(trajectory.rewards.shape[0])
    discounts = jnp.where(trajectory.terminations, 0.0, ETA.discount)
    expected = []
    for b in range(trajectory.rewards.shape[1]):
        returns = rlax.lambda_returns(trajectory.rewards[:, b], discounts[:, b], numbers.values[1:, b], ETA.lambda_)
        advantages = returns - numbers.values[:-1, b]
        policy = rlax.policy_gradient_loss(numbers.logits[:, b], trajectory.actions[:, b], advantages, ones)
        expected.append([policy, -rlax.entropy_loss(numbers.logits[:, b], ones), jnp.mean(advantages**2)])
    policy, entropy, value = np.mean(expected, axis=0)
    np.testing.assert_allclose(
        [aux["policy_loss"], aux["entropy"], aux["value_loss"]], [policy, entropy, value], rtol=1e-9
    )


def frozen_outer_loss(params, batch, outer_critic, outer=OUTER):
    """The outer loss as a function of parameters, its returns and advantages taken once and for all at `params`."""
    head = "outer_value" if outer_critic else "value"
    numbers = evaluate(params, batch, head)
    returns = jnp.asarray(looped_returns(numbers, batch.trajectory, outer.discount, outer.lambda_))
    advantages = returns - numbers.values[:-1]
    costs = (outer.value_cost, outer.entropy_cost)
    return lambda moved: surrogate(evaluate(moved, batch, head), batch.trajectory, returns, advantages, costs)


@pytest.mark.slow
@pytest.mark.parametrize(("outer_critic", "truncates"), KINDS)
def test_the_outer_gradient_is_the_semi_gradient_written_by_hand(outer_critic, truncates):
    """The outer loss's stop_gradient removes the derivative of the returns, and of the values within the advantages."""
    learner, state = agent(outer_critic)
    batch = experience(jax.random.key(3), truncates=truncates)
    value, aux = learner.outer_loss(state, batch)
    frozen = frozen_outer_loss(state.params, batch, outer_critic)

    @jax.jit
    def outer_loss(params):
        return learner.outer_loss(state._replace(params=params), batch)[0]

    found = jax.jit(jax.grad(outer_loss))(state.params)
    by_hand, slopes = jax.jit(jax.value_and_grad(frozen))(state.params)
    np.testing.assert_allclose(value, by_hand, rtol=1e-9)
    for one, other in zip(*map(jax.tree.leaves, (found, slopes)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-12)
    # What was removed is not zero: the loss itself has another derivative.
    direction = finite_direction(state.params)
    whole = gw.finite_difference(outer_loss, state.params, direction)
    assert abs(float(whole) / dot(found, direction) - 1) > 1e-2
    assert set(aux) == {"outer_policy_loss", "outer_advantage"}


@pytest.mark.slow
def test_costs_of_zero_leave_their_terms_out():
    learner, state = agent(False, outer=OuterObjective(value_cost=0.0, entropy_cost=0.0))
    batch = experience(jax.random.key(3), truncates=False)
    found = jax.grad(lambda params: learner.outer_loss(state._replace(params=params), batch)[0])(state.params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(found.value_head))
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(found.policy_head))


@pytest.mark.slow
def test_returns_of_a_half_precision_network_are_discounted_in_single_precision():
    """In bfloat16 a discount of 0.999 is 1."""
    batch = experience(jax.random.key(0), truncates=True)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), network(jax.random.key(1), outer_critic=False))
    outputs = evaluate_network(bundled_apply, params, batch)
    double = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), outputs)
    found, expected = (head_returns(values, batch.trajectory, "value", 0.999, 1.0) for values in (outputs, double))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_cut_is_bootstrapped_from_what_the_step_led_to():
    learner, state = agent(False)
    batch = experience(jax.random.key(5), truncates=True)
    gradient = quick_jit(lambda batch: learner.inner_gradient(state, ETA, batch)[0])
    cut = np.argwhere(np.asarray(batch.trajectory.truncations))
    t, b = cut[0]

    def moved(t, b):
        final = batch.trajectory.final_observations
        shifted = final._replace(view=final.view.at[t, b].add(0.5))
        return batch._replace(trajectory=batch.trajectory._replace(final_observations=shifted))

    assert dot(gradient(moved(t, b)), gradient(batch)) != pytest.approx(dot(gradient(batch), gradient(batch)), rel=1e-6)
    t, b = np.argwhere(~np.asarray(batch.trajectory.truncations))[0]
    for one, other in zip(*map(jax.tree.leaves, (gradient(moved(t, b)), gradient(batch))), strict=True):
        np.testing.assert_array_equal(one, other)


# ---------------------------------------------------------------------------------------------- meta-gradients

WINDOWS = [(1, "sgd", False, True), (2, "adam", True, True), (5, "rmsprop", True, False)]


def compared(num_inner_steps):
    """What is compiled for a length, {mode: estimators}: each costs seconds, and the core tests every combination."""
    mix, full = gw.HorizonMix(gw.geometric_weights(num_inner_steps, 0.7)), gw.Unrolled()
    reverse, forward, mixed = gw.ReverseMode(), gw.ForwardMode(), gw.MixedMode()
    if num_inner_steps == 1:
        return {reverse: [full], forward: [full], mixed: [full]}
    recomputing = {gw.ReverseMode(3): [mix]} if num_inner_steps == 5 else {}
    return {reverse: [full, mix], mixed: [full, mix], forward: [mix]} | recomputing


@pytest.mark.slow
@pytest.mark.parametrize(("num_inner_steps", "optimizer", "outer_critic", "truncates"), WINDOWS)
def test_meta_gradients_of_whole_windows(num_inner_steps, optimizer, outer_critic, truncates):
    """All modes agree, and with central differences of `unroll` and an outer loss whose targets are frozen at x_L."""
    learner, state = agent(outer_critic, optimizer, eps=1e-4, max_grad_norm=0.8)
    eta = ETA._replace(learning_rate=jnp.array(0.1 if optimizer == "sgd" else 0.01))
    raw = gw.unconstrain(eta, LEARNED)
    keys = jax.random.split(jax.random.key(6), num_inner_steps + 1)
    batches = jax.vmap(lambda key: experience(key, truncates=truncates))(keys)
    driving, last = jax.tree.map(lambda leaf: leaf[:-1], batches), jax.tree.map(lambda leaf: leaf[-1], batches)
    table = compared(num_inner_steps)

    @quick_jit
    def gradients(raw):
        def one(mode, estimator):
            return gw.meta_gradient(learner, raw, LEARNED, state, batches, None, estimator=estimator, mode=mode)

        return [{type(estimator).__name__: one(mode, estimator) for estimator in row} for mode, row in table.items()]

    found = gradients(raw)
    for name, results in zip(table, found, strict=True):
        for estimator, result in results.items():
            expected = found[0][estimator]
            same = zip(
                *map(jax.tree.leaves, ((result.grad, result.outer_loss), (expected.grad, expected.outer_loss))),
                strict=True,
            )
            for one, other in same:
                np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-13, err_msg=str(name))
    result = found[0]["Unrolled"]
    grad = np.array([float(leaf) for leaf in result.grad])

    end, _ = gw.unroll(learner, eta, state, driving)
    frozen = frozen_outer_loss(end.params, last, outer_critic)

    @quick_jit
    def surrogate_after(raw):
        return frozen(gw.unroll(learner, gw.constrain(raw, LEARNED), state, driving)[0].params)

    np.testing.assert_allclose(surrogate_after(raw), result.outer_loss, rtol=1e-9)
    zero = jax.tree.map(jnp.zeros_like, raw)
    directions = [zero._replace(**{name: jnp.ones(())}) for name in ActorCriticEta._fields]
    expected = np.array([float(gw.finite_difference(surrogate_after, raw, direction)) for direction in directions])
    np.testing.assert_allclose(grad, expected, rtol=1e-5, atol=1e-9 * np.abs(expected).max())
    by_name = dict(zip(ActorCriticEta._fields, grad, strict=True))
    assert all(value != 0 for value in by_name.values())


def collecting(environment, head, length, mode):
    """A self-tuning actor-critic that collects its own rollouts."""
    # With a small eps, Adam's step hardly depends on the weight of the value loss.
    optimizer = inner_optimizer("adam", eps=0.01)
    return small_agent(
        LEARNED,
        optax.adam(0.02),
        agent=actor_critic_agent(bundled_apply, optimizer, OUTER, head=head),
        environment=VectorEnvironment(environment, 4),
        estimator=gw.HorizonMix(gw.uniform_weights(length)),
        mode=mode,
        num_inner_steps=length,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("length", "outer_critic", "continuous"), [(1, False, False), (2, True, False), (5, False, False), (2, True, True)]
)
def test_the_meta_gradient_is_that_of_differences(length, outer_critic, continuous):
    """In every mode, on rollouts of a probe: with masks, terminations and truncations, and with continuous actions."""
    environment, head = (AimTwice(), Gaussian(1)) if continuous else (Fork(), Categorical(3))
    modes = (gw.MixedMode(), gw.ReverseMode("step"), gw.ForwardMode())
    agents = [collecting(environment, head, length, mode) for mode in modes]
    network_options = {"outer_critic": outer_critic, "outer_torso": "own", "num_free_outputs": int(continuous)}
    state = begun(agents[0], environment, **network_options)
    window = quick_jit(lambda state: agents[0].collect_window(state, key=jax.random.key(3)))(state)
    trajectory = window.batches.trajectory
    # Before the last step of a rollout, so that the returns of earlier steps depend on the flags.
    assert trajectory.terminations[:, :-1].any() and trajectory.truncations[:, :-1].any()
    assert continuous or not trajectory.observations.action_mask.all()
    expected = slopes_times_differences(agents[0], state, window, length)
    assert (np.abs(expected) > 1e-7).all()
    for agent in agents:
        grad = quick_jit(lambda *args, agent=agent: agent.window_gradient(*args).grad)(state, window)
        np.testing.assert_allclose(np.array(jax.tree.leaves(grad)), expected, rtol=1e-5, atol=1e-8)
