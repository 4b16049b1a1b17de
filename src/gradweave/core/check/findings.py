"""From measurements and traced code to sentences with a remedy."""

from collections.abc import Collection, Iterable, Iterator
from math import isfinite
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from gradweave.core.check.places import met_singularities, place_of, written_places
from gradweave.core.check.program import Traced
from gradweave.core.check.report import Finding, LeafReport
from gradweave.core.jaxprs import OPAQUE, equations
from gradweave.core.modes.base import Differentiand

__all__ = ["find_breaks", "leaf_findings"]

_WRAP = "wrap the whole optimiser, clipping included: gw.differentiable(optax.chain(...)); its values stay the same"
_AT_ZERO = ": exactly 0, as the second moment of a dead unit, or a zero norm,"
_AWAY = "keep its argument away from there: a small constant inside the root, or jnp.where inside and outside of it"


def leaf_findings(
    leaves: Iterable[LeafReport], only_compared: Collection[str], outer_loss_reads_state: bool
) -> Iterator[Finding]:
    """One for each leaf whose derivative is not to be trusted, or says nothing.

    Args:
        leaves: of the report.
        only_compared: the names of those that update reads in comparisons alone.
        outer_loss_reads_state: where it does not, this is said once, and not of each leaf.
    """
    if not outer_loss_reads_state:
        yield Finding(
            "error",
            "outer_loss never reads the learner's state: every gradient is 0, whatever is tuned",
            "compute it from what was learned, state.params for instance; the rewards or returns in a batch are data "
            "(a policy-gradient loss on them has the gradient of the return)",
        )
    leaves = list(leaves)
    if not leaves:
        yield Finding(
            "warning",
            "no meta-parameter is learned: there is no gradient to check",
            "give what is to be tuned a bijector of its range, such as gw.Positive(), in the place of gw.Fixed()",
        )
    broken = [leaf.name for leaf in leaves if not isfinite(leaf.derivative)]
    if broken:
        yield Finding(
            "error",
            f"the derivative by {', '.join(broken)} is not finite",
            "see infinite derivatives below; until they are mended, gw.guarded(meta_optimizer) skips such updates",
        )
    for leaf in leaves:
        if leaf.verdict == "never read":
            yield Finding(
                "error",
                f"update never reads the meta-parameter {leaf.name}: its gradient is 0 for ever",
                "use it in update (advantages or targets made while collecting are data: compute them in update), or "
                "declare it as gw.Fixed()",
            )
        elif leaf.verdict == "zero" and outer_loss_reads_state:
            yield _zero(leaf.name, only_compared)
        elif leaf.verdict in ("stopped", "disagrees"):
            yield Finding(
                "error",
                f"the derivative by {leaf.name} is {leaf.derivative + 0.0:.4g}, but differences say "
                f"{leaf.difference + 0.0:.4g}",
                "see stopped derivatives and custom rules below; without any, a kink (clip, max, sign) may lie close",
            )


def _zero(name: str, only_compared: Collection[str]) -> Finding:
    what = f"the gradient by {name} is exactly 0, and so is its difference"
    if name in only_compared:
        return Finding(
            "error",
            f"{what}: update only compares with it, as with a bound of clip (PPO's clip range), minimum or maximum",
            "declare it as gw.Fixed(): it decides which terms count, and its gradient is 0 in a window of any length, "
            "however much is clipped; only a rule that needs no gradient can move it",
        )
    return Finding(
        "error",
        f"{what}: on these data it moves nothing that the outer loss reads",
        "give a longer window (num_inner_steps) or data on which it counts (rewards that are not all 0, say), or look "
        "for a clip, minimum or maximum at its bound, a product with 0 or a comparison behind it; where none is at "
        "fault, declare it as gw.Fixed()",
    )


def find_breaks(traced: Traced, given: Differentiand, leaves: tuple[LeafReport, ...]) -> Iterator[Finding]:
    """Causes known to break a meta-gradient, with their source lines."""
    broken = any(not isfinite(leaf.derivative) for leaf in leaves)
    differs = any(leaf.verdict in ("stopped", "disagrees") for leaf in leaves)
    yield from _singular(traced, given, broken)
    for place in written_places(traced.update, "stop_gradient"):
        yield Finding(
            "error" if differs else "note",
            "update stops a derivative (stop_gradient): the meta-gradient loses that path, not only the learner",
            "remove it; targets, which the learner itself must not differentiate, are computed outside of the function "
            "that it gives to jax.grad (see GradientLearner)",
            place,
        )
    for place in written_places(traced.outer_loss, "stop_gradient"):
        yield Finding(
            "note",
            "the outer loss stops a derivative; differences here hold that value constant, too",
            "nothing to do where it is a baseline or data; differences of your own will not agree with the derivative",
            place,
        )
    for name, closed in (("update", traced.update), ("the outer loss", traced.outer_loss)):
        for place in written_places(closed, "custom_vjp_call", frozenset({"custom_jvp_call"})):
            yield Finding(
                "note",
                f"{name} calls a function with a custom_vjp: its derivative is that of the rule, right or wrong",
                "forward and mixed mode turn linear rules around; for others use ReverseMode",
                place,
            )
        for place in written_places(closed, "while", OPAQUE):
            yield Finding(
                "note",
                f"{name} contains a while loop, which has no reverse derivative",
                "use ForwardMode(), or jax.lax.scan, or fori_loop with constant bounds",
                place,
            )


def _singular(traced: Traced, given: Differentiand, broken: bool) -> Iterator[Finding]:
    """Infinite derivatives that these data meet; where all is well, roots of the optimiser that others may."""
    if not broken:
        for equation in _unguarded_roots(traced.update):
            place = place_of(equation)
            yield Finding(
                "warning",
                "a root in the optimiser has an infinite derivative at 0 (a dead unit, a zero norm); not met here",
                _WRAP,
                place,
            )
        return
    batch = jax.tree.map(lambda leaf: leaf[0], given.window.inner)
    met = met_singularities(traced.update, jax.tree.leaves((given.learned, given.window.state, batch)))
    met += met_singularities(traced.outer_loss, jax.tree.leaves((given.window.state, given.window.last_outer)))
    for one in met:
        yield Finding(
            "error",
            f"{one.operation} was taken where its derivative is infinite{_AT_ZERO if one.in_optimizer else ''}",
            _WRAP if one.in_optimizer else _AWAY,
            one.place,
        )


def _unguarded_roots(closed: ClosedJaxpr) -> list[JaxprEqn]:
    """Square roots within optax to whose argument no positive constant was added, one a source line."""
    found: dict[Any, JaxprEqn] = {}
    made_by: dict[Any, JaxprEqn] = {}
    for equation in equations(closed, opaque=OPAQUE):
        made_by.update(dict.fromkeys(equation.outvars, equation))
        place = place_of(equation)
        if equation.primitive.name != "sqrt" or not place.through.startswith("optax"):
            continue
        source = made_by.get(equation.invars[0])
        if source is not None and source.primitive.name == "add":
            constants = [atom.val for atom in source.invars if isinstance(atom, Literal)]
            if any(float(jnp.min(jnp.asarray(value))) > 0 for value in constants):
                continue
        found.setdefault(place, equation)
    return list(found.values())
