"""PPO against a slow loop, finite differences and known values."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradweave as gw
from gradweave.agents import SelfTuning
from gradweave.agents.ppo import PPOEta, PPOOptions, ppo_agent
from gradweave.envs import MaskedAction, MatchedReward, TruncatedReward, VectorEnvironment
from gradweave.rl import Gaussian, normalized
from gradweave.training.memory import Sizes, num_bytes

from ..differences import AimTwice, begun, slopes_times_differences
from ..material import Fork, quick_jit
from ..test_agent import Recall

NUM_ENVS, NUM_STEPS = 4, 3
ETA = PPOEta(0.8, 0.7, 0.02, 0.4, 0.03, 0.05)
SPEC = PPOEta(gw.Interval(), gw.Interval(), *[gw.Positive()] * 4)
FIXED = PPOEta(*[gw.Fixed()] * 6)
OPTIONS = PPOOptions(num_epochs=2, num_minibatches=2)


def self_tuning(environment: Any, agent: Any, length: int, spec: Any = SPEC, mode: Any = None) -> SelfTuning:
    eta = jax.tree.map(jnp.asarray, ETA)
    return SelfTuning(
        agent=agent,
        environment=VectorEnvironment(environment, NUM_ENVS),
        initial_raw=gw.unconstrain(eta, spec),
        spec=spec,
        estimator=gw.HorizonMix(gw.uniform_weights(length)),
        mode=gw.ReverseMode("step") if mode is None else mode,
        meta_optimizer=optax.adam(0.02),
        num_inner_steps=length,
        num_steps=NUM_STEPS,
    )


@quick_jit
def outputs_of(params: Any, seen: Any) -> Any:
    return params(seen)


def step_of(tree: Any, t: int, e: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[t, e], tree)


def returns_of(trajectory: Any, values: np.ndarray, eta: PPOEta, params: Any) -> np.ndarray:
    """λ-returns by a loop over environments and steps."""
    steps, envs = np.shape(trajectory.rewards)
    returns = np.zeros((steps, envs))
    for e in range(envs):
        for t in reversed(range(steps)):
            after = values[t + 1, e]
            if bool(trajectory.truncations[t, e]):
                after = float(outputs_of(params, step_of(trajectory.final_observations, t, e)).value)
            later = returns[t + 1, e] if t + 1 < steps and not bool(trajectory.truncations[t, e]) else after
            bootstrap = (1 - eta.lambda_) * after + eta.lambda_ * later
            ends = bool(trajectory.terminations[t, e])
            returns[t, e] = float(trajectory.rewards[t, e]) + (0.0 if ends else eta.discount * bootstrap)
    return returns


def slow_loss(params: Any, eta: PPOEta, options: PPOOptions, taken: list[dict[str, Any]]) -> tuple[Any, Any]:
    """The loss of a minibatch by a loop over its steps, with (policy loss, divergence)."""
    policy = squared = entropy = divergence = 0.0
    for one in taken:
        outputs, mask = params(one["seen"]), one["seen"].action_mask
        chances = [jnp.where(mask[action], jnp.exp(outputs.logits[action]), 0.0) for action in range(mask.size)]
        log_norm = jnp.log(sum(chances))
        ratio = jnp.exp(outputs.logits[one["action"]] - log_norm - one["record"])
        near = jnp.minimum(jnp.maximum(ratio, 1 - eta.clip_range), 1 + eta.clip_range)
        policy -= jnp.minimum(ratio * one["advantage"], near * one["advantage"])
        error = (one["return"] - outputs.value) ** 2
        if options.clip_values:
            far = eta.clip_range if eta.value_clip_range is None else eta.value_clip_range
            moved = jnp.minimum(jnp.maximum(outputs.value - one["value"], -far), far)
            error = jnp.maximum(error, (one["return"] - one["value"] - moved) ** 2)
        squared += error
        divergence += ratio - 1 - jnp.log(ratio)
        for action, chance in enumerate(chances):
            entropy -= chance / jnp.exp(log_norm) * (outputs.logits[action] - log_norm)
    total = policy + eta.value_cost * squared - eta.entropy_cost * entropy
    return total / len(taken), (policy / len(taken), divergence / len(taken))


def slow_update(params: Any, eta: PPOEta, batch: Any, options: PPOOptions) -> tuple[list[float], Any, int]:
    """Policy losses and the parameters after plain gradient descent, by Python loops over single steps."""
    trajectory = batch.experience.trajectory
    steps, envs = np.shape(trajectory.rewards)
    seen = [[step_of(trajectory.observations, t, e) for e in range(envs)] for t in range(steps + 1)]
    values = np.array([[float(outputs_of(params, one).value) for one in row] for row in seen])
    returns = returns_of(trajectory, values, eta, params)
    advantages = (returns - values[:steps]).reshape(-1)
    # The loop over a minibatch is compiled: one step after another would take ten times as long.
    slope = quick_jit(jax.value_and_grad(lambda params, taken: slow_loss(params, eta, options, taken), has_aux=True))
    losses, going, num_taken = [], True, 0
    for places in np.asarray(batch.orders).reshape(options.num_epochs * options.num_minibatches, -1):
        part = advantages[places]
        if options.normalize_advantages:
            part = (part - part.mean()) / (part.std() + 1e-8)
        taken = []
        for place, advantage in zip(places, part, strict=True):
            t, e = divmod(int(place), envs)
            row = {"seen": seen[t][e], "action": trajectory.actions[t, e], "record": trajectory.record[t, e]}
            taken.append(row | {"advantage": advantage, "return": returns[t, e], "value": values[t, e]})
        (_, (policy, divergence)), gradient = slope(params, taken)
        losses.append(float(policy))
        going = going and (options.target_kl is None or float(divergence) <= 1.5 * options.target_kl)
        if not going:  # losses are still reported
            continue
        num_taken += 1
        params = jax.tree.map(lambda leaf, slope: leaf - eta.learning_rate * slope, params, gradient)
    return losses, params, num_taken


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "clip_range", "changes"),
    [
        (MaskedAction(3), 0.05, {}),
        (TruncatedReward(2), 0.05, {}),
        (Fork(), 0.005, {"clip_values": True, "target_kl": 2e-5}),
        (Fork(), 0.05, {"clip_values": True, "normalize_advantages": False, "value_clip_range": 0.005}),
    ],
    ids=["masks", "truncations", "clipped values, and a stop", "values clipped by a range of their own"],
)
def test_an_update_is_that_of_a_slow_loop(environment: Any, clip_range: float, changes: dict[str, Any]) -> None:
    changes = dict(changes)
    of_values = changes.pop("value_clip_range", None)
    options, eta = OPTIONS._replace(**changes), ETA._replace(clip_range=clip_range, value_clip_range=of_values)
    agent = self_tuning(environment, ppo_agent(optimizer=optax.identity(), options=options), 1, FIXED)
    state = begun(agent, environment)
    after, aux = quick_jit(agent.problem.update)(state.learner, jax.tree.map(jnp.asarray, eta), state.batch)
    losses, params, taken = slow_update(state.learner.params, eta, state.batch, options)
    assert 0 < taken < 4 if "target_kl" in changes else taken == 4
    assert float(aux["steps_taken"]) == taken / 4
    np.testing.assert_allclose(aux["policy_loss"], np.mean(losses), rtol=1e-9, atol=1e-12)
    for found, expected in zip(jax.tree.leaves(after.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("clip_values", [False, True])
def test_one_compiled_update_has_any_clip_range(clip_values: bool) -> None:
    """As a tuner moves it between windows; the policy is moved far enough for ratios beyond each range."""
    environment, options = Fork(), OPTIONS._replace(clip_values=clip_values)
    agent = self_tuning(environment, ppo_agent(optimizer=optax.identity(), options=options), 1, FIXED)
    state = begun(agent, environment)
    update, found = quick_jit(agent.problem.update), []
    for clip_range in (0.1, 0.3):
        eta = ETA._replace(learning_rate=0.5, clip_range=clip_range)
        after, aux = update(state.learner, jax.tree.map(jnp.asarray, eta), state.batch)
        _, params, _ = slow_update(state.learner.params, eta, state.batch, options)
        assert float(aux["clip_fraction"]) > 0
        found.append(jax.tree.leaves(after.params))
        for leaf, expected in zip(found[-1], jax.tree.leaves(params), strict=True):
            np.testing.assert_allclose(leaf, expected, rtol=1e-8, atol=1e-11)
    assert max(float(jnp.abs(one - other).max()) for one, other in zip(*found, strict=True)) > 1e-3


def test_hyperparameters_without_a_clip_range_take_that_of_the_options() -> None:
    environment = Fork()
    agent = self_tuning(environment, ppo_agent(optimizer=optax.identity(), options=OPTIONS), 1, FIXED)
    state, eta = begun(agent, environment), ETA._replace(learning_rate=0.5)
    after = []
    for options, given in ((OPTIONS, 0.1), (OPTIONS._replace(clip_range=0.1), None)):
        same = ppo_agent(optimizer=optax.identity(), options=options)
        problem = self_tuning(environment, same, 1, FIXED).problem
        moved, _ = problem.update(state.learner, eta._replace(clip_range=given), state.batch)
        after.append(jax.tree.leaves(moved.params))
    for one, other in zip(*after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_batch_is_normalised_as_it_was_acted() -> None:
    """The network says of it what it said when it acted, so that no ratio differs from 1 before the first step; and it
    is what the environment shows, normalised by what was seen before.
    """
    environment, head = AimTwice(), Gaussian(1)
    agent = self_tuning(environment, ppo_agent(head=head, normalize_observations=True), 1, FIXED)
    state = begun(agent, environment, num_free_outputs=1)
    plain = dataclasses.replace(agent, agent=ppo_agent(head=head))

    def collect(agent: SelfTuning, running: Any) -> Any:
        return agent.collect(state.learner.params, state.raw, running, key=jax.random.key(3))

    running, batch, _ = quick_jit(lambda running: collect(agent, running))(state.rollout)
    _, shown, _ = quick_jit(lambda running: collect(plain, running))(
        state.rollout._replace(observation_statistics=None)
    )
    trajectory, raw = batch.experience.trajectory, shown.experience.trajectory
    said = jax.vmap(jax.vmap(state.learner.params))(trajectory.observations).logits[:-1]
    mask = trajectory.observations.action_mask[:-1]
    np.testing.assert_allclose(head.log_prob(said, mask, trajectory.actions), trajectory.record, rtol=1e-12)
    used = agent.normalization(state.rollout)
    np.testing.assert_allclose(trajectory.observations.view[0], normalized(used, raw.observations).view[0], rtol=1e-12)
    first = np.asarray(state.batch.experience.trajectory.observations.view[:-1]).reshape(-1, 2)  # not normalised yet
    np.testing.assert_allclose(used.mean[0], first.mean(0), rtol=1e-9)
    assert float(jnp.abs(trajectory.observations.view[0] - raw.observations.view[0]).max()) > 0.1
    assert running.observation_statistics.num_steps.tolist() == [2.0 * NUM_STEPS] * NUM_ENVS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("length", "target_kl", "estimator"),
    [(1, None, "unrolled"), (2, 2e-4, "unrolled"), (2, None, "horizon-mix"), (2, 2e-4, "bootstrapped")],
)
def test_mixed_mode_of_a_recording_is_reverse_mode(length: int, target_kl: float | None, estimator: str) -> None:
    """Of E x M = 4 gradient steps; where the divergence stops them, some are taken and some are not."""
    environment = Recall()
    weights = gw.uniform_weights(length)
    estimators: dict[str, Any] = {
        "unrolled": gw.Unrolled(),
        "horizon-mix": gw.HorizonMix(weights),
        "bootstrapped": gw.Bootstrapped(2, target_learning_rate=0.1),
    }
    learner = ppo_agent(options=OPTIONS._replace(target_kl=target_kl, clip_values=True))
    agents = [
        dataclasses.replace(self_tuning(environment, learner, length, mode=mode), estimator=estimators[estimator])
        for mode in (gw.MixedMode(), gw.ReverseMode("step"))
    ]
    state = begun(agents[0], environment, outer_critic=True, outer_torso="own")
    window = quick_jit(lambda state: agents[0].collect_window(state, key=jax.random.key(3)))(state)
    assert window.recording.gradients.taken.shape == (length, 4)
    assert window.recording.gradients.states.params.value_head[0].bias.shape[:2] == (length, 4)
    steps = window.recording.gradients
    assert num_bytes((steps.states, steps.gradients)) == Sizes.of(agents[0], state).recorded, "as is forecast"
    assert 0 < float(window.aux["steps_taken"].mean()) < 1 if target_kl else window.recording.gradients.taken.all()
    replayed = window._replace(recording=window.recording._replace(gradients=None))
    mixed, again, reverse = (
        quick_jit(lambda *args, agent=agent: agent.window_gradient(*args))(state, given)
        for agent, given in ((agents[0], window), (agents[0], replayed), (agents[1], window))
    )
    assert mixed.aux.inner is None and again.aux.inner is not None
    for found in (mixed, again):
        one, other = (np.array(jax.tree.leaves(result.grad)) for result in (found, reverse))
        assert np.abs(other).max() > 1e-6
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(found.outer_loss, reverse.outer_loss, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("length", "outer_critic", "continuous"),
    [(1, False, False), (2, True, False), (5, False, False), (1, False, True), (2, True, True)],
)
def test_the_meta_gradient_is_that_of_differences(length: int, outer_critic: bool, continuous: bool) -> None:
    environment: Any = AimTwice() if continuous else Fork()
    head: Any = {"head": Gaussian(1), "reward_discount": 0.9} if continuous else {}
    options = OPTIONS._replace(clip_values=outer_critic)
    agents = [
        self_tuning(environment, ppo_agent(options=options, **head), length, mode=mode)
        for mode in (gw.MixedMode(), gw.ReverseMode("step"), gw.ForwardMode())
    ]
    free = int(continuous)
    state = begun(agents[0], environment, outer_critic=outer_critic, outer_torso="own", num_free_outputs=free)
    window = quick_jit(lambda state: agents[0].collect_window(state, key=jax.random.key(3)))(state)
    trajectory = window.batches.experience.trajectory
    assert trajectory.truncations.any() and (continuous or trajectory.terminations.any())
    assert continuous or not trajectory.observations.action_mask.all()
    expected = slopes_times_differences(agents[0], state, window, length)
    matter = np.abs(expected) > 1e-7  # one update of the policy does not hear of the values' weight
    assert matter.tolist() == [True, True, True, length > 1, True, False]
    assert expected[-1] == 0, "the clip range decides which steps count, and these stay the same"
    for agent in agents:
        grad = quick_jit(lambda *args, agent=agent: agent.window_gradient(*args).grad)(state, window)
        np.testing.assert_allclose(np.array(jax.tree.leaves(grad)), expected, rtol=1e-5, atol=1e-8)
        assert grad.clip_range == 0


@pytest.mark.slow
def test_the_clip_range_has_no_derivative() -> None:
    """It decides which steps are clipped; as long as those stay the same, an update is the same to the bit."""
    environment = MatchedReward()
    for clip_values in (False, True):
        agent = self_tuning(environment, ppo_agent(options=OPTIONS._replace(clip_values=clip_values)), 1, FIXED)
        state = begun(agent, environment)
        update, found = quick_jit(agent.problem.update), []
        for clip_range in (0.05, 0.05 + 1e-7):
            eta = jax.tree.map(jnp.asarray, ETA._replace(clip_range=clip_range))
            after, aux = update(state.learner, eta, state.batch)
            found.append(after)
        assert 0 < float(aux["clip_fraction"]) < 1
        for one, other in zip(*map(jax.tree.leaves, found), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_divergence_stops_the_passes() -> None:
    environment = MatchedReward()
    eta = jax.tree.map(jnp.asarray, ETA._replace(learning_rate=0.5, clip_range=0.2))
    taken = {}
    for target in (None, 1e-3):
        options = PPOOptions(num_epochs=4, num_minibatches=1, target_kl=target)
        agent = self_tuning(environment, ppo_agent(options=options), 1, FIXED)
        state = begun(agent, environment)
        after, aux = quick_jit(agent.problem.update)(state.learner, eta, state.batch)
        count = int(jax.tree.leaves(after.optimizer_state)[0])
        taken[target] = (float(aux["steps_taken"]), count)
    assert taken[None] == (1.0, 4)
    assert taken[1e-3] == (0.25, 1)  # the first step moves the policy beyond 1.5 times the target


@pytest.mark.parametrize(("options", "message"), [({"num_epochs": 0}, "epoch"), ({"num_minibatches": 0}, "minibatch")])
def test_no_passes_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ppo_agent(options=PPOOptions(**options))
