"""What a learner's programs and data show without a derivative: what is read, carried along, or given twice."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from gradweave.core.check.program import Traced
from gradweave.core.check.report import Finding
from gradweave.core.jaxprs import passed_through, reads
from gradweave.core.modes.base import Differentiand

__all__ = ["outer_loss_reads_state", "structure_findings"]


def outer_loss_reads_state(traced: Traced, state: PyTree) -> bool:
    """Whether the outer loss is computed from any leaf of the learner's state."""
    return any(reads(traced.outer_loss.jaxpr, [True])[: len(jax.tree.leaves(state))])


def structure_findings(traced: Traced, given: Differentiand, state: PyTree, asked_steps: int) -> Iterator[Finding]:
    """Notes on the window, the state and the batches.

    Args:
        traced: the learner's functions.
        given: what is checked.
        state: as the user gave it.
        asked_steps: the number of updates that were to be checked.
    """
    checked = given.window.num_inner_steps
    if asked_steps > checked:
        yield Finding(
            "note",
            f"{asked_steps} updates were to be checked, but the batches are for {checked}",
            "give a batch for each update, and one more to be judged on; stopped targets show from two updates on",
        )
    yield from _not_carried(traced, len(jax.tree.leaves(given.learned)), state)
    if given.window.outer_batches is None and _all_equal(given.window.batches):
        yield Finding(
            "note",
            "all batches are equal: the outer loss is taken on the data that were learned from",
            "nothing to do where they are not drawn; else give every rollout a key of its own (jax.random.split)",
        )
    yield from _kinds_of_leaves(state)


def _not_carried(traced: Traced, num_learned: int, state: PyTree) -> Iterator[Finding]:
    """Of an optimiser whose state is lost, above all."""
    update, names = traced.update.jaxpr, _names(state)
    read = reads(update, [True] * len(names))[num_learned:]
    sources = passed_through(update)
    places = range(len(names))
    as_given = [names[place] for place in places if sources[place] == num_learned + place]
    unread = [names[place] for place in places if not read[place]]
    if as_given:
        yield Finding(
            "note",
            f"update returns {_listed(as_given)} of the state as given",
            "nothing to do for what stays constant; a new state of the optimiser has to be returned",
        )
    if unread:
        yield Finding(
            "note",
            f"update never reads {_listed(unread)} of the state",
            "nothing to do for what it only reports; an optimiser that update initialises begins anew each time",
        )


def _all_equal(batches: PyTree) -> bool:
    """Whether every entry of batches is the first one."""

    def equal(leaf: Any) -> bool:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        values = np.asarray(jax.random.key_data(jax.random.clone(leaf)) if is_key else leaf)
        return bool((values == values[:1]).all())

    return all(equal(leaf) for leaf in jax.tree.leaves(batches))


def _kinds_of_leaves(state: PyTree) -> Iterator[Finding]:
    leaves = dict(zip(_names(state), jax.tree.leaves(state), strict=True))
    weak = [name for name, leaf in leaves.items() if getattr(jax.typeof(leaf), "weak_type", False)]
    if weak:
        dtype = jnp.result_type(leaves[weak[0]])
        yield Finding(
            "note",
            f"numbers of a weak type in the state ({_listed(weak)}) take the dtype of the first update",
            f"give them a dtype to begin with it, as jnp.asarray(x, jnp.{dtype}) does; Python numbers have none, nor "
            "has jnp.array of one",
        )
    integers = [name for name, leaf in leaves.items() if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    if integers:
        yield Finding(
            "note",
            f"integers in the state ({_listed(integers)}) are carried along and not differentiated",
            "nothing to do for counters",
        )


def _names(state: PyTree) -> list[str]:
    return [jax.tree_util.keystr(path) or "the only leaf" for path, _ in jax.tree_util.tree_leaves_with_path(state)]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
