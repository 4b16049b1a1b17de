"""More meta-problems for the table of estimators: a quadratic with an optimiser, a softmax bandit and a Markov decision
process whose updates and outer losses are exact, and semi-gradient TD whose rates stay in a stable range.

All rates are bounded, so that a learner that runs for very long cannot be made to diverge.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradweave as gw

from .problems import CASES, CURVATURE, OUTER_CURVATURE, Case, QuadraticBatch, linear_td

OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": optax.identity,
    "rmsprop": lambda: optax.scale_by_rms(eps=1e-6, eps_in_sqrt=True),
    "adam": lambda: optax.scale_by_adam(eps_root=1e-16),
}


def quadratic_learner(optimizer: optax.GradientTransformation) -> Case:
    """The noisy quadratic of `problems.py` with an optimiser; eta = (rate, shift)."""

    def loss(params: Any, targets: Any, eta: Any, batch: QuadraticBatch) -> tuple[Any, Any]:
        return 0.5 * jnp.sum(CURVATURE * (params - batch.inner - eta["shift"]) ** 2), None

    def outer_loss(state: gw.LearnerState, batch: QuadraticBatch) -> tuple[Any, Any]:
        return 0.5 * jnp.sum(OUTER_CURVATURE * (state.params - batch.outer) ** 2), None

    def draw(key: Any) -> QuadraticBatch:
        return QuadraticBatch(*jax.random.normal(key, (2, 3)))

    problem = gw.GradientLearner(_no_targets, loss, optimizer, lambda eta: eta["rate"], outer_loss)
    spec = {"rate": gw.Interval(0.0, 0.5), "shift": gw.Interval(-3.0, 3.0)}
    raw = gw.unconstrain({"rate": jnp.asarray(0.1), "shift": jnp.asarray(0.4)}, spec)
    return Case(problem, raw, spec, problem.init(jnp.array([1.0, -2.0, 0.5])), draw)


def tame_td(optimizer: optax.GradientTransformation) -> Case:
    """`linear_td` with rates that cannot make it diverge."""
    with jax.enable_x64(True):  # its numbers are float64 by name; a test of float32 wants them in float32
        case = linear_td(optimizer)
    spec = {"discount": gw.Interval(0.0, 0.9), "decay": gw.Interval(0.0, 0.5), "rate": gw.Interval(0.0, 0.1)}
    raw = gw.unconstrain(jax.tree.map(jnp.asarray, {"discount": 0.7, "decay": 0.05, "rate": 0.05}), spec)
    params = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.result_type(float)), case.state.params)
    return case._replace(spec=spec, raw=raw, state=case.problem.init(params))


ARMS = np.array([0.1, 0.9, 0.4, -0.3])


def bandit(optimizer: optax.GradientTransformation) -> Case:
    """A softmax policy over four arms whose noisy means are all seen; evaluated by its exact expected reward.

    eta = (rate, entropy cost, tilt): the tilt, fixed, multiplies rewards and is not learned.
    """

    def loss(params: Any, targets: Any, eta: Any, rewards: Any) -> tuple[Any, Any]:
        log_p = jax.nn.log_softmax(params)
        return -jnp.exp(log_p) @ (eta["tilt"] * rewards - eta["entropy_cost"] * log_p), None

    def outer_loss(state: gw.LearnerState, rewards: Any) -> tuple[Any, Any]:
        return -jax.nn.softmax(state.params) @ ARMS, None

    problem = gw.GradientLearner(_no_targets, loss, optimizer, lambda eta: eta["rate"], outer_loss)
    spec = {"rate": gw.Interval(0.0, 0.5), "entropy_cost": gw.Interval(0.0, 0.5), "tilt": gw.Fixed()}
    raw = gw.unconstrain(jax.tree.map(jnp.asarray, {"rate": 0.2, "entropy_cost": 0.1, "tilt": 1.5}), spec)
    state = problem.init(jnp.array([0.2, -0.1, 0.3, 0.0]))
    return Case(problem, raw, spec, state, lambda key: ARMS + 0.5 * jax.random.normal(key, (4,)))


NUM_STATES = 5
NEXT = np.stack([np.maximum(np.arange(5) - 1, 0), np.minimum(np.arange(5) + 1, 4)], axis=1)
REWARDS = np.array([[0.3, 0.0], [0.0, 0.0], [0.0, -0.05], [0.0, -0.05], [0.0, 1.0]])


def action_values(logits: Any, discount: Any, rewards: Any) -> tuple[Any, Any]:
    """(Q, v) of a softmax policy on the chain, from v = r_pi + discount P_pi v: every path there is."""
    policy = jax.nn.softmax(logits)
    moves = jnp.zeros((NUM_STATES, NUM_STATES))
    for action in (0, 1):
        moves = moves.at[np.arange(NUM_STATES), NEXT[:, action]].add(policy[:, action])
    values = jnp.linalg.solve(jnp.eye(NUM_STATES) - discount * moves, jnp.sum(policy * rewards, axis=1))
    return rewards + discount * values[NEXT], values


def decision_process(optimizer: optax.GradientTransformation) -> Case:
    """Policy iteration by gradient on a chain of five states: a small reward at the left end, a large one at the right.

    The targets are exact advantages at the learned discount (so that they depend on the parameters), the batch is the
    table of rewards, with noise; the outer loss is the exact value at the discount 0.95. eta = (discount, rate).
    """

    def targets(logits: Any, eta: Any, rewards: Any) -> Any:
        quality, values = action_values(logits, eta["discount"], rewards)
        return quality - values[:, None]

    def loss(logits: Any, advantages: Any, eta: Any, rewards: Any) -> tuple[Any, Any]:
        return -jnp.sum(jax.nn.softmax(logits) * advantages), None

    def outer_loss(state: gw.LearnerState, rewards: Any) -> tuple[Any, Any]:
        return -jnp.mean(action_values(state.params, 0.95, rewards)[1]), None

    problem = gw.GradientLearner(targets, loss, optimizer, lambda eta: eta["rate"], outer_loss)
    spec = {"discount": gw.Interval(0.0, 0.98), "rate": gw.Interval(0.0, 0.5)}
    raw = gw.unconstrain(jax.tree.map(jnp.asarray, {"discount": 0.6, "rate": 0.3}), spec)
    logits = 0.3 * jax.random.normal(jax.random.key(2), (NUM_STATES, 2))
    return Case(problem, raw, spec, problem.init(logits), lambda key: REWARDS + 0.1 * jax.random.normal(key, (5, 2)))


def _no_targets(params: Any, eta: Any, batch: Any) -> None:
    return None


LEARNERS: dict[str, Callable[[optax.GradientTransformation], Case]] = {
    "quadratic": quadratic_learner,
    "td": tame_td,
    "bandit": bandit,
    "decision_process": decision_process,
}

TABLE: dict[str, Callable[[], Case]] = {
    **{name: CASES[name] for name in ("quadratic", "td_adam", "counter", "nested", "shared_forward")},
    "bandit": lambda: bandit(OPTIMIZERS["rmsprop"]()),
    "decision_process": lambda: decision_process(OPTIMIZERS["sgd"]()),
}
