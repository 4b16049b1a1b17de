"""A learner's own gradient: what the loss does not read receives none, and costs none."""

import jax
import jax.numpy as jnp
import optax
import pytest

import gradweave as gw


class PassBack(Exception):
    """A gradient arrived where none should."""


@jax.custom_vjp
def one_way(x):
    return x


def _refuse(_, cotangent):
    raise PassBack


one_way.defvjp(lambda x: (x, None), _refuse)


def temporal_difference(value_loss, guard=one_way, microbatches=None):
    """Values of two batches of states; only targets read the second, as they do the states to bootstrap from."""

    def forward(params, batch):
        return {"here": jnp.tanh(batch[0] @ params), "there": jnp.tanh(guard(batch[1] @ params)), "length": 3}

    def targets(outputs, eta, batch):
        return 1.0 + eta * outputs["there"] + outputs["length"]

    return gw.GradientLearner(
        targets,
        value_loss,
        optax.identity(),
        lambda eta: 0.1,
        lambda state, batch: (state.params["here"].mean(), None),
        forward=forward,
        microbatches=microbatches,
    )


def squared(outputs, targets, eta, batch):
    return jnp.mean((outputs["here"] - targets) ** 2), outputs["length"]


def squared_in_a_loop(outputs, targets, eta, batch):
    """The same; the loop is given all outputs and reads one."""

    def add(carry, index):
        total, outputs = carry
        return (total + (outputs["here"][index] - targets[index]) ** 2, outputs), None

    start = (jnp.zeros(()), {name: outputs[name] for name in ("here", "there")})
    (total, _), _ = jax.lax.scan(add, start, jnp.arange(targets.size, dtype=jnp.int32))
    return total / targets.size, None


@pytest.fixture
def case():
    keys = jax.random.split(jax.random.key(0), 3)
    batch = (jax.random.normal(keys[0], (4, 2)), jax.random.normal(keys[1], (4, 2)))
    return jax.random.normal(keys[2], (2,)), jnp.asarray(0.9), batch


def semi_gradient(params, eta, batch):
    """By hand: mean of 2 (v - T) (1 - v^2) x."""
    here, there = (jnp.tanh(states @ params) for states in batch)
    error = here - (4.0 + eta * there)
    return (2.0 * error * (1.0 - here**2)) @ batch[0] / here.size


def test_no_gradient_is_passed_back_to_what_only_targets_read(case):
    params, eta, batch = case
    learner = temporal_difference(squared)
    state = learner.init(params)
    gradient, length = learner.inner_gradient(state, eta, batch)
    assert jnp.allclose(gradient, semi_gradient(params, eta, batch), atol=1e-12)
    assert length == 3
    judged, _, (outer_loss, _) = learner.judged_gradient(state, eta, batch)
    assert jnp.allclose(judged, gradient, atol=1e-12)
    assert jnp.allclose(outer_loss, jnp.tanh(batch[0] @ params).mean())


def test_what_a_loop_in_the_loss_is_given_counts_as_read(case):
    params, eta, batch = case
    learner = temporal_difference(squared_in_a_loop)
    with pytest.raises(PassBack):
        learner.inner_gradient(learner.init(params), eta, batch)
    learner = temporal_difference(squared_in_a_loop, guard=lambda x: x)
    gradient, _ = learner.inner_gradient(learner.init(params), eta, batch)
    assert jnp.allclose(gradient, semi_gradient(params, eta, batch), atol=1e-12)


def four_batches(batch):
    return jax.tree.map(lambda leaf: jnp.stack([leaf + 0.1 * k for k in range(4)]), batch)


@pytest.mark.parametrize(
    "mode", [gw.ReverseMode(), gw.ForwardMode(), gw.MixedMode()], ids=["reverse", "forward", "mixed"]
)
def test_the_meta_gradient_still_sees_the_targets_move(case, mode):
    """Against central differences of the unrolled updates, with the gradient written by hand."""
    params, eta, batch = case
    learner = temporal_difference(squared, guard=lambda x: x)
    batches = four_batches(batch)

    def unrolled(eta):
        theta = params
        for k in range(3):
            theta = theta - 0.1 * semi_gradient(theta, eta, (batches[0][k], batches[1][k]))
        return jnp.tanh(batches[0][3] @ theta).mean()

    expected = (unrolled(eta + 1e-6) - unrolled(eta - 1e-6)) / 2e-6
    found = gw.meta_gradient(
        learner, eta, gw.Unbounded(), learner.init(params), batches, None, estimator=gw.Unrolled(), mode=mode
    )
    assert jnp.allclose(found.grad, expected, rtol=1e-7)


def test_an_outer_loss_may_read_a_part_of_the_optimisers_state(case):
    """Mixed mode leaves out the rest; reverse mode knows nothing of it."""
    params, eta, batch = case

    def outer_loss(state, batch):
        return state.params["here"].mean() + jnp.sum(state.optimizer_state.mu**2), state.optimizer_state.nu

    plain = temporal_difference(squared, guard=lambda x: x)
    learner = gw.GradientLearner(
        plain.targets_of,
        plain.loss_of,
        optax.scale_by_adam(eps_root=1e-12),
        lambda eta: 0.1,
        outer_loss,
        forward=plain.forward,
    )
    state = learner.init(params)
    read = learner.read_by_outer_loss(state, batch)
    assert (read.mu, read.nu, read.count) == (True, False, False)

    def gradient(mode):
        mix = gw.HorizonMix(gw.uniform_weights(3))
        return gw.meta_gradient(
            learner, eta, gw.Unbounded(), state, four_batches(batch), None, estimator=mix, mode=mode
        ).grad

    assert jnp.allclose(gradient(gw.MixedMode()), gradient(gw.ReverseMode()), rtol=1e-9)


@pytest.mark.parametrize("estimator", [gw.Unrolled(), gw.HorizonMix(gw.uniform_weights(3))], ids=["last", "every"])
def test_parts_read_from_a_recording_are_those_of_its_batches(case, estimator):
    """Also as a batch axis, where each seed reads its own."""
    params, _, batch = case

    def gradient(eta, batches, microbatches):
        learner = temporal_difference(squared, guard=lambda x: x, microbatches=microbatches)
        state = learner.init(params)
        return gw.meta_gradient(
            learner, eta, gw.Unbounded(), state, batches, None, estimator=estimator, mode=gw.MixedMode()
        ).grad

    def part(batch, index):
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, 2 * index, 2), batch)

    etas, batches = jnp.array([0.9, 0.5]), four_batches(batch)
    batches = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1]]), batches)
    found = jax.vmap(lambda eta, batches: gradient(eta, batches, gw.Microbatches(2, part)))(etas, batches)
    expected = [gradient(etas[i], jax.tree.map(lambda leaf: leaf[i], batches), None) for i in range(2)]  # noqa: B023
    assert jnp.allclose(found, jnp.stack(expected), rtol=1e-12, atol=0.0)


def plain(forward, loss, targets=lambda outputs, eta, batch: None):
    return gw.GradientLearner(
        targets, loss, optax.identity(), lambda eta: 0.1, lambda state, batch: (0.0, None), forward=forward
    )


def test_numbers_of_python_stay_numbers():
    """They may decide shapes and branches."""
    learner = plain(
        lambda params, batch: {"some": params[: batch["count"]], "call": jax.tree_util.Partial(lambda x: x, params)},
        lambda outputs, targets, eta, batch: (jnp.sum(targets * outputs["some"]), None),
        lambda outputs, eta, batch: 2.0 if eta == 1 else 3.0,
    )
    gradient, _ = learner.inner_gradient(learner.init(jnp.ones(3)), 1, {"count": 2})
    assert gradient.tolist() == [2.0, 2.0, 0.0]


def test_whole_numbers_among_the_outputs_are_not_differentiated():
    learner = plain(
        lambda params, batch: {"values": params, "place": jnp.arange(3)},
        lambda outputs, targets, eta, batch: (jnp.sum(jnp.where(outputs["place"] > 0, outputs["values"] ** 2, 0.0)), 1),
    )
    gradient, _ = learner.inner_gradient(learner.init(jnp.arange(3.0)), 0.1, None)
    assert gradient.tolist() == [0.0, 2.0, 4.0]


def test_meta_parameters_may_start_as_whole_numbers(case):
    params, _, batch = case
    learner = temporal_difference(squared, guard=lambda x: x)
    found, expected = (
        gw.meta_gradient(learner, raw, gw.Unbounded(), learner.init(params), four_batches(batch), None).grad
        for raw in (1, 1.0)
    )
    assert found == expected != 0
