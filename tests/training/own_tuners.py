"""Tuners as a user would write them, and classes that are none."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

import gradweave as gw


class Past(NamedTuple):
    windows: jax.Array
    entropy: jax.Array


class Waver(gw.AbstractTuner):
    """Up and down by turns, and by the sum of all entropies so far: its whole past counts."""

    share: float = eqx.field(static=True, default=0.1)

    def start(self, value):
        return value, Past(jnp.zeros((), jnp.int32), jnp.zeros_like(value))

    def move(self, value, state, seen):
        past = Past(state.windows + 1, state.entropy + seen.inner["entropy"].mean().astype(value.dtype))
        sign = jnp.where(past.windows % 2 == 0, -1.0, 1.0).astype(value.dtype)
        return value * jnp.exp(self.share * sign + 0.01 * past.entropy), past


class Choice(gw.AbstractTuner):
    """The candidates in turn."""

    values: tuple[float, ...] = eqx.field(static=True)

    def move(self, value, state, seen):
        return jnp.asarray(self.values, value.dtype)[1], state


class Bounded(Waver):
    def __check_init__(self):
        if self.share > 1:
            raise ValueError("share must be at most 1")


class Unfinished(gw.AbstractTuner):
    pass


class Bare(gw.AbstractTuner):
    def move(self, value, state, seen):
        return value, state


class NoTuner:
    def __init__(self, *arguments):
        raise AssertionError("called")


class Spoiled(gw.AbstractTuner):
    """As it is for so many windows, then far too high."""

    num_windows: float = eqx.field(static=True)

    def move(self, value, state, seen):
        return jnp.where(seen.num_windows.astype(value.dtype) + 1 >= self.num_windows, 100.0, value).astype(
            value.dtype
        ), state
