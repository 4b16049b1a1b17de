"""Hyper-parameters of any optax optimiser as traced values: learned, batched, or changed without recompiling.

optax's factories compute with the numbers they are given, so a traced learning rate or beta works, up to one thing: a
traced float64 or float32 number is an array of that dtype, and would drag bfloat16 or float32 moments along with it.
Here the numbers are given JAX's weak type, that of Python's own numbers, and the optimiser cannot tell them apart.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.extend.core.primitives import convert_element_type_p
from jaxtyping import PyTree

from gradweave.core.optimizers.differentiable import differentiable

__all__ = ["tunable"]


def tunable(
    factory: Callable[..., optax.GradientTransformation],
) -> Callable[..., optax.GradientTransformationExtraArgs]:
    """The same factory, whose hyper-parameters may be traced values; its optimisers are `differentiable`.

    Build the optimiser where it is used, inside of `update`: its state has no hyper-parameters in it, so that nothing
    is recompiled when they change. Python numbers stay constants, and so do the results with them. For traced numbers
    they are equal up to rounding; in float32 that includes 1 - b2, which is good to about one part in 10^5.

    Args:
        factory: `optax.adamw`, `optax.scale_by_adam`, or any function of numbers that returns an optax transformation.

    Returns:
        A function with the parameters of `factory`.

    Raises:
        TypeError: `factory` is an optimiser; or the result is called with a name that `factory` does not know, or with
            a traced value that decides on the structure of the update (a flag, a number of steps).

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> import gradweave as gw
        >>> def step(eta):
        ...     optimizer = gw.tunable(optax.adamw)(learning_rate=eta["rate"], weight_decay=eta["decay"])
        ...     params, gradient = jnp.ones(()), jnp.ones(())
        ...     change, _ = optimizer.update(gradient, optimizer.init(params), params)
        ...     return params + change  # 1 - rate (1 + decay)
        >>> slopes = jax.jit(jax.grad(step))({"rate": 0.1, "decay": 0.5})
        >>> {name: round(float(slope), 3) for name, slope in slopes.items()}
        {'decay': -0.1, 'rate': -1.5}
    """
    if isinstance(factory, optax.GradientTransformation):
        raise TypeError(
            "tunable takes a function that builds an optimiser, but was given an optimiser, whose numbers are fixed: "
            "tunable(optax.adam)(learning_rate=...)."
        )
    signature, name = inspect.signature(factory), getattr(factory, "__name__", "the factory")

    @functools.wraps(factory)
    def build(*args: Any, **hyperparameters: Any) -> optax.GradientTransformationExtraArgs:
        try:
            given = signature.bind(*args, **hyperparameters).arguments
        except TypeError as error:
            raise TypeError(f"{name}: {error}; it takes {', '.join(signature.parameters)}.") from error
        traced = [key for key, value in given.items() if isinstance(value, jax.core.Tracer)]
        with _named(name, traced):
            optimizer = factory(*(_as_number(arg) for arg in args), **jax.tree.map(_as_number, hyperparameters))
        safe = differentiable(optimizer)

        def update(updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
            with _named(name, traced):
                return safe.update(updates, state, params, **extra)

        return optax.GradientTransformationExtraArgs(safe.init, update)

    return build


def _as_number(value: Any) -> Any:
    """A floating-point array or scalar as weakly typed as a Python number; anything else as it is."""
    if not isinstance(value, (jax.Array, jax.core.Tracer)) or not jnp.issubdtype(value.dtype, jnp.floating):
        return value
    return convert_element_type_p.bind(value, new_dtype=value.dtype, weak_type=True, sharding=None)


class _named:
    """Says which hyper-parameters were traced where one of them is needed as a plain number."""

    def __init__(self, factory: str, traced: list[str]) -> None:
        self.factory, self.traced = factory, traced

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self.traced and isinstance(error, jax.errors.ConcretizationTypeError):
            raise TypeError(
                f"{self.factory} decides on the structure of its update by the value of one of "
                f"{', '.join(self.traced)}, so that this cannot be traced; give it as a Python number."
            ) from error
