"""The table of contributions against reverse mode, row by row, and against what its sums have to be."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradweave.core import (
    Fixed,
    GradientLearner,
    Interval,
    KernelWeights,
    MetaProblem,
    Positive,
    ReverseMode,
    horizon_gradients,
    truncated_gradients,
    unconstrain,
)
from gradweave.core.contributions import step_contributions
from gradweave.core.meta_gradient import checked_window, differentiate_learned
from gradweave.core.modes.mixed import record

LENGTH = 4
SPEC = {"discount": Interval(), "rate": Positive(), "scale": Fixed()}


def learner():
    """Linear temporal differences: the target of a state is the reward plus the discounted value of the next."""

    def targets(params, eta, batch):
        return batch["reward"] + eta["discount"] * (batch["after"] @ params)

    def loss(params, targets, eta, batch):
        return eta["scale"] * jnp.mean((batch["before"] @ params - targets) ** 2), None

    def outer(state, batch):
        return jnp.mean((batch["before"] @ state.params - batch["reward"]) ** 2), None

    return GradientLearner(targets, loss, optax.scale_by_adam(eps_root=1e-12), lambda eta: eta["rate"], outer)


def case(online):
    keys = jax.random.split(jax.random.key(0), 4)
    length = LENGTH + online

    def draw(key, count):
        before, after, reward = jax.random.split(key, 3)
        shape = (count, 6, 3)
        return {
            "before": jax.random.normal(before, shape),
            "after": jax.random.normal(after, shape),
            "reward": jax.random.normal(reward, shape[:2]),
        }

    raw = unconstrain({"discount": jnp.float64(0.8), "rate": jnp.float64(0.1), "scale": jnp.float64(0.7)}, SPEC)
    state = learner().init(jax.random.normal(keys[0], (3,)))
    return raw, state, draw(keys[1], length), None if online else draw(keys[2], LENGTH)


@jax.jit
def contributions(raw, state, batches, outer_batches, recording=None):
    return step_contributions(learner(), raw, SPEC, state, batches, outer_batches, recording=recording)


@pytest.mark.slow
@pytest.mark.parametrize("online", [True, False])
def test_every_row_is_reverse_modes(online):
    raw, state, batches, outer_batches = case(online)

    @jax.jit
    def rows(raw):
        window = checked_window(state, batches, outer_batches, None)
        differentiand, _ = differentiate_learned(learner(), raw, SPEC, window)

        def row(weights):
            return ReverseMode().step_contributions(differentiand, KernelWeights(horizons=weights))[0]

        return jax.vmap(row)(jnp.eye(LENGTH))

    table, expected = contributions(raw, state, batches, outer_batches), rows(raw)
    for name in ("discount", "rate"):
        np.testing.assert_allclose(table[name], expected[name], rtol=1e-9, atol=1e-14)
        for horizon in range(LENGTH):
            assert (table[name][horizon, : horizon + 1] != 0).all()
            assert (table[name][horizon, horizon + 1 :] == 0).all()
    assert (table["scale"] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("online", [True, False])
def test_sums_are_horizon_and_truncated_gradients(online):
    raw, state, batches, outer_batches = case(online)
    table = contributions(raw, state, batches, outer_batches)
    horizons, windows = (
        jax.jit(lambda raw, gradients=gradients: gradients(learner(), raw, SPEC, state, batches, outer_batches))(raw)
        for gradients in (horizon_gradients, truncated_gradients)
    )
    for name in SPEC:
        np.testing.assert_allclose(table[name].sum(1), horizons[name], rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(table[name][-1, ::-1].cumsum(0), windows[name], rtol=1e-9, atol=1e-14)


def test_a_recording_changes_nothing():
    raw, state, batches, outer_batches = case(True)
    window = checked_window(state, batches, outer_batches, None)
    eta = differentiate_learned(learner(), raw, SPEC, window)[0].to_eta
    recording, _ = record(learner(), eta({**raw, "scale": None}), state, window.inner)
    first = contributions(raw, state, batches, outer_batches)
    second = contributions(raw, state, batches, outer_batches, recording)
    assert eqx.tree_equal(first, second, rtol=1e-12, atol=1e-16)
    doubled = recording._replace(final_state=jax.tree.map(lambda leaf: 2 * leaf, recording.final_state))
    assert not eqx.tree_equal(first, contributions(raw, state, batches, outer_batches, doubled), rtol=1e-2)


@pytest.mark.parametrize("online", [True, False])
def test_a_problem_without_parts_has_the_same_table(online):
    raw, state, batches, outer_batches = case(online)
    problem = MetaProblem(learner().update, learner().outer_loss)
    by_rows = jax.jit(lambda *args: step_contributions(problem, args[0], SPEC, *args[1:]))
    found = by_rows(raw, state, batches, outer_batches)
    assert eqx.tree_equal(found, contributions(raw, state, batches, outer_batches), rtol=1e-9, atol=1e-14)
