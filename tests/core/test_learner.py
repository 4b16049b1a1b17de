"""A learner's own gradient: what the loss does not read receives none, and costs none."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
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


@pytest.mark.slow
def test_no_gradient_is_passed_back_to_what_only_targets_read(case):
    params, eta, batch = case
    learner = temporal_difference(squared)
    state = learner.init(params)
    gradient, length = learner.inner_gradient(state, eta, batch)
    assert jnp.allclose(gradient, semi_gradient(params, eta, batch), atol=1e-12)
    assert length == 3
    evaluated, _, (outer_loss, _) = learner.gradient_and_outer_loss(state, eta, batch)
    assert jnp.allclose(evaluated, gradient, atol=1e-12)
    assert jnp.allclose(outer_loss, jnp.tanh(batch[0] @ params).mean())


def test_what_a_loop_in_the_loss_is_given_counts_as_read(case):
    params, eta, batch = case
    learner = temporal_difference(squared_in_a_loop)
    with pytest.raises(PassBack):
        learner.inner_gradient(learner.init(params), eta, batch)
    learner = temporal_difference(squared_in_a_loop, guard=lambda x: x)
    gradient, _ = learner.inner_gradient(learner.init(params), eta, batch)
    assert jnp.allclose(gradient, semi_gradient(params, eta, batch), atol=1e-12)


def half(batch, index):
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, 2 * index, 2), batch)


HALVES = gw.Microbatches(2, half)


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


@pytest.mark.slow
def test_an_outer_loss_may_read_a_part_of_the_optimisers_state(case):
    """Mixed mode leaves out the rest; reverse mode knows nothing of it."""
    params, eta, batch = case

    def outer_loss(state, batch):
        return state.params["here"].mean() + jnp.sum(state.optimizer_state.mu**2), state.optimizer_state.nu

    plain = temporal_difference(squared, guard=lambda x: x)
    learner = dataclasses.replace(plain, optimizer=optax.scale_by_adam(eps_root=1e-12)).with_outer_loss(outer_loss)
    state = learner.init(params)
    read = learner.read_by_outer_loss(state, batch)
    assert (read.mu, read.nu, read.count) == (True, False, False)

    def gradient(mode):
        mix = gw.HorizonMix(gw.uniform_weights(3))
        return gw.meta_gradient(
            learner, eta, gw.Unbounded(), state, four_batches(batch), None, estimator=mix, mode=mode
        ).grad

    assert jnp.allclose(gradient(gw.MixedMode()), gradient(gw.ReverseMode()), rtol=1e-9)


@pytest.mark.slow
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

    etas, batches = jnp.array([0.9, 0.5]), four_batches(batch)
    batches = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1]]), batches)
    found = jax.vmap(lambda eta, batches: gradient(eta, batches, HALVES))(etas, batches)
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


@pytest.mark.slow
def test_meta_parameters_may_start_as_whole_numbers(case):
    params, _, batch = case
    learner = temporal_difference(squared, guard=lambda x: x)
    found, expected = (
        gw.meta_gradient(learner, raw, gw.Unbounded(), learner.init(params), four_batches(batch), None).grad
        for raw in (1, 1.0)
    )
    assert found == expected != 0


# ------------------------------------------------------------------------------------------------- derived learners


MODES = pytest.mark.parametrize(
    "mode", [gw.ReverseMode(), gw.ForwardMode(), gw.MixedMode()], ids=["reverse", "forward", "mixed"]
)


def gradient_of(learner, eta, params, batches, estimator=None, mode=None):
    state = learner.init(params)
    return gw.meta_gradient(learner, eta, gw.Unbounded(), state, batches, None, estimator=estimator, mode=mode).grad


def test_every_field_can_be_replaced():
    learner = temporal_difference(squared, microbatches=HALVES)
    learner = dataclasses.replace(learner, companion_loss=lambda outputs, targets, batch: 0.0)
    others = {"optimizer": optax.identity(), "microbatches": gw.Microbatches(4, half)}

    def nothing(*_):
        return None

    for field in dataclasses.fields(learner):
        other = others.get(field.name, nothing)
        changed = dataclasses.replace(learner, **{field.name: other})
        for kept in dataclasses.fields(learner):
            expected = other if kept.name == field.name else getattr(learner, kept.name)
            assert getattr(changed, kept.name) is expected
    assert dataclasses.replace(learner, outer_loss=nothing).outer_loss_of is nothing  # the constructor's name, too
    with pytest.raises(TypeError, match=r"a function for outer_loss.*None"):
        gw.GradientLearner(learner.targets, learner.loss, learner.optimizer, learner.learning_rate)


@pytest.mark.slow
@MODES
@pytest.mark.parametrize("microbatches", [None, HALVES], ids=["whole", "parts"])
def test_mapped_learners_are_those_that_were_written_so(case, mode, microbatches):
    """Of eta = 2 w the derivative by w is twice that by eta; batches in a wrapper are those inside."""
    params, eta, batch = case
    learner = temporal_difference(squared, guard=lambda x: x, microbatches=microbatches)
    batches = four_batches(batch)
    expected = gradient_of(learner, eta, params, batches, mode=mode)
    assert abs(expected) > 1e-3

    halved = learner.map_eta(lambda w: 2 * w)
    assert halved.microbatches is microbatches
    assert jnp.allclose(gradient_of(halved, eta / 2, params, batches, mode=mode), 2 * expected, rtol=1e-12)

    part = None if microbatches is None else lambda given, index: {"inside": half(given["inside"], index)}
    wrapped = learner.map_batch(lambda given: given["inside"], part)
    assert (wrapped.microbatches is None) == (microbatches is None)
    found = gradient_of(wrapped, eta, params, {"inside": batches}, mode=mode)
    assert jnp.allclose(found, expected, rtol=1e-12)


def test_a_mapped_companion_reads_the_mapped_batch(case):
    params, eta, batch = case
    learner = dataclasses.replace(
        temporal_difference(squared, guard=lambda x: x),
        companion_loss=lambda outputs, targets, batch: jnp.sum(outputs["here"] * batch[0][:, 0]),
    )
    expected, _ = learner.inner_gradient(learner.init(params), eta, batch)
    found, _ = learner.map_batch(lambda given: given[0]).inner_gradient(learner.init(params), eta, (batch, "unused"))
    assert jnp.allclose(found, expected, rtol=1e-12)
    without, _ = temporal_difference(squared, guard=lambda x: x).inner_gradient(learner.init(params), eta, batch)
    assert not jnp.allclose(found, without, rtol=1e-3)


def test_parts_of_mapped_batches_have_to_be_said(case):
    with pytest.raises(ValueError, match=r"map_batch was given part=None.*has microbatches"):
        temporal_difference(squared, microbatches=HALVES).map_batch(lambda given: given)
    with pytest.raises(ValueError, match="microbatches=None"):
        temporal_difference(squared).map_batch(lambda given: given, half)


@pytest.mark.slow
@MODES
def test_a_bootstrapped_distance_is_averaged_over_microbatches(case, mode):
    """The inner updates stay in parts, too: a loss that is no mean over examples tells."""
    params, eta, batch = case

    def greatest(outputs, targets, eta, batch):
        return jnp.max((outputs["here"] - targets) ** 2), None

    def distance(state, target, batch):
        return jnp.max(jnp.abs(batch[0] @ (state.params - target.params)))

    def gradient(microbatches, loss, distance):
        learner = temporal_difference(loss, guard=lambda x: x, microbatches=microbatches)
        estimator = gw.Bootstrapped(2, distance)
        return gradient_of(learner, eta, params, four_batches(batch), estimator, mode)

    def mean_of_greatest(outputs, targets, eta, batch):
        return jnp.mean(jnp.max(((outputs["here"] - targets) ** 2).reshape(2, 2), axis=1)), None

    def mean_distance(state, target, batch):
        return jnp.mean(jnp.max(jnp.abs(batch[0] @ (state.params - target.params)).reshape(2, 2), axis=1))

    found = gradient(HALVES, greatest, distance)
    assert jnp.allclose(found, gradient(None, mean_of_greatest, mean_distance), rtol=1e-9)
    assert not jnp.allclose(found, gradient(None, greatest, mean_distance), rtol=1e-3)
    assert not jnp.allclose(found, gradient(None, mean_of_greatest, distance), rtol=1e-3)


def in_parts(count: int, size: int) -> gw.GradientLearner:
    """A learner of `size` parameters; (batch,) numbers in `count` parts. Its loss counts them, in integers."""

    def loss(params, targets, eta, batch):
        return jnp.mean(batch) * jnp.sum(params**2), {"numbers": jnp.asarray(batch.size, jnp.int32)}

    def part(batch, index):
        return jax.lax.dynamic_slice_in_dim(batch, index * (len(batch) // count), len(batch) // count)

    return gw.GradientLearner(
        lambda *_: None,
        loss,
        optax.identity(),
        lambda eta: eta,
        lambda state, batch: (jnp.mean(batch) * jnp.sum(state.params), {}),
        microbatches=gw.Microbatches(count, part),
    )


def test_parts_of_a_batch_average_whatever_their_type():
    params, batch = jnp.arange(1.0, 4.0), jnp.array([1.0, 2.0, 3.0, 6.0])
    gradient, aux = in_parts(2, 3).inner_gradient(gw.LearnerState(params, None), jnp.asarray(0.1), batch)
    np.testing.assert_allclose(gradient, 3.0 * 2.0 * params)
    assert aux["numbers"] == 2.0


def test_many_parts_take_no_more_memory_than_few():
    state = gw.LearnerState(jnp.ones(100_000), None)

    def temporaries(count):
        gradient = jax.jit(lambda batch: in_parts(count, 100_000).inner_gradient(state, jnp.asarray(0.1), batch)[0])
        return gradient.lower(jnp.ones(64)).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(32) < temporaries(2) + state.params.nbytes


def test_a_batch_of_no_parts_is_refused_when_it_is_declared():
    with pytest.raises(ValueError, match=r"at least 1 part; .* num_parts=0"):
        in_parts(0, 3)


@pytest.mark.parametrize("optimizer", [None, optax.adam, (optax.identity().init, optax.identity().update)])
def test_an_optimizer_that_is_none_is_refused_by_name(optimizer):
    # In tests beartype is first to check the types; this calls what a user without beartype would meet.
    initialise = inspect.unwrap(gw.GradientLearner.__init__)
    with pytest.raises(TypeError, match=r"optax transformation for optimizer.*optax.scale_by_adam\(\)"):
        initialise(
            object.__new__(gw.GradientLearner),
            lambda p, e, b: None,
            lambda p, t, e, b: (0.0, None),
            optimizer,
            lambda e: 1.0,
            lambda s, b: (0.0, None),
        )
