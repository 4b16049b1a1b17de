"""Cells that remember: a network's memory from one observation to the next, between its torso and its heads.

A cell is one step of a recurrence, for one environment; the caller carries the memory and begins it anew
with each episode. `GRU` is gated (Cho et al. 2014, arXiv 1406.1078). `S5` is linear in its memory, with one
complex number for each channel:

    dx/dt = a x + B u,   y = 2 Re(C x) + D u,   a = -exp(log_decay) + i frequency,

discretised by zero-order hold, x' = exp(a d) x + (exp(a d) - 1) / a B u, with a learned step d for each channel (Smith
et al. 2022, arXiv 2208.04933; in reinforcement learning Lu et al. 2023, arXiv 2303.03982). Its decay is below 1
whatever is learned. Two deviations from the paper: one input and one output matrix without a layer around them, and
the steps are taken one after another, not by a parallel scan, so that acting and learning are one function.
"""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

__all__ = ["GRU", "S5", "AbstractCell", "draw_cell"]

_STEPS = (0.001, 0.1)  # of S5 at first, spread evenly by their logarithms, as in the paper
_DECAY = 0.5  # of S5 at first, per unit of time: channels forget over 20 to 2000 steps


class AbstractCell(eqx.Module):
    """One step of a memory; all leaves are arrays."""

    @abc.abstractmethod
    def initial(self) -> PyTree:
        """The memory at the beginning of an episode. Needs only the shapes of the parameters."""

    @abc.abstractmethod
    def __call__(self, inputs: Float[Array, " num_in"], memory: PyTree) -> tuple[Float[Array, " size"], PyTree]:
        """(input of the heads, memory after these inputs)."""


class GRU(AbstractCell):
    """A gated recurrent unit; its output is its memory."""

    cell: eqx.nn.GRUCell

    def initial(self) -> Float[Array, " size"]:
        """Zeros."""
        return jnp.zeros(self.cell.hidden_size, self.cell.weight_hh.dtype)

    def __call__(
        self, inputs: Float[Array, " num_in"], memory: Float[Array, " size"]
    ) -> tuple[Float[Array, " size"], Float[Array, " size"]]:
        """One step."""
        after: Array = self.cell(inputs, memory)
        return after, after


class S5(AbstractCell):
    """A diagonal linear recurrence over complex numbers, as described above.

    Complex numbers are kept as real and imaginary parts, on a leading axis, so that all parameters are real.
    """

    log_decay: Float[Array, " size"]
    frequency: Float[Array, " size"]
    """Radians per unit of time."""
    log_step: Float[Array, " size"]
    input_weight: Float[Array, "2 size num_in"]
    output_weight: Float[Array, "2 size size"]
    skip_weight: Float[Array, "size num_in"]

    def initial(self) -> Float[Array, "2 size"]:
        """Zeros."""
        return jnp.zeros((2, *self.log_decay.shape), self.log_decay.dtype)

    def __call__(
        self, inputs: Float[Array, " num_in"], memory: Float[Array, "2 size"]
    ) -> tuple[Float[Array, " size"], Float[Array, "2 size"]]:
        """One step."""
        kept, gain = held(self.log_decay, self.frequency, self.log_step)
        state = kept * jax.lax.complex(*memory) + gain * jax.lax.complex(*(self.input_weight @ inputs))
        after = jnp.stack([state.real, state.imag])
        real, imaginary = self.output_weight
        return 2 * (real @ after[0] - imaginary @ after[1]) + self.skip_weight @ inputs, after


def held(
    log_decay: Float[Array, " size"], frequency: Float[Array, " size"], log_step: Float[Array, " size"]
) -> tuple[Array, Array]:
    """(exp(a d), (exp(a d) - 1) / a): zero-order hold over one step, complex."""
    decay, step = jnp.exp(log_decay), jnp.exp(log_step)
    kept = jnp.exp(jax.lax.complex(-decay * step, frequency * step))
    return kept, (kept - 1) / jax.lax.complex(-decay, frequency)


def draw_cell(kind: str, num_in: int, size: int, dtype: Any, *, key: Key[Array, ""]) -> AbstractCell:
    """A fresh cell.

    Args:
        kind: "gru" or "s5".
        num_in: numbers that it reads in each step.
        size: numbers that it puts out; of "s5" also that of complex numbers it remembers.
        dtype: of the parameters; of "s5" single or double precision.
        key: for the weights.

    Raises:
        ValueError: another kind, or a dtype without complex numbers.
    """
    if kind == "gru":
        return GRU(eqx.nn.GRUCell(num_in, size, dtype=dtype, key=key))
    if kind != "s5":
        raise ValueError(f'memory = {kind!r} is not known: give "none", "gru" or "s5"')
    if jnp.finfo(dtype).bits < 32:
        raise ValueError(
            f'memory = "s5" is complex, which {jnp.dtype(dtype)} has no numbers for: give dtype=jnp.float32'
        )
    return _draw_s5(num_in, size, dtype, key=key)


def _draw_s5(num_in: int, size: int, dtype: Any, *, key: Key[Array, ""]) -> S5:
    """Frequencies pi n (S4D-Lin; Gu et al. 2022, arXiv 2206.11893), and inputs scaled so that independent ones of
    variance 1 give states of variance 1 in the long run, whatever the step: otherwise slow channels hear nothing.
    """
    step_key, in_key, out_key, skip_key = jax.random.split(key, 4)
    log_decay = jnp.full(size, math.log(_DECAY), dtype)
    frequency = math.pi * jnp.arange(size, dtype=dtype)
    low, high = (math.log(step) for step in _STEPS)
    log_step = jax.random.uniform(step_key, (size,), dtype, low, high)
    kept, gain = held(log_decay, frequency, log_step)
    scale = jnp.sqrt(1 - jnp.abs(kept) ** 2) / jnp.abs(gain)
    weight = jax.random.normal(in_key, (2, size, num_in), dtype) / math.sqrt(2 * num_in)
    return S5(
        log_decay,
        frequency,
        log_step,
        weight * scale[:, None],
        jax.random.normal(out_key, (2, size, size), dtype) / (2 * math.sqrt(size)),
        jax.random.normal(skip_key, (size, num_in), dtype) / math.sqrt(num_in),
    )
