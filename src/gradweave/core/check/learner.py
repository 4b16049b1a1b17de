"""`check_learner`: is the meta-gradient of this learner to be trusted, and if not, why not?"""

import contextlib
import time
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree

from gradweave.core.check.findings import find_breaks, leaf_findings
from gradweave.core.check.program import Traced, Values, compiled_values, in_float64, on_host, trace_learner
from gradweave.core.check.report import Finding, LeafReport, LearnerReport
from gradweave.core.check.structure import outer_loss_reads_state, structure_findings
from gradweave.core.check.ways import mode_reports, num_bytes
from gradweave.core.jaxprs import Cut, chooses, reads
from gradweave.core.meta_gradient import checked_window, differentiate_learned
from gradweave.core.modes.base import Differentiand
from gradweave.core.problem import MetaProblemLike, Window

__all__ = ["check_learner"]


def check_learner(
    problem: MetaProblemLike,
    raw: PyTree,
    spec: PyTree,
    state: PyTree,
    batches: PyTree,
    outer_batches: PyTree | None = None,
    *,
    num_inner_steps: int = 2,
    tolerance: float = 1e-3,
) -> LearnerReport:
    """Differentiate a learner on recorded data, compare with differences, and name everything that breaks it.

    For every learned leaf: whether `update` reads it, whether its derivative is finite, zero or stopped on the way, and
    whether it agrees with a central difference in float64. For every mode: whether it applies, and its costs. And
    each line of the learner that has an infinite derivative on these data, stops one, or limits the choice of the mode.

    One program is compiled, also within `jax.disable_jit()`, with little effort, and run three or five times for each
    learned leaf, in float64: seconds where networks are dense, minutes for convolutions on a CPU. There a few rows of
    each batch serve. Call it once before a long run, outside of `jax.jit`.

    Args:
        problem: the learner, as for `meta_gradient`.
        raw: unconstrained meta-parameters.
        spec: their bijectors.
        state: the learner's state.
        batches: leading axis at least 2, or 1 with `outer_batches`; as for `meta_gradient`.
        outer_batches: as for `meta_gradient`.
        num_inner_steps: updates that are differentiated, at most the window's. One is not enough to notice a stopped
            derivative of targets.
        tolerance: relative disagreement of derivative and difference that is accepted.

    Returns:
        A report; `print` it. `report.ok` says whether there was no error. A learned leaf that moves nothing on these
        data is one: give data on which it counts, or declare it as `Fixed`.

    Raises: as `meta_gradient`, for functions that do not keep their contract.

    Example:
        >>> import jax.numpy as jnp
        >>> import gradweave as gw
        >>> problem = gw.MetaProblem(
        ...     update=lambda x, eta, target: (x - eta["rate"] * (x - target), None),
        ...     outer_loss=lambda x, target: (0.5 * (x - target) ** 2, None),
        ... )
        >>> spec = {"rate": gw.Positive(), "forgotten": gw.Positive()}
        >>> raw = gw.unconstrain({"rate": 0.1, "forgotten": 1.0}, spec)
        >>> report = gw.check_learner(problem, raw, spec, jnp.array(1.0), jnp.zeros(3))
        >>> report.ok
        False
        >>> {leaf.name: leaf.verdict for leaf in report.leaves}
        {"['forgotten']": 'never read', "['rate']": 'good'}
    """
    start = time.monotonic()
    with jax.disable_jit(False):  # a program is compiled and read
        window = _first_steps(checked_window(state, batches, outer_batches, None), num_inner_steps)
        given, _ = differentiate_learned(problem, raw, spec, window)
        given = given._replace(learned=on_host(given.learned), window=Window(*on_host(tuple(given.window)[:3])))
        traced, exact, limits = _traced(problem, given)
        precision = "float32" if limits else "float64"
        with jax.enable_x64(True) if not limits else contextlib.nullcontext():
            measured, outer_loss = _along_leaves(traced, exact, precision, tolerance)
            leaves = tuple(
                _leaf_report(name, *values, is_read=read, tolerance=tolerance)
                for (name, values), read in zip(measured, _reads(traced, exact), strict=True)
            )
            findings = [*limits, *_derivative_findings(traced, exact, leaves)]
            modes = mode_reports(problem, traced, exact, num_bytes(given.window.state))
        findings += structure_findings(traced, given, state, num_inner_steps)
        order = {"error": 0, "warning": 1, "note": 2}
        return LearnerReport(
            leaves,
            modes,
            tuple(sorted(findings, key=lambda finding: order[finding.severity])),
            outer_loss,
            given.window.num_inner_steps,
            precision,
            time.monotonic() - start,
        )


def _first_steps(window: Window, num_steps: int) -> Window:
    """Cut short on the host: a slice on a device is a program of its own for every shape."""
    length = max(1, min(num_steps, window.num_inner_steps))
    entries = length + (window.outer_batches is None)
    batches = jax.tree.map(lambda leaf: leaf[:entries], on_host(window.batches))
    outer = jax.tree.map(lambda leaf: leaf[:length], on_host(window.outer_batches))
    return window._replace(batches=batches, outer_batches=outer)


def _traced(problem: MetaProblemLike, given: Differentiand) -> tuple[Traced, Differentiand, list[Finding]]:
    """(the learner in float64 if it runs in it, the arguments of the trace, findings)."""
    try:
        with jax.enable_x64(True):
            window = Window(*in_float64(tuple(given.window)[:3]))
            exact = given._replace(learned=in_float64(given.learned), window=window)
            traced = trace_learner(problem, exact.to_eta, exact.learned, exact.window)
        pairs = zip(traced.update.out_avals, jax.tree.leaves(exact.window.state), strict=True)
        if changed := [f"{new.dtype} for {old.dtype}" for new, old in pairs if new.dtype != old.dtype]:
            raise TypeError(f"update returns {changed[0]}")
        return traced, exact, []
    except (TypeError, ValueError) as error:
        note = Finding(
            "warning",
            f"the learner does not run in float64 ({str(error).splitlines()[0][:120]}), so that differences are coarse",
            "leave dtypes to the inputs: x.dtype in the place of jnp.float32",
        )
        return trace_learner(problem, given.to_eta, given.learned, given.window), given, [note]


def _along_leaves(
    traced: Traced, given: Differentiand, precision: str, tolerance: float
) -> tuple[list[tuple[str, tuple[float, float, float]]], float]:
    """((name, (natural value, derivative, difference)) of each leaf, the outer loss)."""
    values = compiled_values(traced, given.learned, given.window)
    leaves, structure = jax.tree.flatten(given.learned)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(given.learned)]
    natural = dict(jax.tree_util.tree_leaves_with_path(given.to_eta(given.learned)))
    # The second is for a kink closer than the first: with hundreds of ReLU units there often is one.
    steps = (1e-5, 1e-6) if precision == "float64" else (1e-2,)
    generator = np.random.default_rng(0)

    def at(moved: list[Any], direction: list[Any], stopped: list[Array] | None) -> Values:
        return values(jax.tree.unflatten(structure, moved), jax.tree.unflatten(structure, direction), stopped)

    found, outer_loss = [], float("nan") if leaves else float(at([], [], None).outer_loss)
    for place, path in enumerate(paths):
        direction = [np.zeros_like(leaf) for leaf in leaves]
        size = leaves[place].shape
        along = generator.standard_normal(size) if size else np.ones(())
        direction[place] = np.asarray(along, leaves[place].dtype)
        here = at(leaves, direction, None)
        outer_loss = float(here.outer_loss)

        def moved(distance: float, direction: list[Any] = direction) -> list[Any]:
            pairs = zip(leaves, direction, strict=True)
            return [leaf + np.asarray(distance, leaf.dtype) * change for leaf, change in pairs]

        name = jax.tree_util.keystr(path) or "(the only one)"
        derivative = float(here.derivative) if bool(here.is_finite) else float("nan")
        quotients: list[float] = []
        for step in steps:
            ahead, behind = (float(at(moved(d), direction, here.stopped).outer_loss) for d in (step, -step))
            quotients.append((ahead - behind) / (2 * step))
            if not np.isfinite(derivative) or _agree(derivative, quotients[-1], tolerance):
                break  # a second one would say the same
        difference = min(quotients, key=lambda quotient: abs(quotient - derivative))
        found.append((name, (float(np.mean(natural[path])), derivative, difference)))
    return found, outer_loss


def _derivative_findings(traced: Traced, given: Differentiand, leaves: tuple[LeafReport, ...]) -> list[Finding]:
    pairs = zip(leaves, _reads(traced, given, chooses), strict=True)
    only_compared = {leaf.name for leaf, moves in pairs if leaf.is_read and not moves}
    reads_state = outer_loss_reads_state(traced, given.window.state)
    return [*leaf_findings(leaves, only_compared, reads_state), *find_breaks(traced, given, leaves)]


def _agree(derivative: float, difference: float, tolerance: float) -> bool:
    size = max(abs(derivative), abs(difference))
    return bool(np.isfinite(derivative) and abs(derivative - difference) <= tolerance * size + 1e-10)


def _leaf_report(
    name: str, value: float, derivative: float, difference: float, *, is_read: bool, tolerance: float
) -> LeafReport:
    agrees = _agree(derivative, difference, tolerance)
    verdict = "good"
    if not is_read:
        verdict = "never read"
    elif not np.isfinite(derivative):
        verdict = "not finite"
    elif derivative == 0 and not agrees:
        verdict = "stopped"
    elif not agrees:
        verdict = "disagrees"
    elif derivative == 0:
        verdict = "zero"
    return LeafReport(name, derivative, difference, is_read, agrees, value, verdict)


def _reads(traced: Traced, given: Differentiand, cut: Cut | None = None) -> list[bool]:
    jaxpr = traced.update.jaxpr
    return reads(jaxpr, [True] * len(jaxpr.outvars), cut=cut)[: len(jax.tree.leaves(given.learned))]
