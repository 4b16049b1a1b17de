"""A value inside stays, one outside begins at the nearer end."""

import jax.numpy as jnp
import pytest

from gradweave.agents.tuners import Bounds, Seen

from .test_target_entropy import NO_EPISODES


@pytest.mark.parametrize(("given", "kept"), [(0.0, 0.003), (0.003, 0.003), (0.02, 0.02), (0.03, 0.03), (0.5, 0.03)])
def test_it_begins_within_its_ends_and_stays(given: float, kept: float) -> None:
    tuner = Bounds((0.003, 0.03))
    value, state = tuner.start(jnp.asarray(given))
    assert value == jnp.asarray(kept, value.dtype)
    moved, after = tuner.move(value, state, Seen({}, NO_EPISODES, None))
    assert moved == value and after == state
    # In a run that goes on with other ends, as `resume --accept-changes` allows, these hold from the next window on.
    assert float(tuner.move(jnp.asarray(0.1), state, Seen({}, NO_EPISODES, None))[0]) == pytest.approx(0.03)


@pytest.mark.parametrize("ends", [(0.03, 0.03), (0.1, 0.01)])
def test_ends_in_the_wrong_order_are_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="needs a lowest end below the highest"):
        Bounds(ends)
