"""What a sweep came to: the score of every run, the best setting, and what all of it cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradweave.analysis.tables import metrics_until

__all__ = ["best_setting", "format_sweep", "late_return", "sweep_rows"]


def late_return(run: Path, until: int) -> float:
    """The mean training return over the last quarter of a run's steps, -inf if no episode ended in it.

    Args:
        run: the run's folder.
        until: environment steps to end at.
    """
    lines = [line for line in metrics_until(run, until) if line["step"] > 0.75 * until and line["num_episodes"]]
    weights = [line["num_episodes"] for line in lines]
    return float(np.average([line["return"] for line in lines], weights=weights)) if lines else -np.inf


def sweep_rows(runs: Mapping[tuple[str, int], Path], until: int) -> list[dict[str, Any]]:
    """One row for each finished run: its setting, seed, score (`late_return`) and environment steps.

    Args:
        runs: the folder of each, by setting and seed.
        until: environment steps of each run.
    """
    return [
        {
            "setting": setting,
            "seed": seed,
            "score": late_return(run, until),
            "environment_steps": metrics_until(run, until)[-1]["step"],
        }
        for (setting, seed), run in runs.items()
    ]


def best_setting(rows: Sequence[Mapping[str, Any]]) -> str:
    """The setting of the highest mean score over its seeds; the first of several.

    Args:
        rows: of `sweep_rows`, not empty; all settings should have the same seeds.
    """
    scores = _scores(rows)
    return max(scores, key=lambda setting: float(np.mean(scores[setting])))


def format_sweep(rows: Sequence[Mapping[str, Any]], num_seeds: int) -> str:
    """The sweep as a table in plain text, the best first; settings that lack seeds come last, without a mean."""
    scores = _scores(rows)
    means = {name: float(np.mean(own)) if len(own) == num_seeds else -np.inf for name, own in scores.items()}
    whole = {name: len(own) == num_seeds for name, own in scores.items()}
    order = sorted(scores, key=lambda name: (whole[name], means[name]), reverse=True)
    width = max(map(len, [*order, "setting"]))
    lines = [f"{'setting':<{width}}  {'mean':>8}  score of each seed"]
    for name in order:
        mean = _number(means[name]) if whole[name] else "-"
        lines.append(f"{name:<{width}}  {mean:>8}  {' '.join(map(_number, scores[name]))}")
    return "\n".join(lines)


def _scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row["setting"], []).append(row["score"])
    return scores


def _number(score: float) -> str:
    return f"{score:.2f}" if np.isfinite(score) else "no episodes"
