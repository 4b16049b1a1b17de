"""The sampling correction against the exact derivative of an expected return, all sequences of trajectories enumerated.

A Markov decision process with two states, two actions and two steps has eight trajectories, and a window of two inner
updates 8 ** 3 sequences of them. Their probabilities depend on the meta-parameters through what was learned from the
trajectories before.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradweave as gw
from gradweave.agents import (
    ActorCriticEta,
    Experience,
    OuterObjective,
    SelfTuning,
    actor_critic,
    actor_critic_agent,
    bundled_apply,
    inner_optimizer,
)
from gradweave.agents.actor_critic.outer_loss import log_likelihood, mean_reward
from gradweave.core.sampling_correction import correction_coefficients
from gradweave.envs import Observation, VectorEnvironment
from gradweave.rl import NetworkOutput, Trajectory

from .material import ETA, LEARNED, Ladder, network

FOLLOW = np.array([[[0.9, 0.1], [0.3, 0.7]], [[0.5, 0.5], [0.2, 0.8]]])  # [state, action, next state]
REWARD = np.array([[0.1, -0.4], [1.0, 0.3]])  # [state, action]
PATHS = np.array(list(itertools.product((0, 1), repeat=3)))  # first action, second state, second action
SEQUENCES = jnp.asarray(list(itertools.product(range(8), repeat=3)))
THETA = jnp.array([[0.3, -0.2], [0.1, 0.4]])


def states_and_actions(path):
    return jnp.stack([jnp.zeros((), path.dtype), path[1]]), path[::2]


def policy_log_prob(theta, path):
    states, actions = states_and_actions(path)
    return jax.nn.log_softmax(theta)[states, actions].sum()


def probability(theta, path):
    return jnp.exp(policy_log_prob(theta, path)) * jnp.asarray(FOLLOW)[0, path[0], path[1]]


def rewards(path):
    return jnp.asarray(REWARD)[states_and_actions(path)]


def plain_case():
    """A policy gradient written by hand, over paths as batches; any update function will do."""

    def update(theta, eta, path):
        first, second = rewards(path)
        values = jnp.stack([first + eta["discount"] * second, second])
        states, actions = states_and_actions(path)
        loss = lambda theta: -jnp.sum(jax.nn.log_softmax(theta)[states, actions] * values)  # noqa: E731
        return theta - eta["rate"] * jax.grad(loss)(theta), None

    def outer_loss(theta, path):
        return -policy_log_prob(theta, path) * (rewards(path).sum() - 0.2), None

    problem = gw.MetaProblem(update, outer_loss)
    spec = {"rate": gw.Positive(), "discount": gw.Interval()}
    raw = gw.unconstrain({"rate": jnp.array(0.8), "discount": jnp.array(0.6)}, spec)
    parts = {"log_prob": policy_log_prob, "reward": lambda path: rewards(path).sum()}
    return (
        problem,
        raw,
        spec,
        THETA,
        parts,
        lambda path: path,
        lambda state: state,
        [gw.ReverseMode(), gw.ForwardMode()],
    )


def actor_critic_case():
    """The library's actor-critic with a table for a network; its losses are means over the two steps."""

    def apply(params, observation, conditioning):
        return NetworkOutput(observation.view @ params["logits"], observation.view @ params["values"], None)

    def experience(path):
        states, actions = states_and_actions(path)
        views = jax.nn.one_hot(jnp.append(states, 0), 2)[:, None]
        observations = Observation(views, jnp.zeros((3, 1, 0)), jnp.ones((3, 1, 2), bool))
        ends = jnp.array([[False], [True]])
        return Experience(Trajectory(observations, actions[:, None], rewards(path)[:, None], ends, ends & False, None))

    objective = OuterObjective(discount=1.0, lambda_=1.0, value_cost=0.0)
    problem = actor_critic(apply, inner_optimizer("sgd"), objective)
    eta = ActorCriticEta(*(jnp.array(value) for value in (0.6, 0.7, 0.1, 0.5, 1.5)))
    parts = {"log_prob": log_likelihood, "reward": mean_reward}
    state = problem.init({"logits": THETA, "values": jnp.array([0.2, -0.1])})
    modes = [gw.ReverseMode(), gw.ForwardMode(), gw.MixedMode()]
    return (
        problem,
        gw.unconstrain(eta, LEARNED),
        LEARNED,
        state,
        parts,
        experience,
        lambda state: state.params["logits"],
        modes,
    )


@pytest.mark.slow
@pytest.mark.parametrize("make", [plain_case, actor_critic_case])
@pytest.mark.parametrize("estimator", [gw.Unrolled(), gw.HorizonMix(jnp.array([0.3, 0.7]))], ids=["unrolled", "mix"])
def test_the_expected_estimate_is_the_derivative_of_the_expected_return(make, estimator):
    problem, raw, spec, start, parts, batch_of, policy_of, modes = make()
    horizons = jnp.array([0.0, 1.0]) if isinstance(estimator, gw.Unrolled) else estimator.weights

    def walk(raw, sequence):
        """(probability of a sequence of trajectories, its weighted outer returns, its batches)."""
        paths = jnp.asarray(PATHS)[sequence]
        batches = jax.vmap(batch_of)(paths)
        state, chance, returns = start, probability(policy_of(start), paths[0]), []
        for k in range(2):
            state, _ = problem.update(state, gw.constrain(raw, spec), jax.tree.map(lambda leaf: leaf[k], batches))  # noqa: B023
            chance = chance * probability(policy_of(state), paths[k + 1])
            returns.append(parts["reward"](jax.tree.map(lambda leaf: leaf[k + 1], batches)))  # noqa: B023
        return chance, jnp.dot(horizons, jnp.stack(returns)), batches

    @jax.jit
    def expected_return(raw):
        chances, returns, _ = jax.vmap(lambda sequence: walk(raw, sequence))(SEQUENCES)
        return jnp.dot(chances, returns), chances.sum()

    def expected_estimate(coefficient, mode):
        def one(sequence):
            chance, _, batches = walk(raw, sequence)
            result = gw.corrected_meta_gradient(
                problem, raw, spec, start, batches, correction=gw.SamplingCorrection(coefficient), baseline=0.4,
                estimator=estimator, mode=mode, **parts,
            )  # fmt: skip
            return jax.tree.map(lambda leaf: chance * leaf, result.grad)

        return jax.tree.map(lambda leaf: leaf.sum(0), jax.jit(jax.vmap(one))(SEQUENCES))

    np.testing.assert_allclose(expected_return(raw)[1], 1.0, rtol=1e-12)
    leaves, structure = jax.tree.flatten(raw)
    basis = [jax.tree.unflatten(structure, list(row)) for row in np.eye(len(leaves))]
    exact = np.array([-gw.finite_difference(lambda raw: expected_return(raw)[0], raw, way) for way in basis])
    for mode in modes:
        whole, none = (np.array(jax.tree.leaves(expected_estimate(rho, mode))) for rho in (1.0, 0.0))
        np.testing.assert_allclose(whole, exact, rtol=1e-6, atol=1e-9)
        assert np.abs(none - exact).max() > 0.005 * np.abs(exact).max()
    assert (np.abs(exact) > 1e-7).all()


def test_coefficients_are_the_sums_they_stand_for():
    advantages, horizons = np.array([0.3, -1.0, 2.0, 0.5]), np.array([0.1, 0.2, 0.3, 0.4])
    expected = [-sum(horizons[k] * advantages[k] for k in range(j + 1, 4)) for j in range(4)]
    np.testing.assert_allclose(
        correction_coefficients(jnp.asarray(advantages), jnp.asarray(horizons)), expected, atol=1e-15
    )


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.bool])
def test_whole_number_rewards_correct_as_much_as_real_ones(dtype):
    problem = gw.MetaProblem(
        lambda x, eta, batch: (x - eta * (x - batch["target"]), None),
        lambda x, batch: ((x - batch["target"]) ** 2, None),
    )
    raw, targets = jnp.array(-2.0), jnp.arange(4.0)

    def gradient(rewards, baseline, correction):
        return gw.corrected_meta_gradient(
            problem, raw, gw.Positive(), jnp.array(1.0), {"target": targets, "reward": rewards},
            correction=gw.SamplingCorrection(correction), estimator=gw.HorizonMix(gw.uniform_weights(3)),
            log_prob=lambda x, batch: -((x - batch["target"]) ** 2), reward=lambda batch: batch["reward"],
            baseline=baseline,
        ).grad  # fmt: skip

    whole = jnp.array([1, 0, 1, 1]).astype(dtype)
    for baseline in (0, 0.25, jnp.array(2)):
        real = gradient(whole.astype(jnp.float64), float(baseline), 1.0)
        assert gradient(whole, baseline, 1.0) == real != gradient(whole, baseline, 0.0)


@pytest.mark.parametrize(
    ("log_prob", "reward", "words"),
    [
        (lambda x, batch: x * batch, lambda batch: batch.sum(), r"log_prob must be a scalar.*shape \(2,\)"),
        (lambda x, batch: x * batch.sum(), lambda batch: batch, r"reward must be a scalar.*shape \(2,\).*mean"),
    ],
)
def test_a_likelihood_or_reward_of_a_shape_is_refused_by_name(log_prob, reward, words):
    problem = gw.MetaProblem(lambda x, eta, batch: (x - eta * batch.sum(), None), lambda x, batch: (x**2, None))
    with pytest.raises(ValueError, match=words):
        gw.corrected_meta_gradient(
            problem, jnp.array(-2.0), gw.Positive(), jnp.array(1.0), jnp.ones((4, 2)),
            correction=gw.SamplingCorrection(1.0), estimator=gw.Unrolled(), log_prob=log_prob, reward=reward,
        )  # fmt: skip


def agent(correction, estimator=None, mode=None, num_inner_steps=3, num_microbatches=1, objective=None):
    return SelfTuning(
        agent=actor_critic_agent(bundled_apply, inner_optimizer("sgd"), objective, num_microbatches=num_microbatches),
        environment=VectorEnvironment(Ladder(), 2),
        initial_raw=gw.unconstrain(ETA, LEARNED),
        spec=LEARNED,
        estimator=gw.Unrolled() if estimator is None else estimator,
        mode=gw.MixedMode() if mode is None else mode,
        meta_optimizer=optax.sgd(0.01),
        num_inner_steps=num_inner_steps,
        num_steps=4,
        sampling_correction=correction,
    )


@pytest.mark.slow
def test_an_agent_adds_the_score_of_earlier_batches():
    """The correction is the central difference of sum_j c_j log p(tau_j | x_j), batches and returns held fixed."""
    whole = agent(gw.SamplingCorrection(1.0))
    state = whole.init(network(jax.random.key(1), outer_critic=False), key=jax.random.key(2))
    state = state._replace(usual_reward=state.usual_reward.add(jnp.array(0.3), 0.5))
    window = jax.jit(lambda state: whole.collect_window(state, key=jax.random.key(3)))(state)
    variants = {
        "plain": agent(None),
        "none": agent(gw.SamplingCorrection(0.0)),
        "half": agent(gw.SamplingCorrection(0.5)),
        "parts": agent(gw.SamplingCorrection(1.0), num_microbatches=2),
    }
    variants |= {"whole": whole, "reverse": agent(gw.SamplingCorrection(1.0), mode=gw.ReverseMode("step"))}
    found = jax.jit(lambda state: {name: one.window_gradient(state, window) for name, one in variants.items()})(state)
    grads = {name: np.array(result.grad) for name, result in found.items()}
    np.testing.assert_allclose(grads["none"], grads["plain"], rtol=1e-9)
    np.testing.assert_allclose(grads["reverse"], grads["whole"], rtol=1e-9)
    np.testing.assert_allclose(grads["parts"], grads["whole"], rtol=1e-9)
    np.testing.assert_allclose(grads["half"], 0.5 * (grads["whole"] + grads["plain"]), rtol=1e-9)
    for result in found.values():
        np.testing.assert_allclose(result.outer_loss, found["plain"].outer_loss, rtol=1e-12)
        assert jax.tree.structure(result.aux.outer) == jax.tree.structure(found["plain"].aux.outer)

    advantage = float(window.batches.trajectory.rewards[3].mean()) - 0.3

    @jax.jit
    def scores(raw):
        learner, total = state.learner, jnp.zeros(())
        for j in range(1, 3):  # tau_0 came before the window, tau_3 only evaluates
            batch, last = (jax.tree.map(lambda leaf: leaf[k], window.batches) for k in (j, j - 1))  # noqa: B023
            learner, _ = whole.problem.update(learner, gw.constrain(raw, LEARNED), last)
            outputs = whole.problem.forward(learner.params, batch)
            total = total - advantage * log_likelihood(learner._replace(params=outputs), batch)
        return total

    directions = [
        state.raw._replace(**dict.fromkeys(state.raw._fields, jnp.zeros(())) | {n: jnp.ones(())})
        for n in state.raw._fields
    ]
    expected = [float(gw.finite_difference(scores, state.raw, direction)) for direction in directions]
    np.testing.assert_allclose(grads["whole"] - grads["plain"], expected, rtol=1e-5, atol=1e-8)
    assert np.abs(expected).min() > 1e-6


@pytest.mark.slow
def test_the_baseline_follows_the_rewards_of_earlier_windows():
    one = agent(gw.SamplingCorrection(0.5), num_inner_steps=1)
    state = one.init(network(jax.random.key(1), outer_critic=False), key=jax.random.key(2))
    assert float(state.usual_reward.mean(0.0)) == 0.0
    assert state.statistics is None
    after, _ = jax.jit(lambda state: one.step(state))(state)
    np.testing.assert_allclose(after.usual_reward.mean(0.0), after.batch.trajectory.rewards.mean(), rtol=1e-12)


def test_wrong_corrections_are_refused():
    with pytest.raises(ValueError, match=r"coefficient=1\.5.*\[0, 1\]"):
        gw.SamplingCorrection(1.5)
    with pytest.raises(ValueError, match=r"Bootstrapped.*Unrolled"):
        agent(gw.SamplingCorrection(0.5), estimator=gw.Bootstrapped(1))


def test_a_correction_in_other_units_than_the_outer_loss_is_refused():
    with pytest.raises(ValueError, match=r"Agent\.sampling"):
        agent(gw.SamplingCorrection(0.5), objective=OuterObjective(standardize_advantages=True))


def test_an_estimator_draws_from_keys_that_nobody_else_has():
    drawing = agent(None, estimator=gw.RandomTruncation(0.5))
    state = drawing.init(network(jax.random.key(1), outer_critic=False), key=jax.random.key(2))
    own = jax.random.key_data(jax.tree.leaves(state.estimator_state)[0]).tolist()
    assert own not in jax.random.key_data(jax.random.split(state.key)).tolist()
