"""Cells that remember: S5 against matrix exponentials in a slow loop, and what a fresh one is like."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from gradweave.envs import Observation
from gradweave.rl import actor_critic_network, draw_cell
from gradweave.rl.cells import held

NUM_IN, SIZE, TIME = 3, 5, 7


@pytest.mark.slow
def test_s5_is_the_linear_system_held_over_each_step():
    """The same by expm of the system with its inputs held constant, without complex arithmetic of ours."""
    cell = draw_cell("s5", NUM_IN, SIZE, jnp.float64, key=jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (TIME, NUM_IN))
    after, outputs = jax.lax.scan(lambda memory, seen: cell(seen, memory)[::-1], cell.initial(), inputs)
    cell, inputs, after = jax.tree.map(np.asarray, (cell, inputs, after))
    b, c = (weight[0] + 1j * weight[1] for weight in (cell.input_weight, cell.output_weight))
    step, state = np.exp(cell.log_step), np.zeros(SIZE, complex)
    for t in range(TIME):
        for n in range(SIZE):
            a = -np.exp(cell.log_decay[n]) + 1j * cell.frequency[n]
            system = np.zeros((1 + NUM_IN, 1 + NUM_IN), complex)
            system[0] = [a, *b[n]]
            state[n] = expm(system * step[n])[0] @ np.concatenate([state[n, None], inputs[t]])
        expected = 2 * (c @ state).real + cell.skip_weight @ inputs[t]
        np.testing.assert_allclose(outputs[t], expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(after[0] + 1j * after[1], state, rtol=1e-9, atol=1e-12)


def test_gru_is_the_gated_recurrence():
    cell = draw_cell("gru", NUM_IN, SIZE, jnp.float64, key=jax.random.key(0))
    seen, memory = np.array([0.3, -1.0, 2.0]), np.linspace(-1, 1, SIZE)
    inner = jax.tree.map(np.asarray, cell.cell)
    given = np.split(inner.weight_ih @ seen + inner.bias, 3)
    kept = np.split(inner.weight_hh @ memory, 3)
    reset, update = (1 / (1 + np.exp(-(given[k] + kept[k]))) for k in (0, 1))
    candidate = np.tanh(given[2] + reset * (kept[2] + inner.bias_n))
    outputs, after = cell(jnp.asarray(seen), jnp.asarray(memory))
    np.testing.assert_allclose(after, (1 - update) * candidate + update * memory, rtol=1e-12)
    np.testing.assert_array_equal(outputs, after)


@pytest.mark.slow
def test_fresh_s5_states_have_variance_one_whatever_their_step():
    """Of independent inputs of variance 1, on average over the weights: the geometric series, summed."""
    cell = draw_cell("s5", 400, 64, jnp.float64, key=jax.random.key(0))
    kept, gain = (np.asarray(part) for part in held(cell.log_decay, cell.frequency, cell.log_step))
    power = (np.abs(gain)[:, None] ** 2 * np.asarray(cell.input_weight**2).sum(0)).sum(1)
    np.testing.assert_allclose(power / (1 - np.abs(kept) ** 2), 1.0, rtol=0.3)
    steps = np.exp(cell.log_step)
    assert 0.001 <= steps.min() < 0.003 and 0.03 < steps.max() <= 0.1


def test_s5_forgets_whatever_is_learned():
    wild = jnp.array([-20.0, 0.0, 5.0])
    kept, gain = held(wild, 100 * wild, -wild)
    assert (jnp.abs(kept) <= 1).all() and jnp.isfinite(gain).all() and jnp.abs(kept[1]) < 1


@pytest.mark.parametrize(("kind", "dtype", "says"), [("lstm", jnp.float32, "gru"), ("s5", jnp.bfloat16, "jnp.float32")])
def test_what_cannot_be_drawn_is_said(kind, dtype, says):
    with pytest.raises(ValueError, match=says):
        draw_cell(kind, NUM_IN, SIZE, dtype, key=jax.random.key(0))


def network(**options):
    example = Observation(jnp.zeros(4), jnp.zeros(1), jnp.ones(2, bool))
    sizes = {"policy_layers": (3,), "value_layers": (3,), "memory_size": SIZE}
    return example, actor_critic_network(example, 2, **(sizes | options), key=jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 1),
        ({"shared_torso": False}, 2),
        ({"outer_critic": True, "outer_torso": "own"}, 2),
        ({"outer_critic": True, "outer_torso": "own", "shared_torso": False}, 3),
    ],
)
def test_each_torso_has_a_memory_of_its_own(options, count):
    """Only what a cell remembers moves what is read from it."""
    example, net = network(memory="gru", policy_scale=1.0, **options)
    memory = net.initial_memory()
    assert len(memory) == len(net.cells) == count
    readers = ["logits"] + ["value"] * (options.get("shared_torso") is False)
    readers += ["outer_value"] * (options.get("outer_torso") == "own")
    slopes = jax.jacobian(lambda memory: net(example, None, memory)._replace(memory=None))(memory)
    for place, reader in enumerate(readers):
        moved = [bool(jnp.abs(slope).max() > 0) for slope in getattr(slopes, reader)]
        assert moved == [other == place for other in range(count)]


@pytest.mark.slow
def test_a_detached_outer_critic_does_not_move_the_memory():
    example, net = network(memory="s5", outer_critic=True, outer_torso="detached", value_layers=())
    memory = jax.tree.map(jnp.ones_like, net.initial_memory())
    slopes = {
        name: jax.grad(lambda net, name=name: getattr(net(example, None, memory), name))(net).cells
        for name in ("value", "outer_value")
    }
    largest = {
        name: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(cells)) for name, cells in slopes.items()
    }
    assert largest["value"] > 0 == largest["outer_value"]


def test_a_memory_missing_or_not_expected_is_refused():
    example, net = network(memory="gru")
    with pytest.raises(ValueError, match="initial_memory"):
        net(example)
    _, without = network()
    assert without.initial_memory() is None
    with pytest.raises(ValueError, match="remembers nothing"):
        without(example, None, net.initial_memory())
    with pytest.raises(ValueError, match="memory_size"):
        network(memory="gru", memory_size=0)
