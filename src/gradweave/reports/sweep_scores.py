"""Scores of a sweep: every run's, the best setting, and the cost of all."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradweave.reports.tables import metrics_until

__all__ = ["best_setting", "format_sweep", "late_return", "return_until", "sweep_rows", "whole_settings"]


def late_return(run: Path, until: int) -> float:
    """The mean training return over the last quarter of a run's steps, -inf if no episode ended in it.

    Args:
        run: the run's folder.
        until: environment steps to end at.
    """
    return _late_return(metrics_until(run, until), until)


def return_until(lines: Sequence[Mapping[str, Any]], until: int) -> float:
    """`late_return` of a run as if it had ended after `until` steps.

    Args:
        lines: rows of metrics, in order.
        until: environment steps to end at.
    """
    return _late_return([line for line in lines if line["step"] <= until], until)


def sweep_rows(
    runs: Mapping[tuple[str, int], Path],
    until: int,
    *,
    finished: Collection[Path],
    diverged: Collection[Path],
    pruned: Collection[Path] = (),
) -> list[dict[str, Any]]:
    """One row for each run: setting, seed, outcome, score and the environment steps that it took.

    Args:
        runs: the folder of each, by setting and seed.
        until: environment steps of a run that count; of a longer one only these count.
        finished: the runs that have a score, `late_return`; None where no episode ended.
        diverged: those that met a value that is not finite.
        pruned: those that were given up early; they have no score, and their steps count like others.
    """
    outcomes = [("pruned", pruned), ("finished", finished), ("diverged", diverged)]
    rows = []
    for (setting, seed), run in runs.items():
        lines = metrics_until(run, until)
        outcome = next((name for name, own in outcomes if run in own), "unfinished")
        score = _late_return(lines, until) if outcome == "finished" else -np.inf
        rows.append(
            {
                "setting": setting,
                "seed": seed,
                "outcome": outcome,
                "score": score if np.isfinite(score) else None,
                "environment_steps": lines[-1]["step"] if lines else 0,
            }
        )
    return rows


def whole_settings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings whose every run has a score: only these can be compared."""
    lacking = {row["setting"] for row in rows if row["score"] is None}
    return [setting for setting in dict.fromkeys(row["setting"] for row in rows) if setting not in lacking]


def best_setting(rows: Sequence[Mapping[str, Any]]) -> str:
    """The setting of the highest mean score over its seeds; the first of several.

    Args:
        rows: with `setting` and `score`, not empty; all settings should have the same seeds, and every row a score.
    """
    scores = _scores(rows)
    return max(scores, key=lambda setting: float(np.mean(scores[setting])))


def format_sweep(rows: Sequence[Mapping[str, Any]]) -> str:
    """The sweep as a table in plain text, the best first; settings without all scores come last, without a mean."""
    compared = whole_settings(rows)
    scores = _scores([row for row in rows if row["setting"] in compared])
    whole = {setting: float(np.mean(own)) for setting, own in scores.items()}
    rest = [setting for setting in dict.fromkeys(row["setting"] for row in rows) if setting not in whole]
    width = max(len(name) for name in (*whole, *rest, "setting"))
    lines = [f"{'setting':<{width}}  {'mean':>8}  score of each seed"]
    for name in (*sorted(whole, key=whole.__getitem__, reverse=True), *rest):
        mean = f"{whole[name]:.2f}" if name in whole else "-"
        cells = [_cell(row) for row in rows if row["setting"] == name]
        lines.append(f"{name:<{width}}  {mean:>8}  {', '.join(cells)}")
    return "\n".join(lines)


def _late_return(lines: Sequence[Mapping[str, Any]], until: int) -> float:
    late = [
        line
        for line in lines
        if line["step"] > 0.75 * until and line.get("num_episodes") and line.get("return") is not None
    ]
    weights = [line["num_episodes"] for line in late]
    return float(np.average([line["return"] for line in late], weights=weights)) if late else -np.inf


def _scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row["setting"], []).append(row["score"])
    return scores


def _cell(row: Mapping[str, Any]) -> str:
    if row["score"] is not None:
        return f"{row['score']:.2f}"
    return "no episodes" if row["outcome"] == "finished" else str(row["outcome"])
