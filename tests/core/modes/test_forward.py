"""Tangents carried through the learner's own updates, against reverse mode over a replay."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.core import (
    AdaptiveMix,
    Fixed,
    Footprint,
    ForwardMode,
    HorizonMix,
    HorizonRecording,
    Interval,
    MixedMode,
    Positive,
    ReverseMode,
    SamplingCorrection,
    TruncationMix,
    Unrolled,
    constrain,
    corrected_meta_gradient,
    geometric_weights,
    horizon_gradients,
    meta_gradient,
)
from gradweave.core.bijectors import learned_to_eta, split_learned
from gradweave.core.modes.base import ravel_learned
from gradweave.core.modes.forward import tracked_horizons, tracked_update, zero_tangents
from gradweave.core.modes.mixed import record

from ..test_contributions import LENGTH, case, learner

SPECS = {
    "two numbers": {"discount": Interval(), "rate": Positive(), "scale": Fixed()},
    "one number": {"discount": Interval(), "rate": Fixed(), "scale": Fixed()},
}
WEIGHTS = geometric_weights(LENGTH, 0.6)
at = lambda tree, k: jax.tree.map(lambda leaf: leaf[k], tree)  # noqa: E731


@functools.cache
def tracked(numbers):
    """(what `meta_gradient` is given, its recording), update by update in a Python loop."""
    raw, state, batches, _ = case(True)
    problem, spec = learner(), SPECS[numbers]
    learned, fixed = split_learned(raw, spec)
    to_eta = learned_to_eta(fixed, spec)
    start, tangents = state, zero_tangents(state, ravel_learned(learned)[0].size)

    @jax.jit
    def one_update(state, tangents, batch):
        eta = constrain(raw, spec)
        after, _ = problem.update(state, eta, batch)
        gradient, _ = problem.inner_gradient(state, eta, batch)
        outer_loss, _ = problem.outer_loss(state, batch)
        return (after, gradient, outer_loss), tracked_update(problem, to_eta, learned, state, tangents, batch)

    evaluated = []
    for k in range(LENGTH):
        (*expected, outer_loss), found = one_update(state, tangents, at(batches, k))
        state, tangents, (made, _), seen = found
        for one, other in zip(jax.tree.leaves([state, made]), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12)
        np.testing.assert_allclose(seen[1], outer_loss, rtol=1e-12)
        evaluated.append(seen)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *evaluated)
    recording = jax.jit(lambda *args: tracked_horizons(problem, *args))(state, tangents, stacked, at(batches, -1))
    return (problem, raw, spec, start, batches), recording


@pytest.mark.slow
@pytest.mark.parametrize("numbers", SPECS)
def test_what_was_tracked_is_reverse_modes_gradient(numbers):
    given, recording = tracked(numbers)
    ways = ((ReverseMode(), None), (ForwardMode(), recording), (ForwardMode(), None))
    results = jax.jit(
        lambda: [
            [meta_gradient(*given, None, estimator=estimator, mode=mode, recording=read) for mode, read in ways]
            for estimator in (Unrolled(), HorizonMix(WEIGHTS), TruncationMix(WEIGHTS))
        ]
    )()
    for truth, *others in results:
        for found in others:
            for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(truth._replace(aux=found.aux)), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-14)
            np.testing.assert_allclose(found.aux.outer_losses, truth.aux.outer_losses, rtol=1e-9)
        assert float(abs(truth.grad["discount"])) > 1e-4


@pytest.mark.slow
def test_the_recording_is_read_where_the_horizons_are_enough_and_only_there():
    given, recording = tracked("two numbers")
    doubled = recording._replace(gradients=2 * recording.gradients)

    def twice(estimator, mode):
        memory = estimator.init(given[1], given[2], given[3])
        options = {"estimator": estimator, "mode": mode, "estimator_state": memory}
        truth = meta_gradient(*given, None, **options).grad
        found = meta_gradient(*given, None, **options, recording=doubled).grad
        return found["rate"] / truth["rate"]

    reading = (Unrolled(), HorizonMix(WEIGHTS), AdaptiveMix(LENGTH))
    others = ((TruncationMix(WEIGHTS), ForwardMode()), (HorizonMix(WEIGHTS), ReverseMode()))
    ratios = jax.jit(lambda: ([twice(e, ForwardMode()) for e in reading], [twice(*other) for other in others]))()
    np.testing.assert_allclose(ratios[0], 2, rtol=1e-9)
    np.testing.assert_allclose(ratios[1], 1, rtol=1e-9)
    assert all(estimator.reads_horizons(LENGTH) for estimator in reading)
    assert not TruncationMix(WEIGHTS).reads_horizons(LENGTH)


def test_the_horizons_are_those_of_a_problem_that_shares_nothing():
    """The general path, which evaluates every state by itself."""
    problem, raw, spec, state, batches = tracked("two numbers")[0]
    inner, following = jax.tree.map(lambda leaf: leaf[:-1], batches), jax.tree.map(lambda leaf: leaf[1:], batches)
    windows = ((batches, None), (inner, following))
    shared, apart = jax.jit(lambda: [horizon_gradients(problem, raw, spec, state, *window) for window in windows])()
    for name in ("discount", "rate"):
        np.testing.assert_allclose(shared[name], apart[name], rtol=1e-9)


def test_a_recording_that_does_not_belong_is_an_error():
    given, recording = tracked("one number")
    inner = jax.tree.map(lambda leaf: leaf[1:], given[-1])
    assert isinstance(recording, HorizonRecording)
    with pytest.raises(ValueError, match="leave outer_batches out"):
        meta_gradient(*given[:-1], inner, inner, mode=ForwardMode(), recording=recording)
    problem, raw, _, state, batches = given
    two = (problem, raw, SPECS["two numbers"], state, batches)
    with pytest.raises(ValueError, match=r"\(4, 1\).*\(4, 2\)"):
        meta_gradient(*two, None, mode=ForwardMode(), recording=recording)
    with pytest.raises(TypeError, match="Recording"):
        corrected_meta_gradient(
            *given,
            correction=SamplingCorrection(1.0),
            log_prob=lambda state, batch: state.params.sum(),
            reward=lambda batch: batch["reward"].mean(),
            estimator=Unrolled(),
            recording=recording,
        )


@pytest.mark.slow
@pytest.mark.parametrize("mode", [ReverseMode(), ForwardMode(), MixedMode()], ids=["reverse", "forward", "mixed"])
def test_a_mode_reads_the_recording_that_it_names_and_no_other(mode):
    (problem, raw, spec, state, batches), horizons = tracked("two numbers")
    inner = jax.tree.map(lambda leaf: leaf[:-1], batches)
    updates, _ = jax.jit(lambda: record(problem, constrain(raw, spec), state, inner))()

    @jax.jit
    def slope(recording):
        return meta_gradient(problem, raw, spec, state, batches, None, mode=mode, recording=recording).grad["discount"]

    expected = slope(None)
    for recording in (updates, horizons):
        for factor in (1, 2):  # what is not true of the window changes the result where it is read
            gradients = jax.tree.map(lambda leaf: factor * leaf, recording.gradients)  # noqa: B023
            same = np.isclose(slope(recording._replace(gradients=gradients)), expected, rtol=1e-6, atol=0)
            assert same == (factor == 1 or mode.recording is not type(recording))


def test_what_each_mode_keeps_of_a_window():
    assert ReverseMode().footprint() == Footprint(states=True, activations=True)
    assert ReverseMode("step").footprint() == ReverseMode(3).footprint() == Footprint(states=True)
    assert MixedMode().footprint() == Footprint(states=True)
    assert ForwardMode().footprint() == Footprint(tangents=True)
