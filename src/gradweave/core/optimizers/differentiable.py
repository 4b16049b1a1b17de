"""Any optax optimiser, made safe to differentiate at all its settings.

Published optimisers were written to be run, not to be differentiated: Adam's root has an infinite derivative at a
second moment of zero, that of a dead ReLU unit or of a bias that has not been used, and a clipped global norm
divides zero by zero at a gradient of zero. One such entry makes a whole meta-gradient NaN. Changing the optimiser
(`eps_root`) changes the updates; here its values are kept to the bit and its derivatives are mended, by tracing the
update and differentiating each of its operations by the rules in `safe_rules`.
"""

from typing import Any

import equinox as eqx
import jax
import optax
from jaxtyping import PyTree

from gradweave.core.jaxprs import contains, evaluate
from gradweave.core.optimizers.direction import check_extra_arguments
from gradweave.core.optimizers.safe_rules import SAFE_RULES

__all__ = ["differentiable"]


def differentiable(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The same optimiser with derivatives that are finite wherever its values are.

    Values are those of `optimizer`, to the bit, and so is the state. Derivatives are the usual ones where these are
    finite; an operation's infinite derivative (a root's at zero, a quotient's at a zero denominator) counts as 0. They
    hold in forward, reverse and mixed mode, and in derivatives of higher order.

    Any optax transformation will do: `chain`, schedules, `inject_hyperparams`, `masked`, `partition`, `MultiSteps` and
    so on; wrap the whole. Not for a meta-optimiser: nothing is differentiated through that. A piecewise constant
    step stays so: the sign in `lion`, `sign_sgd` or `rprop` has a derivative of zero by the gradient, so that only the
    scales of the step (the learning rate, weight decay) have a meta-gradient.

    Args:
        optimizer: any optax transformation that needs gradients, state and parameters only.

    Raises:
        TypeError: `optimizer` is no optax transformation; at `update`: it searches along a line, or reads a loss that
            was not handed over.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> import gradweave as gw
        >>> def step(optimizer, gradient):  # one step from 0
        ...     direction, _ = optimizer.update(gradient, optimizer.init(gradient))
        ...     return direction
        >>> adam = gw.differentiable(optax.adam(0.1))  # of optax.adam(0.1) itself the slope is NaN
        >>> slope = jax.grad(lambda gradient: step(adam, gradient))(jnp.zeros(()))
        >>> round(float(slope) / 1e6)  # -0.1 / eps, in millions
        -10
    """
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"differentiable wraps an optax transformation, not a {type(optimizer).__name__}; call the factory first: "
            "differentiable(optax.adam(1e-3))."
        )

    def update(updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        arrays, static = eqx.partition((updates, state, params, extra), eqx.is_array_like)
        leaves, structure = jax.tree.flatten(arrays)

        def plain(*leaves: Any) -> Any:
            updates, state, params, extra = eqx.combine(jax.tree.unflatten(structure, leaves), static)
            # optax multiplies integer counts with floats, which strict promotion would refuse.
            with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), check_extra_arguments():
                return optimizer.update(updates, state, params, **extra)

        closed, shape = jax.make_jaxpr(plain, return_shape=True)(*leaves)
        if contains(closed, "while"):
            raise TypeError(
                "this optimiser runs a while loop in its update, as line searches do, and has no reverse derivative; "
                "take one without a search."
            )
        outputs: tuple[PyTree, PyTree] = jax.tree.unflatten(
            jax.tree.structure(shape), evaluate(closed, SAFE_RULES, leaves)
        )
        return outputs

    return optax.GradientTransformationExtraArgs(optimizer.init, update)
