"""Bijectors between the natural range of a meta-parameter and the whole real line.

A meta-optimiser moves unconstrained numbers (`raw`); a learner reads constrained ones (`eta`). A *spec* is a pytree of
bijectors shaped like `eta`, or a prefix of it, so that one bijector may stand for a whole sub-tree.

`Interval` is the sigmoid of Xu et al. 2018 (arXiv 1805.09801) stretched to any interval; `Positive` is the exponential,
so that a step of the meta-optimiser is a relative change, as costs and learning rates need.
"""

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree


class AbstractBijector(eqx.Module):
    """A smooth, invertible, elementwise map from the real line onto the range of a meta-parameter."""

    @abc.abstractmethod
    def forward(self, raw: ArrayLike) -> Array:
        """The constrained value of `raw`."""

    @abc.abstractmethod
    def inverse(self, eta: ArrayLike) -> Array:
        """The unconstrained value whose image is `eta`. Raises ValueError when a concrete `eta` lies outside the
        range.
        """

    @abc.abstractmethod
    def clip(self, raw: Array) -> Array:
        """`raw`, moved to where `forward` still has a derivative in floating point."""


class Interval(AbstractBijector):
    """The open interval (lower, upper): eta = lower + (upper - lower) * sigmoid(raw).

    Near either end the sigmoid saturates: d eta / d raw = (eta - lower)(upper - eta) / (upper - lower), so a discount
    of 0.999 in (0, 1) moves 250 times more slowly than one of 0.5. Log both values.
    """

    lower: float = eqx.field(static=True, default=0.0)
    upper: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        if not -math.inf < self.lower < self.upper < math.inf:
            raise ValueError(
                f"Interval(lower={self.lower}, upper={self.upper}) is empty or endless: lower must be below upper, and "
                "both finite; use Positive or Unbounded where there is no bound."
            )

    def forward(self, raw: ArrayLike) -> Array:
        return self.lower + (self.upper - self.lower) * jax.nn.sigmoid(jnp.asarray(raw))

    def inverse(self, eta: ArrayLike) -> Array:
        eta = as_float(eta)
        _check_inside(
            eta, self, (eta > self.lower) & (eta < self.upper), f"strictly between {self.lower} and {self.upper}"
        )
        return jnp.log(eta - self.lower) - jnp.log(self.upper - eta)

    def clip(self, raw: Array) -> Array:
        # 15.9 in float32, where the sigmoid is 1 from 16.7 on. Away from 0 numbers are coarser than the sigmoid is.
        nearest = min(abs(self.lower), abs(self.upper))
        coarser = 1.0 if nearest == 0 else 2 + 4 * nearest / (self.upper - self.lower)
        limit = max(0.0, -math.log(coarser * float(jnp.finfo(raw.dtype).eps)))
        return jnp.clip(raw, -limit, limit)


class Positive(AbstractBijector):
    """The positive numbers: eta = exp(raw). A change of `raw` by 0.01 is a change of `eta` by about one per cent."""

    def forward(self, raw: ArrayLike) -> Array:
        return jnp.exp(jnp.asarray(raw))

    def inverse(self, eta: ArrayLike) -> Array:
        eta = as_float(eta)
        _check_inside(eta, self, eta > 0, "above 0")
        return jnp.log(eta)

    def clip(self, raw: Array) -> Array:
        info = jnp.finfo(raw.dtype)
        return jnp.clip(raw, math.log(float(info.tiny)) + 1.0, math.log(float(info.max)) - 1.0)


class Unbounded(AbstractBijector):
    """Any real number: eta = raw. For the weights of a network that produces hyper-parameters, say."""

    def forward(self, raw: ArrayLike) -> Array:
        return jnp.asarray(raw)

    def inverse(self, eta: ArrayLike) -> Array:
        return as_float(eta)

    def clip(self, raw: Array) -> Array:
        return raw


class Fixed(AbstractBijector):
    """Not learned: eta = raw with a derivative of exactly 0, for every estimator and mode."""

    def forward(self, raw: ArrayLike) -> Array:
        # Removes d(anything)/d(raw) for this leaf: the definition of a fixed one.
        return jax.lax.stop_gradient(jnp.asarray(raw))

    def inverse(self, eta: ArrayLike) -> Array:
        return _strong(eta)

    def clip(self, raw: Array) -> Array:
        return raw


def constrain(raw: PyTree, spec: PyTree) -> PyTree:
    """Natural values of unconstrained meta-parameters: eta = spec(raw), leaf by leaf.

    Args:
        raw: pytree of arrays, any shapes.
        spec: pytree of bijectors with the structure of `raw`, or a prefix of it.

    Returns:
        A pytree shaped like `raw`.

    Raises:
        ValueError: the structures do not match, or `spec` has a leaf that is no bijector.
    """
    return _map_spec(lambda bijector, leaf: bijector.forward(leaf), spec, raw)


def unconstrain(eta: PyTree, spec: PyTree) -> PyTree:
    """Unconstrained values whose natural values are `eta`; the inverse of `constrain`.

    Raises:
        ValueError: a concrete value lies outside its bijector's range, or the structures do not match.
    """
    return _map_spec(lambda bijector, leaf: bijector.inverse(leaf), spec, eta)


def clip_raw(raw: PyTree, spec: PyTree) -> PyTree:
    """Unconstrained meta-parameters moved back to where they can still be tuned; use it after each meta-update.

    From a raw value of 16.7 on a float32 sigmoid is exactly 1: the meta-parameter is at the end of its interval, its
    derivative is exactly 0, and no meta-gradient brings it back. `Interval` is clipped at the logarithm of the dtype's
    precision (15.9 in float32, 36.0 in float64), and sooner if no end of it is 0, so that its value lies inside
    however narrow it is (in float32 and float64); `Positive` within the dtype's range; other leaves are returned as
    they are.

    Args:
        raw: pytree of arrays.
        spec: its bijectors, or a prefix of them.

    Raises:
        ValueError: the structures do not match.

    Example:
        >>> import jax.numpy as jnp
        >>> import gradweave as gw
        >>> raw = gw.clip_raw({"discount": jnp.float32(20.0)}, {"discount": gw.Interval()})
        >>> float(raw["discount"]) < 16 and float(gw.constrain(raw, gw.Interval())["discount"]) < 1
        True
    """
    return _map_spec(lambda bijector, leaf: bijector.clip(jnp.asarray(leaf)), spec, raw)


def split_learned(raw: PyTree, spec: PyTree) -> tuple[PyTree, PyTree]:
    """(learned, fixed): two copies of `raw`, each with None where the other has its leaf. `equinox.combine` joins
    them.
    """
    mask = _map_spec(lambda bijector, leaf: not isinstance(bijector, Fixed), spec, raw)
    return eqx.partition(raw, mask)


def learned_to_eta(fixed: PyTree, spec: PyTree) -> Callable[[PyTree], PyTree]:
    """The map from learned leaves to the natural meta-parameters, given the fixed ones; both as `split_learned` returns
    them.
    """
    return lambda learned: constrain(eqx.combine(learned, fixed), spec)


def _is_bijector(node: Any) -> bool:
    return isinstance(node, AbstractBijector)


def _map_spec(fn: Any, spec: PyTree, tree: PyTree) -> PyTree:
    for leaf in jax.tree.leaves(spec, is_leaf=_is_bijector):
        if not _is_bijector(leaf):
            raise ValueError(
                f"a spec holds bijectors (Interval, Positive, Unbounded, Fixed) only, but one leaf is {leaf!r} of type "
                f"{type(leaf).__name__}; use Fixed() for a value that is not learned."
            )
    try:
        return jax.tree.map(
            lambda bijector, subtree: jax.tree.map(lambda leaf: fn(bijector, leaf), subtree),
            spec,
            tree,
            is_leaf=_is_bijector,
        )
    except (ValueError, TypeError) as error:
        if "structure" not in str(error) and "arity" not in str(error) and "prefix" not in str(error):
            raise
        raise ValueError(
            f"the spec has structure {jax.tree.structure(spec, is_leaf=_is_bijector)}, the meta-parameters "
            f"{jax.tree.structure(tree)}; give one bijector for every leaf or sub-tree of the meta-parameters."
        ) from error


def as_float(eta: ArrayLike) -> Array:
    """An array of a floating dtype that sticks."""
    eta = _strong(eta)
    return eta if jnp.issubdtype(eta.dtype, jnp.floating) else eta.astype(jnp.result_type(float))


def _strong(eta: ArrayLike) -> Array:
    """An array of a dtype that sticks: that of a Python number would change in the first meta-update, and all would be
    compiled anew.
    """
    eta = jnp.asarray(eta)
    return jnp.asarray(eta, eta.dtype)


def _check_inside(eta: Array, bijector: AbstractBijector, inside: Array, accepted: str) -> None:
    if isinstance(inside, jax.core.Tracer):
        return
    if not bool(jnp.all(inside)):
        raise ValueError(f"{bijector} cannot hold the value {eta}: it must lie {accepted}.")
