"""Two Colors beside a slow loop over a board of letters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.envs.registry import make_environment
from gradweave.envs.two_colors import TwoColors


@pytest.mark.slow
@pytest.mark.parametrize("step_cost", [False, True])
def test_it_is_the_game_of_a_slow_loop(step_cost: bool) -> None:
    environment = TwoColors(swap_every=60, step_cost=step_cost)
    state, observation = environment.reset(key=jax.random.key(0))
    step = jax.jit(lambda state, action, key: environment.step(state, action, key=key))
    rng, moves, collected = np.random.default_rng(0), [(-1, 0), (1, 0), (0, -1), (0, 1)], set()
    for number in range(120):
        agent, blue, red = (tuple(map(int, place)) for place in state.places)
        assert len({agent, blue, red}) == 3
        shown = np.asarray(observation.view).reshape(3, 2, 5)
        assert [tuple(map(int, row.argmax(-1))) for row in shown] == [agent, blue, red]
        assert shown.sum() == 6
        action = int(rng.integers(4))
        walked = tuple(min(max(at + by, 0), 4) for at, by in zip(agent, moves[action], strict=True))
        phase = 1.0 if number < 60 else -1.0
        reward = phase * ((walked == blue) - (walked == red))
        if step_cost and walked not in (blue, red):
            reward = -0.04
        state, outcome = step(state, jnp.asarray(action), jax.random.key(number + 1))
        observation = outcome.observation
        assert float(outcome.reward) == pytest.approx(reward)
        assert tuple(map(int, state.places[0])) == walked
        for name, place, index in (("blue", blue, 1), ("red", red, 2)):
            if walked == place:
                collected.add((name, phase))
            else:  # what was not collected stays
                assert tuple(map(int, state.places[index])) == place
        assert bool(outcome.truncated) == (number == 119)
        assert not outcome.terminated
    assert len(collected) == 4


@pytest.mark.slow
def test_what_is_collected_comes_back_anywhere_that_is_free() -> None:
    environment = TwoColors(size=2)
    state, _ = environment.reset(key=jax.random.key(0))
    places = jnp.asarray([[0, 0], [0, 1], [1, 1]], jnp.int32)
    keys = jax.random.split(jax.random.key(1), 40)
    stepped, _ = jax.vmap(lambda key: environment.step(state._replace(places=places), jnp.asarray(3), key=key))(keys)
    found = {tuple(map(int, place)) for place in stepped.places[:, 1]}
    assert found == {(0, 0), (1, 0)}  # the agent stands on (0, 1) by now, red lies on (1, 1)


@pytest.mark.parametrize("bad", [{"size": 1}, {"swap_every": 0}])
def test_what_cannot_be_is_refused(bad) -> None:
    with pytest.raises(ValueError, match="at least"):
        TwoColors(**bad)
    assert make_environment("two-colors", swap_every=7).swap_every == 7
