"""Convolutions against XLA's own, and the network's structure, initial weights and derivatives."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.envs import Observation
from gradweave.rl import actor_critic_network, probs
from gradweave.rl.layers import Convolution, Dense

SMALL = {"channels": (3, 4), "policy_layers": (5,), "value_layers": (6,)}


def board_observation(key, height=6, width=5, num_channels=2, num_scalars=1):
    return Observation(
        view=jax.random.normal(key, (height, width, num_channels)),
        scalars=0.5 * jnp.ones(num_scalars),
        action_mask=jnp.asarray([True, False, True, True]),
    )


def vector_observation(num_features=3):
    return Observation(jnp.arange(float(num_features)), jnp.zeros(0), jnp.ones(4, bool))


def build(observation, num_actions, *, key, **options):
    """The network, its weights drawn in one compiled function: that is several times faster than one after another."""
    return jax.jit(lambda key: actor_critic_network(observation, num_actions, **options, key=key))(key)


@jax.jit
def apply(network, observation):
    return network(observation)


def draw_convolution(size, stride, num_in, num_out):
    weight_key, bias_key = jax.random.split(jax.random.key(1))
    weight = jax.random.normal(weight_key, (size**2 * num_in, num_out))
    return Convolution(Dense(weight, jax.random.normal(bias_key, (num_out,))), size, stride)


def xla_convolution(convolution, board):
    size = convolution.kernel_size
    kernel = convolution.dense.weight.reshape(size, size, board.shape[-1], -1)
    strides = (convolution.stride, convolution.stride)
    dimensions = ("NHWC", "HWIO", "NHWC")
    out = jax.lax.conv_general_dilated(board[None], kernel, strides, "SAME", dimension_numbers=dimensions)
    return out[0] + convolution.dense.bias


@pytest.mark.parametrize(("height", "width"), [(6, 6), (5, 7), (12, 3), (1, 4)])
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (2, 3), (4, 2)])
def test_convolution_is_xlas_with_same_padding(size, stride, height, width):
    convolution = draw_convolution(size, stride, 2, 3)
    board = jax.random.normal(jax.random.key(0), (height, width, 2))
    ours, xlas = jax.jit(lambda c, b: (c(b), xla_convolution(c, b)))(convolution, board)
    assert ours.shape == (math.ceil(height / stride), math.ceil(width / stride), 3)
    np.testing.assert_allclose(ours, xlas, rtol=1e-11, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "stride", "num_in"), [(2, 2, 2), (2, 1, 2), (3, 2, 2), (2, 1, 8)])
def test_its_derivatives_are_xlas(size, stride, num_in):
    convolution = draw_convolution(size, stride, num_in, 3)
    board = jax.random.normal(jax.random.key(0), (5, 6, num_in))

    def curved(convolve, convolution, board):
        return jnp.sum(jnp.sin(convolve(convolution, board)))

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(convolve, *at):
        """The gradient, its own derivative in one direction forwards, and the same backwards."""
        gradient = jax.grad(functools.partial(curved, convolve), (0, 1))
        direction = jax.tree.map(lambda leaf: jnp.cos(7 * leaf), at)

        def slope(*at):
            return sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (gradient(*at), direction)), strict=True))

        return gradient(*at), jax.jvp(gradient, at, direction)[1], jax.grad(slope, (0, 1))(*at)

    ours, xlas = derivatives(lambda c, b: c(b), convolution, board), derivatives(xla_convolution, convolution, board)
    for got, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(xlas), strict=True):
        assert jnp.any(got != 0)
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_no_convolution_and_no_gather_reaches_the_compiler():
    observation = board_observation(jax.random.key(0))
    network = build(observation, 4, **SMALL, key=jax.random.key(1))
    program = str(jax.make_jaxpr(jax.grad(lambda net: net(observation).value))(network))
    assert "dot_general" in program
    assert not any(word in program for word in ("conv_general", "gather", "scatter"))


def reference_output(network, observation, conditioning):
    """The same network by XLA's convolutions, with torsos taken from the fields as documented."""

    def embed(torso):
        board = observation.view
        for convolution in torso:
            board = jnp.maximum(xla_convolution(convolution, board), 0)
        return jnp.concatenate([board.reshape(-1), observation.scalars, conditioning])

    def head(layers, x):
        for i, layer in enumerate(layers):
            x = x @ layer.weight + layer.bias
            x = x if i == len(layers) - 1 else jnp.maximum(x, 0)
        return x

    value_torso = network.policy_torso if network.value_torso is None else network.value_torso
    outer_torso = value_torso if network.outer_torso is None else network.outer_torso
    logits, value = head(network.policy_head, embed(network.policy_torso)), head(network.value_head, embed(value_torso))
    outer = None if network.outer_head is None else head(network.outer_head, embed(outer_torso))
    return logits, value, outer


@pytest.mark.parametrize("shared_torso", [True, False])
@pytest.mark.parametrize("outer_torso", [None, "shared", "own", "detached"])
@pytest.mark.parametrize("conditioning_size", [0, 2])
def test_output_matches_the_description(shared_torso, outer_torso, conditioning_size):
    observation = board_observation(jax.random.key(0))
    network = build(
        observation,
        4,
        **SMALL,
        shared_torso=shared_torso,
        outer_critic=outer_torso is not None,
        outer_torso=outer_torso or "shared",
        conditioning_size=conditioning_size,
        key=jax.random.key(1),
    )
    conditioning = jnp.asarray([0.9, 0.1][:conditioning_size]) if conditioning_size else None
    output, (logits, value, outer) = jax.jit(
        lambda network, inputs: (network(observation, conditioning), reference_output(network, observation, inputs))
    )(network, jnp.zeros(0) if conditioning is None else conditioning)
    np.testing.assert_allclose(output.logits, logits, rtol=1e-11)
    np.testing.assert_allclose(output.value, value[0], rtol=1e-11)
    assert output.value.shape == ()
    if outer_torso is not None:
        np.testing.assert_allclose(output.outer_value, outer[0], rtol=1e-11)
        assert float(output.outer_value) != float(output.value)
    else:
        assert output.outer_value is None


def moved_by(output_field, network, observation):
    """Fields of the network on which an output depends."""

    def output(network):
        return jnp.sum(getattr(network(observation), output_field))

    gradient = jax.jit(jax.grad(output))(network)
    fields = ("policy_torso", "value_torso", "outer_torso", "policy_head", "value_head", "outer_head")
    return {f for f in fields if any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(getattr(gradient, f)))}


@pytest.mark.slow
def test_torsos_are_shared_exactly_when_asked_for():
    observation = board_observation(jax.random.key(0))

    def drawn(**options):
        return build(observation, 4, **SMALL, outer_critic=True, **options, key=jax.random.key(1))

    shared = drawn(outer_torso="shared")
    assert moved_by("logits", shared, observation) == {"policy_torso", "policy_head"}
    assert moved_by("value", shared, observation) == {"policy_torso", "value_head"}
    assert moved_by("outer_value", shared, observation) == {"policy_torso", "outer_head"}
    apart = drawn(shared_torso=False, outer_torso="own")
    assert moved_by("logits", apart, observation) == {"policy_torso", "policy_head"}
    assert moved_by("value", apart, observation) == {"value_torso", "value_head"}
    assert moved_by("outer_value", apart, observation) == {"outer_torso", "outer_head"}
    assert moved_by("outer_value", drawn(shared_torso=False, outer_torso="shared"), observation) == {
        "value_torso",
        "outer_head",
    }
    own = drawn(outer_torso="own")
    assert moved_by("value", own, observation) == {"policy_torso", "value_head"}
    assert moved_by("outer_value", own, observation) == {"outer_torso", "outer_head"}


@pytest.mark.slow
@pytest.mark.parametrize("shared_torso", [True, False])
def test_a_detached_outer_critic_reads_the_torso_and_moves_its_head_alone(shared_torso):
    observation = board_observation(jax.random.key(0))
    detached, shared = (
        build(
            observation,
            4,
            **SMALL,
            outer_critic=True,
            shared_torso=shared_torso,
            outer_torso=outer_torso,
            key=jax.random.key(1),
        )
        for outer_torso in ("detached", "shared")
    )
    assert moved_by("outer_value", detached, observation) == {"outer_head"}
    assert detached.outer_torso is None
    assert float(apply(detached, observation).outer_value) == float(apply(shared, observation).outer_value)


@pytest.mark.slow
@pytest.mark.parametrize("outer_critic", [False, True])
def test_a_network_is_its_own_parameter_pytree(outer_critic):
    observation = board_observation(jax.random.key(0))
    network = build(observation, 4, **SMALL, outer_critic=outer_critic, key=jax.random.key(1))
    leaves = jax.tree.leaves(network)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    # 6x5 board, stride 2: 3x3 cells of 4 channels, and one scalar.
    torso = (4 * 2 * 3 + 3) + (4 * 3 * 4 + 4)
    embedding = 9 * 4 + 1
    value_head = (embedding * 6 + 6) + (6 + 1)
    policy_head = (embedding * 5 + 5) + (5 * 4 + 4)
    assert sum(leaf.size for leaf in leaves) == torso + policy_head + value_head * (1 + outer_critic)
    moved = jax.tree.map(lambda leaf: leaf + 1, network)
    assert float(moved(observation).value) != float(network(observation).value)


@pytest.mark.slow
def test_the_first_policy_is_nearly_uniform_and_the_first_weights_have_the_right_spread():
    observation = board_observation(jax.random.key(0), 12, 12, 5)
    network = build(observation, 4, key=jax.random.key(1))
    p = probs(apply(network, observation).logits, observation.action_mask)
    np.testing.assert_allclose(p[observation.action_mask], 1 / 3, atol=0.01)
    assert float(p[1]) == 0
    for layer in (network.policy_head[0], network.policy_head[1], network.value_head[0], network.policy_torso[1].dense):
        num_in = layer.weight.shape[0]
        assert float(jnp.max(jnp.abs(layer.weight))) <= 2 / math.sqrt(num_in)
        # A unit normal cut off at two has a standard deviation of 0.8796.
        np.testing.assert_allclose(jnp.std(layer.weight) * math.sqrt(num_in), 0.8796, rtol=0.1)
        assert not jnp.any(layer.bias)
    last = network.policy_head[-1].weight
    np.testing.assert_allclose(jnp.std(last) * math.sqrt(last.shape[0]), 0.008796, rtol=0.2)


@pytest.mark.slow
def test_the_last_policy_layer_is_scaled_and_no_other():
    observation, key = board_observation(jax.random.key(0)), jax.random.key(3)
    small, usual = (
        build(observation, 4, key=jax.random.clone(key), policy_scale=scale, **SMALL) for scale in (0.01, 1.0)
    )
    np.testing.assert_allclose(100 * small.policy_head[-1].weight, usual.policy_head[-1].weight, rtol=1e-12)
    # As drawn by every other layer: truncated at two standard deviations of 1 / sqrt(fan-in).
    assert 0.5 < jnp.abs(usual.policy_head[-1].weight).max() * math.sqrt(5) <= 2.0
    same = [jax.tree.leaves((net.policy_torso, net.value_head, net.policy_head[:-1])) for net in (small, usual)]
    for one, other in zip(*same, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=r"policy_scale = 0\.0.*above 0"):
        actor_critic_network(observation, 4, key=key, policy_scale=0.0)


@pytest.mark.parametrize(("name", "function"), [("tanh", np.tanh), ("swish", lambda x: x / (1 + np.exp(-x)))])
def test_the_activation_is_between_the_layers(name, function):
    observation = vector_observation()
    network = actor_critic_network(
        observation, 2, policy_layers=(3,), value_layers=(), policy_scale=1.0, activation=name, key=jax.random.key(4)
    )
    inputs = np.concatenate([observation.view, observation.scalars])
    first, last = network.policy_head
    hidden = function(inputs @ np.asarray(first.weight) + np.asarray(first.bias))
    expected = hidden @ np.asarray(last.weight) + np.asarray(last.bias)
    np.testing.assert_allclose(network(observation).logits, expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"activation = 'sin'.*relu, tanh, swish"):
        actor_critic_network(observation, 2, activation="sin", key=jax.random.key(4))


@pytest.mark.slow
def test_a_vector_goes_to_the_heads_as_it_is():
    observation = vector_observation()
    network = build(observation, 4, policy_layers=(), value_layers=(), key=jax.random.key(0))
    assert network.policy_torso == ()
    expected = observation.view @ network.policy_head[0].weight
    np.testing.assert_allclose(network(observation).logits, expected, rtol=1e-12)
    assert len(jax.tree.leaves(network)) == 4


def test_scalars_and_conditioning_are_seen():
    observation = board_observation(jax.random.key(0))
    network = build(observation, 4, **SMALL, conditioning_size=2, key=jax.random.key(1))

    def total(scalars, conditioning):
        output = network(observation._replace(scalars=scalars), conditioning)
        return jnp.sum(output.logits**2) + output.value

    by_scalars, by_conditioning = jax.jit(jax.grad(total, (0, 1)))(jnp.ones(1), jnp.ones(2))
    assert jnp.all(by_scalars != 0) and jnp.all(by_conditioning != 0)


@pytest.mark.slow
def test_free_outputs_follow_the_others_whatever_is_seen():
    seen = [Observation(jnp.full(3, value), jnp.zeros(0), jnp.ones(2, bool)) for value in (-1.0, 2.0)]
    network = actor_critic_network(seen[0], 2, num_free_outputs=2, policy_scale=1.0, key=jax.random.key(0))
    plain = actor_critic_network(seen[0], 2, policy_scale=1.0, key=jax.random.key(0))
    moved = eqx.tree_at(lambda network: network.free_outputs, network, jnp.array([0.5, -0.5]))
    for one in seen:
        np.testing.assert_array_equal(network(one).logits, jnp.append(plain(one).logits, jnp.zeros(2)))
        np.testing.assert_array_equal(moved(one).logits[2:], jnp.array([0.5, -0.5]))
    assert (network(seen[0]).logits != network(seen[1]).logits).tolist() == [True, True, False, False]


@pytest.mark.slow
def test_batches_go_through_vmap():
    observations = jax.vmap(board_observation)(jax.random.split(jax.random.key(0), 3))
    first = jax.tree.map(lambda x: x[0], observations)
    network = build(first, 4, **SMALL, key=jax.random.key(1))
    batch = jax.jit(jax.vmap(apply, (None, 0)))(network, observations)
    assert batch.logits.shape == (3, 4) and batch.value.shape == (3,)
    np.testing.assert_allclose(batch.logits[0], apply(network, first).logits, rtol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtype_follows_the_example_unless_given(dtype):
    observation = board_observation(jax.random.key(0))
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), observation)
    followed = build(example, 4, **SMALL, key=jax.random.key(1))
    given = build(observation, 4, **SMALL, dtype=dtype, key=jax.random.key(1))
    for network in (followed, given):
        assert {leaf.dtype for leaf in jax.tree.leaves(network)} == {jnp.dtype(dtype)}
        assert jax.eval_shape(network, observation).value.dtype == dtype  # also for an observation of another dtype


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_actions": 0}, "num_actions = .* holds a size below 1"),
        ({"channels": (0, 4)}, "channels = .* holds a size below 1"),
        ({"channels": (3,)}, "differ in length"),
        ({"strides": (1, 0)}, "strides = .* holds a size below 1"),
        ({"kernel_size": 0}, "kernel_size = .* holds a size below 1"),
        ({"policy_layers": (0,)}, "policy_layers = .* holds a size below 1"),
        ({"value_layers": (-1,)}, "value_layers = .* holds a size below 1"),
        ({"outer_torso": "borrowed"}, "outer_torso = 'borrowed' is not known"),
        ({"conditioning_size": -1}, "conditioning_size = -1 is no length"),
        ({"dtype": jnp.int32}, "dtype int32 cannot hold weights"),
    ],
)
def test_bad_sizes_are_refused(changes, message):
    options = {"observation": board_observation(jax.random.key(0)), "num_actions": 4, "key": jax.random.key(1)}
    with pytest.raises(ValueError, match=message):
        actor_critic_network(**(options | changes))


@pytest.mark.slow
def test_a_view_with_a_batch_axis_and_wrong_conditioning_are_refused():
    observation = board_observation(jax.random.key(0))
    batched = observation._replace(view=observation.view[None])
    with pytest.raises(ValueError, match="without a batch axis"):
        actor_critic_network(batched, 4, key=jax.random.key(1))
    plain = build(observation, 4, **SMALL, key=jax.random.key(1))
    with pytest.raises(ValueError, match="conditioning has shape"):
        plain(observation, jnp.ones(2))
    conditioned = build(observation, 4, **SMALL, conditioning_size=2, key=jax.random.key(1))
    with pytest.raises(ValueError, match="conditioning has shape None"):
        conditioned(observation)
    with pytest.raises(ValueError, match=r"conditioning has shape \(3,\)"):
        conditioned(observation, jnp.ones(3))
