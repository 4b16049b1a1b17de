"""Actor-critic networks for boards and for vectors; a network is its own parameter pytree.

A board goes through two small convolutions, flattened and joined by the observation's scalars; a vector is joined as it
is. From there, or from a cell that remembers (`gradweave.rl.cells`), multi-layer perceptrons lead to the logits, the
value and, when asked for, a second value for the outer loss (Bonnet et al. 2022, arXiv 2211.10550, the outer critic)
and auxiliary pairs of policy and value, which are only learned (Zahavy et al. 2020, arXiv 2002.12928;
`with_auxiliary_heads`).
Board torso and initial weights are those of Jumanji's Snake network (Bonnet et al. 2023, arXiv 2306.09884): weights
from a normal distribution of variance 1 / fan-in, cut off at two standard deviations, and biases of 0. One deviation,
`policy_scale`: the last policy layer starts 100 times smaller, so that the first policy is nearly uniform over the
allowed actions (Andrychowicz et al. 2020, arXiv 2006.05990).

Calls are for one observation; batches go through `jax.vmap`.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree
from numpy.typing import DTypeLike

from gradweave.envs import Observation
from gradweave.rl.cells import AbstractCell, draw_cell
from gradweave.rl.layers import Convolution, Dense, draw_dense

__all__ = ["ACTIVATIONS", "ActorCriticNetwork", "NetworkOutput", "actor_critic_network", "with_auxiliary_heads"]

Activation: TypeAlias = Callable[[Array], Array]

ACTIVATIONS: Final[Mapping[str, Activation]] = {"relu": jax.nn.relu, "tanh": jnp.tanh, "swish": jax.nn.swish}
"""Activations between a network's layers, by name."""

_FOR_CELLS = 1 << 31  # the first numbers give what splitting the key gives
_FOR_AUXILIARY = _FOR_CELLS + 1


class NetworkOutput(NamedTuple):
    """Outputs of a network for one observation."""

    logits: Float[Array, " num_outputs"]
    """Inputs of the policy head, beside the action mask: of a categorical policy its logits."""
    value: Float[Array, ""]
    outer_value: Float[Array, ""] | None
    """Second value estimate, for the outer loss only; None when the network has no outer critic."""
    memory: Any = None
    """Memory of a recurrent network before the next observation; None for feed-forward ones."""
    auxiliary: Any = None
    """A `NetworkOutput` of the auxiliary heads, whose logits and values have a leading axis for them; None if none."""


class ActorCriticNetwork(eqx.Module):
    """Policy and value, as described above. All leaves are arrays. Build with `actor_critic_network`.

    A torso is a tuple of convolutions, each followed by a rectifier, empty for a vector. A head is a tuple of dense
    layers with rectifiers between them.
    """

    policy_torso: tuple[Convolution, ...]
    """Also the value's torso when `value_torso` is None."""
    value_torso: tuple[Convolution, ...] | None
    outer_torso: tuple[Convolution, ...] | None
    """None: the outer critic, if there is one, sits on the value's torso."""
    policy_head: tuple[Dense, ...]
    value_head: tuple[Dense, ...]
    outer_head: tuple[Dense, ...] | None
    """None: no outer critic."""
    conditioning_size: int = eqx.field(static=True)
    detached_outer_critic: bool = eqx.field(static=True, default=False)
    """Whether the outer critic reads what the value reads without moving it: no derivative goes back through there."""
    activation: str = eqx.field(static=True, default="relu")
    """Name of the function between layers, one of `ACTIVATIONS`."""
    free_outputs: Float[Array, " num_free"] | None = None
    """Outputs for the policy that are the same whatever is seen, behind the others: a Gaussian policy's scales."""
    cells: tuple[AbstractCell, ...] = ()
    """One behind each torso, in the order of policy, value and outer critic; none in a feed-forward network."""
    auxiliary_heads: tuple[tuple[Dense, ...], tuple[Dense, ...]] | None = None
    """Further policies and values on the torsos of the first ones, stacked: leaves have a leading axis for them."""

    def initial_memory(self) -> PyTree:
        """The memory at the beginning of an episode, None of a feed-forward network; only shapes are read."""
        return tuple(cell.initial() for cell in self.cells) or None

    def __call__(
        self,
        observation: Observation,
        conditioning: Float[Array, " conditioning_size"] | None = None,
        memory: PyTree = None,
    ) -> NetworkOutput:
        """Logits and values of one observation; everything is computed in the dtype of the parameters.

        Args:
            observation: one observation, without a batch axis.
            conditioning: further inputs of every head, for example the meta-parameters (Xu et al. 2018, arXiv
                1805.09801); None if and only if `conditioning_size` is 0.
            memory: of the episode before this observation, as `initial_memory` and then
                `NetworkOutput.memory` give it; None if and only if the network has no cells.

        Raises:
            ValueError: for a conditioning vector of the wrong size, missing or not expected, and for a memory missing
                or not expected.
        """
        dtype = self.policy_head[0].weight.dtype
        extras = [observation.scalars.astype(dtype)]
        given = () if conditioning is None else conditioning.shape
        if given != ((self.conditioning_size,) if self.conditioning_size else ()):
            raise ValueError(
                f"conditioning has shape {given or None} for a network of conditioning_size = "
                f"{self.conditioning_size}: give a vector of that many numbers, or None when it is 0"
            )
        if conditioning is not None:
            extras.append(conditioning.astype(dtype))
        if (memory is None) == bool(self.cells):
            raise ValueError(
                "this network remembers: give the memory of the episode, initial_memory() at its beginning"
                if self.cells
                else "this network remembers nothing: leave the memory out, or build it with memory="
            )
        view, activation = observation.view.astype(dtype), ACTIVATIONS[self.activation]
        remembered: list[PyTree] = []

        def embed(torso: tuple[Convolution, ...]) -> Array:
            inputs = _embed(torso, view, extras, activation)
            if not self.cells:
                return inputs
            place = len(remembered)
            outputs, after = self.cells[place](inputs, memory[place])
            remembered.append(after)
            return outputs

        policy_inputs = embed(self.policy_torso)
        value_inputs = policy_inputs if self.value_torso is None else embed(self.value_torso)
        outer_value = None
        if self.outer_head is not None:
            outer_inputs = value_inputs if self.outer_torso is None else embed(self.outer_torso)
            if self.detached_outer_critic:
                outer_inputs = jax.lax.stop_gradient(outer_inputs)
            outer_value = _apply_head(self.outer_head, outer_inputs, activation)[0]
        logits = _apply_head(self.policy_head, policy_inputs, activation)
        if self.free_outputs is not None:
            logits = jnp.concatenate([logits, self.free_outputs])
        auxiliary = None
        if self.auxiliary_heads is not None:
            policies, values = (
                jax.vmap(lambda head, inputs=inputs: _apply_head(head, inputs, activation))(heads)
                for heads, inputs in zip(self.auxiliary_heads, (policy_inputs, value_inputs), strict=True)
            )
            auxiliary = NetworkOutput(policies, values[:, 0], None)
        return NetworkOutput(
            logits=logits,
            value=_apply_head(self.value_head, value_inputs, activation)[0],
            outer_value=outer_value,
            memory=tuple(remembered) or None,
            auxiliary=auxiliary,
        )


def actor_critic_network(
    observation: Observation,
    num_actions: int,
    *,
    num_free_outputs: int = 0,
    channels: tuple[int, ...] = (16, 16),
    strides: tuple[int, ...] = (2, 1),
    kernel_size: int = 2,
    policy_layers: tuple[int, ...] = (64, 64),
    value_layers: tuple[int, ...] = (64, 64),
    policy_scale: float = 0.01,
    activation: str = "relu",
    shared_torso: bool = True,
    outer_critic: bool = False,
    outer_torso: str = "detached",
    conditioning_size: int = 0,
    memory: str = "none",
    memory_size: int = 64,
    dtype: DTypeLike | None = None,
    key: Key[Array, ""],
) -> ActorCriticNetwork:
    """A network with freshly drawn weights.

    ```python
    network = actor_critic_network(observation, env.num_actions, key=jax.random.key(0))
    outputs = jax.vmap(network)(observations)
    ```

    Args:
        observation: an example without a batch axis, arrays or `jax.ShapeDtypeStruct`; only shapes and dtypes count.
        num_actions: number of logits, or of a Gaussian policy's means.
        num_free_outputs: further outputs for the policy, 0 at first whatever is seen: a `Gaussian` policy's scales.
        channels: of each convolution of the board torso. Without effect for a vector, like the next two.
        strides: of each convolution.
        kernel_size: of all kernels, which are square.
        policy_layers: widths of the policy's hidden layers; may be empty.
        value_layers: widths of the hidden layers of the value, and of the outer value.
        policy_scale: factor on the last policy layer's initial weights, above 0; 1 draws it like every other layer.
        activation: between layers: "relu", "tanh" or "swish".
        shared_torso: True: all heads sit on one torso. False: each has its own, as in Jumanji. The heads are separate
            either way, so that for a vector, which has no torso, nothing is shared but a cell.
        outer_critic: add a second value, for the outer loss.
        outer_torso: of the outer critic. "shared": the value's, which it moves. "own": a torso apart, at its cost.
            "detached": it reads the value's and moves only its own head, so that its large errors leave alone what the
            policy sees; right only for outer losses with constant values (`OuterObjective.value_cost` 0).
        conditioning_size: length of the conditioning vector that the network then takes as its second argument.
        memory: "gru" or "s5": a cell that remembers behind each torso, whose outputs the heads read; "none".
        memory_size: numbers that a cell puts out.
        dtype: of the parameters and of all that is computed; None: that of `observation.view`.
        key: for the weights.

    Raises:
        ValueError: for sizes below 1, an unknown word, a view that is no board or vector, or a dtype not floating.
    """
    dtype = jnp.dtype(observation.view.dtype if dtype is None else dtype)
    _check_input(observation, channels, strides, conditioning_size, dtype)
    sizes = {"num_actions": (num_actions,), "channels": channels, "strides": strides, "kernel_size": (kernel_size,)}
    _check_sizes(sizes | {"policy_layers": policy_layers, "value_layers": value_layers, "memory_size": (memory_size,)})
    *torso_keys, policy_key, value_key, outer_key = jax.random.split(key, 6)
    layout = _layout(observation.view.shape, channels, strides)
    _check_options(policy_scale, outer_torso, activation)
    own_outer_torso = outer_critic and outer_torso == "own"
    torsos = [_draw_torso(layout, kernel_size, dtype, key=k) for k in torso_keys[: 2 - shared_torso + own_outer_torso]]
    embedding_size = _embedded_size(observation.view.shape, layout) + observation.scalars.shape[0] + conditioning_size
    cells = _draw_cells(memory, len(torsos), (embedding_size, memory_size), dtype, key=key)
    embedding_size = memory_size if cells else embedding_size
    value_sizes = (embedding_size, *value_layers, 1)
    return ActorCriticNetwork(
        policy_torso=torsos[0],
        value_torso=None if shared_torso else torsos[1],
        outer_torso=torsos[-1] if own_outer_torso else None,
        policy_head=_draw_head((embedding_size, *policy_layers, num_actions), policy_scale, dtype, key=policy_key),
        value_head=_draw_head(value_sizes, 1.0, dtype, key=value_key),
        outer_head=_draw_head(value_sizes, 1.0, dtype, key=outer_key) if outer_critic else None,
        conditioning_size=conditioning_size,
        detached_outer_critic=outer_critic and outer_torso == "detached",
        activation=activation,
        free_outputs=jnp.zeros(num_free_outputs, dtype) if num_free_outputs else None,
        cells=cells,
    )


def with_auxiliary_heads(
    network: ActorCriticNetwork, count: int, *, policy_scale: float = 0.01, key: Key[Array, ""]
) -> ActorCriticNetwork:
    """The network with `count` further pairs of policy and value of the same sizes on the same torsos, freshly drawn.

    Their policies put out everything, the `free_outputs` of the network's own policy, too.

    Args:
        network: any; auxiliary heads that it has are replaced.
        count: number of pairs; 0: none.
        policy_scale: as for `actor_critic_network`.
        key: for the weights.
    """
    if count == 0:
        return dataclasses.replace(network, auxiliary_heads=None)
    free = 0 if network.free_outputs is None else network.free_outputs.size

    def drawn(head: tuple[Dense, ...], further: int, scale: float, keys: Key[Array, " count"]) -> tuple[Dense, ...]:
        sizes = [head[0].weight.shape[0], *(layer.bias.shape[0] for layer in head)]
        sizes[-1] += further
        draw = functools.partial(_draw_head, tuple(sizes), scale, head[0].weight.dtype)
        heads: tuple[Dense, ...] = jax.vmap(lambda key: draw(key=key))(keys)
        return heads

    policy_keys, value_keys = jax.random.split(jax.random.fold_in(key, _FOR_AUXILIARY), (2, count))
    policies = drawn(network.policy_head, free, policy_scale, policy_keys)
    return dataclasses.replace(network, auxiliary_heads=(policies, drawn(network.value_head, 0, 1.0, value_keys)))


class _Layer(NamedTuple):
    """Sizes of one convolution."""

    num_in: int
    num_out: int
    stride: int


def _check_input(
    observation: Observation,
    channels: tuple[int, ...],
    strides: tuple[int, ...],
    conditioning_size: int,
    dtype: jnp.dtype,
) -> None:
    """Refuse arguments for which no network can be built."""
    shape = tuple(observation.view.shape)
    if len(shape) not in (1, 3):
        raise ValueError(
            f"observation.view has shape {shape}: give a board (height, width, channels) or a vector (features,), "
            "without a batch axis"
        )
    if len(channels) != len(strides):
        raise ValueError(
            f"channels = {channels} and strides = {strides} differ in length: give one of each for every convolution"
        )
    if conditioning_size < 0:
        raise ValueError(f"conditioning_size = {conditioning_size} is no length: give 0 for none, or a number above 0")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype {dtype} cannot hold weights: give a floating one, for example dtype=jnp.float32")


def _check_options(policy_scale: float, outer_torso: str, activation: str) -> None:
    """Refuse a scale that is not positive, an unknown torso and an unknown activation."""
    if not policy_scale > 0:
        raise ValueError(f"policy_scale = {policy_scale!r} leaves a policy that cannot learn: give a number above 0")
    if outer_torso not in ("detached", "own", "shared"):
        raise ValueError(f'outer_torso = {outer_torso!r} is not known: give "detached", "own" or "shared"')
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation = {activation!r} is not known: give one of {', '.join(ACTIVATIONS)}")


def _check_sizes(named_sizes: dict[str, tuple[int, ...]]) -> None:
    """Refuse sizes below 1."""
    for name, sizes in named_sizes.items():
        if any(size < 1 for size in sizes):
            raise ValueError(f"{name} = {sizes} holds a size below 1: give positive whole numbers")


def _layout(shape: tuple[int, ...], channels: tuple[int, ...], strides: tuple[int, ...]) -> list[_Layer]:
    """The convolutions of a torso for views of this shape; none for a vector."""
    if len(shape) == 1:
        return []
    sizes = itertools.pairwise((shape[-1], *channels))
    return [_Layer(num_in, num_out, stride) for (num_in, num_out), stride in zip(sizes, strides, strict=True)]


def _embedded_size(shape: tuple[int, ...], layout: list[_Layer]) -> int:
    """Numbers that a torso makes of a view of this shape."""
    spatial = shape[:-1]
    for layer in layout:
        spatial = tuple(math.ceil(n / layer.stride) for n in spatial)
    return math.prod(spatial) * (layout[-1].num_out if layout else shape[-1])


def _draw_torso(
    layout: list[_Layer], kernel_size: int, dtype: jnp.dtype, *, key: Key[Array, ""]
) -> tuple[Convolution, ...]:
    """The convolutions of one torso."""
    return tuple(
        Convolution(draw_dense(kernel_size**2 * num_in, num_out, 1.0, dtype, key=k), kernel_size, stride)
        for (num_in, num_out, stride), k in zip(layout, jax.random.split(key, len(layout)), strict=True)
    )


def _draw_cells(
    memory: str, count: int, sizes: tuple[int, int], dtype: jnp.dtype, *, key: Key[Array, ""]
) -> tuple[AbstractCell, ...]:
    """A cell of (inputs, outputs) for each torso, or none."""
    if memory == "none":
        return ()
    # fold_in leaves the key itself untouched: a network without cells is unchanged, to the bit.
    keys = jax.random.split(jax.random.fold_in(key, _FOR_CELLS), count)
    return tuple(draw_cell(memory, *sizes, dtype, key=k) for k in keys)


def _draw_head(
    sizes: tuple[int, ...], last_scale: float, dtype: jnp.dtype, *, key: Key[Array, ""]
) -> tuple[Dense, ...]:
    """The dense layers of one head; the last one's weights are multiplied by `last_scale`."""
    num_layers = len(sizes) - 1
    scales = (*(1.0,) * (num_layers - 1), last_scale)
    return tuple(
        draw_dense(num_in, num_out, scale, dtype, key=k)
        for num_in, num_out, scale, k in zip(
            sizes[:-1], sizes[1:], scales, jax.random.split(key, num_layers), strict=True
        )
    )


def _embed(
    torso: tuple[Convolution, ...], view: Float[Array, "..."], extras: list[Array], activation: Activation
) -> Float[Array, " size"]:
    """Inputs of the heads: the torso's output, flat, then the scalars and the conditioning."""
    for convolution in torso:
        view = activation(convolution(view))
    return jnp.concatenate([view.reshape(-1), *extras])


def _apply_head(
    head: tuple[Dense, ...], inputs: Float[Array, " size"], activation: Activation
) -> Float[Array, " num_out"]:
    """Dense layers with the activation between them."""
    for layer in head[:-1]:
        inputs = activation(layer(inputs))
    return head[-1](inputs)
