"""Summary of several seeds of one configuration: each one's numbers, their interquartile mean and its interval."""

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradweave.config.toml_file import read_config
from gradweave.errors import DamagedFile
from gradweave.files import write_atomically
from gradweave.runs.metrics import read_metrics
from gradweave.runs.seeds_folder import SUMMARY_FILE
from gradweave.statistics.few_seeds import interquartile_mean, stratified_interval

__all__ = ["format_summary", "summarize_seeds", "write_summary"]

_RETURNS = {"return": "evaluation/return", "greedy_return": "evaluation/greedy_return"}


def summarize_seeds(runs: Mapping[int, Path]) -> dict[str, Any]:
    """The final returns, sampled and greedy, and learned meta-parameters of finished runs.

    Args:
        runs: the folder of each seed's run; not empty. Runs that differ in more than their seed should not be summed
            up like this.

    Returns:
        As JSON can hold it: `seeds`, `environment_steps` of each, and for `return`, `greedy_return` and `eta/NAME` each
        the `values`, one a seed, their `interquartile_mean`, and `low` and `high` of its 95 % interval, a stratified
        bootstrap over seeds. The interval is null for a single seed; the mean too where a value is missing.

    Raises:
        DamagedFile: the metrics of a run are damaged, or not there.
    """
    last = {seed: _last_row(path) for seed, path in runs.items()}
    learned = read_config(next(iter(runs.values())) / "config.toml").moving_names
    names = {**_RETURNS, **{f"eta/{name}": f"eta/{name}" for name in learned}}
    return {
        "seeds": list(runs),
        "environment_steps": [row["step"] for row in last.values()],
        **{name: _aggregate([row.get(source) for row in last.values()]) for name, source in names.items()},
    }


def write_summary(path: Path, seeds: Sequence[int], finished: Mapping[int, Path]) -> dict[str, Any]:
    """Write summary.json into the folder of several seeds.

    Args:
        path: the folder.
        seeds: all of them.
        finished: the folders of those that have finished; not empty.

    Returns:
        The summary of `summarize_seeds`, and the seeds that are `unfinished`.
    """
    summary = summarize_seeds(finished)
    summary["unfinished"] = [seed for seed in seeds if seed not in finished]
    write_atomically(path / SUMMARY_FILE, json.dumps(summary, indent=1) + "\n")
    return summary


def format_summary(summary: Mapping[str, Any]) -> str:
    """The summary as a table in plain text: a line for each seed, then the interquartile mean and its interval."""
    names = [name for name, entry in summary.items() if isinstance(entry, Mapping) and "values" in entry]
    lines = [["seed", "steps", *(name.removeprefix("eta/").replace("_", " ").strip() for name in names)]]
    for index, seed in enumerate(summary["seeds"]):
        values = (_number(summary[name]["values"][index], name) for name in names)
        lines.append([str(seed), f"{summary['environment_steps'][index]:,}", *values])
    for label, part in (("IQM", "interquartile_mean"), ("95 % from", "low"), ("to", "high")):
        lines.append([label, "", *(_number(summary[name][part], name) for name in names)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _last_row(path: Path) -> dict[str, Any]:
    file = path / "metrics.jsonl"
    rows = deque(read_metrics(file), maxlen=1)
    if not rows:
        remedy = (
            f"put it back from where the run is whole, or take seed {path.name.removeprefix('seed-')} out of seeds.json"
        )
        raise DamagedFile(file, "has no row, though the run has finished", remedy)
    return rows[0]


def _aggregate(values: Sequence[float | None]) -> dict[str, Any]:
    found: dict[str, Any] = {"values": list(values), "interquartile_mean": None, "low": None, "high": None}
    known = [value for value in values if value is not None and math.isfinite(value)]
    if len(known) < len(values):
        return found
    found["interquartile_mean"] = float(interquartile_mean(known))
    if len(known) > 1:
        interval = stratified_interval(interquartile_mean, known)
        found |= {"low": float(interval.low), "high": float(interval.high)}
    return found


def _number(value: float | None, name: str) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if name.startswith("eta/") else f"{value:.2f}"
