"""`check_learner`: is the meta-gradient of this learner to be trusted, and if not, why not?"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from gradweave.core.check.costs import cost_of
from gradweave.core.check.findings import find_breaks, leaf_findings
from gradweave.core.check.program import Traced, Values, compiled_values, in_float64, trace_learner
from gradweave.core.check.report import Finding, LeafReport, LearnerReport, ModeReport
from gradweave.core.jaxprs import OPAQUE, contains, evaluate, reads
from gradweave.core.learner import GradientLearner
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
    whether it agrees with a central difference in float64. For every mode: whether it applies, and what it costs. And
    each line of the learner that has an infinite derivative on these data, stops one, or limits the choice of the mode.

    Takes seconds: one small program is compiled. Call it once before a long run, outside of `jax.jit`.

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
        A report; `print` it. `report.ok` says whether there was no error.

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
    window = _first_steps(checked_window(state, batches, outer_batches, None), num_inner_steps)
    differentiand, _ = differentiate_learned(problem, raw, spec, window)
    plain = trace_learner(problem, differentiand.to_eta, differentiand.learned, differentiand.window)
    measured, precision, outer_loss, limits = _measure(problem, differentiand, plain)
    is_read = _reads(plain, differentiand)
    leaves = tuple(
        _leaf_report(name, *values, read, tolerance) for (name, values), read in zip(measured, is_read, strict=True)
    )
    findings = [*limits, *leaf_findings(leaves), *find_breaks(plain, differentiand, leaves, state)]
    order = {"error": 0, "warning": 1, "note": 2}
    return LearnerReport(
        leaves,
        _modes(problem, plain, differentiand),
        tuple(sorted(findings, key=lambda finding: order[finding.severity])),
        outer_loss,
        differentiand.window.num_inner_steps,
        precision,
        time.monotonic() - start,
    )


def _first_steps(window: Window, num_steps: int) -> Window:
    length = max(1, min(num_steps, window.num_inner_steps))
    entries = length + (window.outer_batches is None)
    batches = jax.tree.map(lambda leaf: leaf[:entries], window.batches)
    outer = jax.tree.map(lambda leaf: leaf[:length], window.outer_batches)
    return window._replace(batches=batches, outer_batches=outer)


def _measure(
    problem: MetaProblemLike, given: Differentiand, plain: Traced
) -> tuple[list[tuple[str, tuple[float, float]]], str, float, list[Finding]]:
    """((name, (derivative, difference)) of each leaf, the precision, the outer loss, what could not be done)."""
    try:
        with jax.enable_x64(True):
            exact = given._replace(
                learned=in_float64(given.learned), window=Window(*in_float64(tuple(given.window)[:3]))
            )
            traced = trace_learner(problem, exact.to_eta, exact.learned, exact.window)
            return *_along_leaves(traced, exact, "float64"), []
    except (TypeError, ValueError) as error:
        note = Finding(
            "warning",
            f"the learner does not run in float64 ({str(error).splitlines()[0][:120]}), so that differences are coarse",
            "leave dtypes to the inputs: x.dtype in the place of jnp.float32",
        )
        return *_along_leaves(plain, given, "float32"), [note]


def _along_leaves(
    traced: Traced, given: Differentiand, precision: str
) -> tuple[list[tuple[str, tuple[float, float]]], str, float]:
    values = compiled_values(traced, given.learned, given.window)
    leaves, structure = jax.tree.flatten(given.learned)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(given.learned)]
    # The second is for a kink closer than the first: with hundreds of ReLU units there often is one.
    steps = (1e-5, 1e-6) if precision == "float64" else (1e-2,)
    generator = np.random.default_rng(0)

    def at(moved: list[Any], direction: list[Any], stopped: list[Array] | None) -> Values:
        return values(jax.tree.unflatten(structure, moved), jax.tree.unflatten(structure, direction), stopped)

    found, outer_loss = [], float("nan")
    for place, path in enumerate(paths):
        direction = [jnp.zeros_like(leaf) for leaf in leaves]
        size = leaves[place].shape
        along = generator.standard_normal(size) if size else np.ones(())
        direction[place] = jnp.asarray(along, leaves[place].dtype)
        here = at(leaves, direction, None)
        outer_loss = float(here.outer_loss)

        def moved(distance: float, direction: list[Any] = direction) -> list[Any]:
            return [leaf + distance * change for leaf, change in zip(leaves, direction, strict=True)]

        quotients = []
        for step in steps:
            ahead, behind = (float(at(moved(d), direction, here.stopped).outer_loss) for d in (step, -step))
            quotients.append((ahead - behind) / (2 * step))
        name = jax.tree_util.keystr(path) or "(the only one)"
        derivative = float(here.derivative) if bool(here.is_finite) else float("nan")
        found.append((name, (derivative, min(quotients, key=lambda quotient: abs(quotient - derivative)))))
    return found, precision, outer_loss


def _leaf_report(name: str, derivative: float, difference: float, is_read: bool, tolerance: float) -> LeafReport:
    size = max(abs(derivative), abs(difference))
    agrees = bool(np.isfinite(derivative) and abs(derivative - difference) <= tolerance * size + 1e-10)
    verdict = "good"
    if not np.isfinite(derivative):
        verdict = "not finite"
    elif not is_read:
        verdict = "never read"
    elif derivative == 0 and not agrees:
        verdict = "stopped"
    elif not agrees:
        verdict = "disagrees"
    elif derivative == 0:
        verdict = "zero"
    return LeafReport(name, derivative, difference, is_read, agrees, verdict)


def _reads(traced: Traced, given: Differentiand) -> list[bool]:
    jaxpr = traced.update.jaxpr
    return reads(jaxpr, [True] * len(jaxpr.outvars))[: len(jax.tree.leaves(given.learned))]


def _modes(problem: MetaProblemLike, traced: Traced, given: Differentiand) -> tuple[ModeReport, ...]:
    """Arithmetic by counting one update with and without its derivative; memory by what each mode keeps."""
    learned, window = given.learned, given.window
    length, num_learned = window.num_inner_steps, sum(leaf.size for leaf in jax.tree.leaves(learned))
    inputs = [*jax.tree.leaves(learned), *jax.tree.leaves(window.state)]
    batch = [leaf[0] for leaf in jax.tree.leaves(window.inner)]
    live = [place for place, leaf in enumerate(inputs) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(window.state))

    def update(*moving: Any) -> list[Any]:
        merged = list(inputs)
        for place, value in zip(live, moving, strict=True):
            merged[place] = value
        outputs = evaluate(traced.update, {}, [*merged, *batch])
        return [out for out in outputs if jnp.issubdtype(out.dtype, jnp.inexact)]

    moving = [inputs[place] for place in live]
    plain = cost_of(traced.update)
    loop = any(contains(one, "while", opaque=OPAQUE) for one in traced)
    reverse, kept = float("nan"), float("nan")
    if not loop:
        both = cost_of(jax.make_jaxpr(lambda *m: jax.vjp(update, *m)[1](update(*m)))(*moving))
        reverse = max(both.flops - plain.flops, 0) / max(plain.flops, 1)  # an update may compute nothing
        residuals = jax.eval_shape(lambda *m: jax.vjp(update, *m)[1], *moving)
        kept = float(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(residuals)))
    backwards = "a while loop has no reverse derivative" if loop else ""
    parts = "" if isinstance(problem, GradientLearner) else "needs a GradientLearner"
    return (
        ModeReport("ReverseMode()", backwards, reverse, length * kept),
        ModeReport('ReverseMode("step")', backwards, reverse + 1, length * state_bytes + kept),
        ModeReport("ForwardMode()", "", 1 + 2.0 * num_learned, num_learned * float(state_bytes)),
        ModeReport("MixedMode()", backwards or parts, reverse, 2.0 * length * state_bytes),
    )
