"""Outcomes of a comparison: one for each rival and seed, a table, a paragraph and a figure."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from gradweave.comparison.rivals import RIVALS, best_member, member_scores
from gradweave.files import write_atomically
from gradweave.reports.figures import COLOURS, save_figure, style_axis
from gradweave.reports.tables import write_rows
from gradweave.runs.comparison_folder import ComparisonPlan
from gradweave.statistics.few_seeds import stratified_interval

__all__ = ["outcomes", "summarize", "write_outcome"]

Row = Mapping[str, Any]
_LEAST_SEEDS: Final = 5  # of fewer, no interval is given
_WORDS: Final = {rival.name: rival.words for rival in RIVALS}


def write_outcome(plan: ComparisonPlan, rows: Sequence[Row], path: Path) -> str:
    """Write comparison.csv, outcomes.csv, summary.csv, comparison.md and comparison.png; returns the text of the page.

    Args:
        plan: of the comparison.
        rows: as `conduct` returns them.
        path: the folder to write to.
    """
    found = outcomes(rows, plan.seeds)
    summary = summarize(found)
    write_rows(path / "comparison.csv", rows)
    write_rows(path / "outcomes.csv", found)
    write_rows(path / "summary.csv", summary)
    save_figure(_figure(rows, found), path / "comparison.png")
    text = f"{_words(plan, summary)}\n\n{_table(summary)}\n"
    write_atomically(path / "comparison.md", text)
    return text


def outcomes(rows: Sequence[Row], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Outcomes of each rival with each seed, as a user would have got them.

    Args:
        rows: as `conduct` returns them.
        seeds: that are reported.

    Returns:
        For each rival and seed: `score`, the last evaluation of the member with the highest training return, the last
        that is known of each; `median`, of the last evaluations of all members; `best`, the highest evaluation that
        the chosen member had; `lost`, whether the score is below half of it; `blind`, whether no training return was
        known to choose by; `environment_steps` of all members, and `cost`, the same with those of the search that a
        setting was chosen by. A value is null where none is finite; a member whose own values are not has none.
    """
    found = []
    names = [name for name in dict.fromkeys(row["rival"] for row in rows) if not name.endswith("-search")]
    for name in names:
        searched = [row for row in rows if row["rival"] == f"{name}-search"]
        spent = sum(row["environment_steps"] for row in _last(searched))
        unseen = bool(searched) and not _is_any_known(searched)
        for seed in seeds:
            own = [row for row in rows if row["rival"] == name and row["seed"] == seed]
            last = sorted(_last(own), key=lambda row: row["member"])
            chosen = last[best_member(member_scores(own))]
            curve = [row["evaluation_return"] for row in own if row["member"] == chosen["member"]]
            known = [value for value in curve if value is not None]
            score, best = _evaluation(chosen), max(known, default=None)
            steps = sum(row["environment_steps"] for row in last)
            found.append(
                {
                    "rival": name,
                    "seed": seed,
                    "score": score,
                    "median": _median([_evaluation(row) for row in last]),
                    "best": best,
                    "lost": score is None or (best is not None and score < (best / 2 if best > 0 else 2 * best)),
                    "blind": unseen or (len(last) > 1 and not _is_any_known(own)),
                    "environment_steps": steps,
                    "cost": steps + spent,
                }
            )
    return found


def summarize(found: Sequence[Row]) -> list[dict[str, Any]]:
    """Each rival over its seeds: mean score with a 95 % interval (a bootstrap over seeds; null below five), lowest
    score, mean of the medians, numbers of seeds that were lost, without a score and chosen blindly, steps of a seed
    and their cost.
    """
    summary = []
    for name in dict.fromkeys(row["rival"] for row in found):
        own = [row for row in found if row["rival"] == name]
        scores = [_or_nan(row["score"]) for row in own]
        known = not any(math.isnan(score) for score in scores)
        interval = stratified_interval(np.mean, scores) if known and len(scores) >= _LEAST_SEEDS else None
        medians = [row["median"] for row in own if row["median"] is not None]
        summary.append(
            {
                "rival": name,
                "seeds": len(own),
                "mean": float(np.mean(scores)) if known else None,
                "low": None if interval is None else float(interval.low),
                "high": None if interval is None else float(interval.high),
                "lowest": min(scores) if known else None,
                "median_member": float(np.mean(medians)) if medians else None,
                "lost": sum(bool(row["lost"]) for row in own),
                "unscored": sum(math.isnan(score) for score in scores),
                "blind": sum(bool(row["blind"]) for row in own),
                "environment_steps": round(statistics.fmean(row["environment_steps"] for row in own)),
                "cost": round(statistics.fmean(row["cost"] for row in own)),
            }
        )
    return summary


def _last(rows: Sequence[Row]) -> list[Row]:
    """Those of the last stretch."""
    last = max((row["stretch"] for row in rows), default=0)
    return [row for row in rows if row["stretch"] == last]


def _evaluation(row: Row) -> float | None:
    """None of a network of values that are not finite: it plays some action all the same."""
    return row["evaluation_return"] if row["finite"] else None


def _is_any_known(rows: Sequence[Row]) -> bool:
    return any(row["training_return"] is not None for row in rows)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _words(plan: ComparisonPlan, summary: Sequence[Row]) -> str:
    """The paragraph."""
    environment, steps = plan.config.environment.name, plan.config.run.total_steps
    ranked = sorted((row for row in summary if row["mean"] is not None), key=lambda row: -row["mean"])
    names = ", ".join(name.rstrip("_") for name in plan.ranges)
    planned = f"{_counted(summary)} of {steps:,} planned environment steps for each rival and seed"
    searched = f"{len(plan.seeds)} seeds, searches of {plan.trials} trials over {names}"
    parts = [f"{environment}, {plan.config.learner}: {planned}, {searched}."]
    parts += _counted_words(
        summary, "unscored", "Not ranked, since a run's values or returns stopped being finite: {}."
    )
    if ranked:
        best = ranked[0]
        highest = "The highest mean return" if len(ranked) == len(summary) else "Of the others the highest mean return"
        parts.append(f"{highest} is that of {best['rival']} ({_WORDS[best['rival']]}): {best['mean']:.2f}.")
        parts += [_beside(row, best) for row in ranked[1:]]
    costly = [row for row in summary if row["cost"] > row["environment_steps"]]
    parts += [f"The setting of {row['rival']} cost {row['cost']:,} steps to find and use." for row in costly]
    blind = "Chosen without a training return, since no episode had ended: {}. Take more steps or fewer trials."
    parts += _counted_words(summary, "blind", blind)
    lost = "Runs that ended below half of their own best evaluation: {}."
    parts += _counted_words(summary, "lost", lost) or [lost.format("none")]
    return " ".join(parts)


def _counted_words(summary: Sequence[Row], what: str, sentence: str) -> list[str]:
    """A sentence with the rivals of which some seeds are counted under `what`; empty where there are none."""
    found = [f"{row['rival']} {row[what]} of {row['seeds']}" for row in summary if row[what]]
    return [sentence.format(", ".join(found))] if found else []


def _counted(summary: Sequence[Row]) -> str:
    """The environment steps of a seed that environments counted, from the rival with the fewest to that with most."""
    counted = [row["environment_steps"] for row in summary]
    least, most = min(counted), max(counted)
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"


def _beside(row: Row, best: Row) -> str:
    """A rival beside the best one; whether the intervals tell them apart."""
    apart = ""
    if row["high"] is not None and best["low"] is not None:
        apart = " (intervals apart)" if row["high"] < best["low"] else " (intervals overlap)"
    return f"{row['rival']} has {row['mean']:.2f}{apart}."


def _table(summary: Sequence[Row]) -> str:
    """The summary as a Markdown table."""
    lines = [
        "| rival | mean | 95 % | lowest | median member | lost | steps | cost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in summary:
        interval = "-" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
        numbers = [_shown(row[name]) for name in ("mean", "lowest", "median_member")]
        cells = [row["rival"], numbers[0], interval, numbers[1], numbers[2], f"{row['lost']} of {row['seeds']}"]
        lines.append("| " + " | ".join([*cells, f"{row['environment_steps']:,}", f"{row['cost']:,}"]) + " |")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _figure(rows: Sequence[Row], found: Sequence[Row]) -> Figure:
    """Evaluations of the member in front against the steps of all members, mean over seeds and their range."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(dict.fromkeys(row["rival"] for row in found)):
        own = [row for row in rows if row["rival"] == name]
        seeds, stretches = sorted({row["seed"] for row in own}), sorted({row["stretch"] for row in own})
        values = np.array([[_in_front(own, seed, stretch) for stretch in stretches] for seed in seeds])
        of_seed = [row for row in own if row["seed"] == seeds[0]]
        steps = [sum(row["environment_steps"] for row in of_seed if row["stretch"] == s) for s in stretches]
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(steps, values.mean(0), color=colour, label=name)
        axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
    style_axis(axes, "evaluation return")
    figure.legend(frameon=False, loc="outside right upper")
    return figure


def _in_front(rows: Sequence[Row], seed: int, stretch: int) -> float:
    until = [row for row in rows if row["seed"] == seed and row["stretch"] <= stretch]
    here = sorted((row for row in until if row["stretch"] == stretch), key=lambda row: row["member"])
    return _or_nan(_evaluation(here[best_member(member_scores(until))]))
