"""Summary of a run in two sentences."""

from gradweave.reports.figures import RunMetrics

__all__ = ["in_words"]

_MOST_NAMED = 4


def in_words(run: RunMetrics) -> str:
    """Summarise a run: steps, return beside random play's, and changes of the meta-parameters.

    Example:
        >>> rows = [{"step": 10, "return": 1.0, "eta/discount": 0.9}, {"step": 90, "return": 5.5, "eta/discount": 0.97}]
        >>> in_words(RunMetrics("a", rows, random=2.0)).partition("; ")[2]
        'random play gets 2.00. The discount went from 0.9 to 0.97.'
    """
    return f"{run.name}: after {int(run.rows[-1]['step']):,} environment steps {_returns(run)}. {_tuned(run)}"


def _returns(run: RunMetrics) -> str:
    text = "no episode has ended"
    for name, where in (("evaluation/return", "in the last evaluation"), ("return", "in training")):
        steps, values = run.series(name)
        if values:
            start = "at the start" if name == "return" else f"in the first evaluation, at step {steps[0]:,}"
            earlier = f", from {values[0]:.2f} {start}" if len(values) > 1 else ""
            text = f"the return per episode is {values[-1]:.2f} {where}{earlier}"
            break
    return text if run.random is None else f"{text}; random play gets {run.random:.2f}"


def _tuned(run: RunMetrics) -> str:
    if run.plain:
        return "No meta-parameter was learned: this is plain learning."
    moved = []
    for name in sorted({name for row in run.rows for name in row if name.startswith("eta/")}):
        values = run.series(name)[1]
        if values and values[0] != values[-1]:
            words = name.removeprefix("eta/").rstrip("_").replace("_", " ").replace("/", " of the ")
            moved.append(f"{words} went from {values[0]:.3g} to {values[-1]:.3g}")
    if not moved:
        return "No meta-parameter has moved."
    named = moved[:_MOST_NAMED]
    rest = f", and {len(moved) - _MOST_NAMED} more moved" if len(moved) > _MOST_NAMED else ""
    return f"The {', the '.join(named)}{rest}."
