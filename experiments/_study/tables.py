"""Tables of a study: aggregates over seeds with intervals, provenance of the runs, and the mark of its size.

Every CSV has a column `size`, so that a figure drawn from it alone can name it.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from _study.jobs import MARKS, Collected, Job
from gradweave.config.schema import Config
from gradweave.config.toml_file import config_to_dict
from gradweave.errors import ConfigError
from gradweave.files import write_atomically
from gradweave.measurement.sample_store import current_source
from gradweave.reports.sweep_scores import late_return
from gradweave.reports.tables import metrics_until, write_rows
from gradweave.runs.provenance import collect_provenance, is_modified, processes
from gradweave.statistics.few_seeds import interquartile_mean, probability_of_improvement, stratified_interval

__all__ = [
    "aggregate",
    "configurations",
    "improvements",
    "machine",
    "provenance",
    "save_figure",
    "setting_rows",
    "write_study",
]

_MIN_SEEDS = 3
"""Of either arm, for the interval of a comparison: with two, a nominal 95 % is one to two thirds."""
_OWN = ("seed", "runs_dir", "total_steps")  # of RunConfig: fields that differ between the runs of one arm


def aggregate(scores: Sequence[float]) -> dict[str, float | int | None]:
    """Interquartile mean over seeds with its 95 % bootstrap interval; no interval of a single seed, nothing of none."""
    found: dict[str, float | int | None] = {"num_seeds": len(scores), "iqm": None, "low": None, "high": None}
    if len(scores) > 1:
        found |= zip(("iqm", "low", "high"), map(float, stratified_interval(interquartile_mean, scores)), strict=True)
    elif scores:
        found["iqm"] = float(scores[0])
    return found


def improvements(scores: Mapping[str, Sequence[float]], references: Sequence[str]) -> list[dict[str, Any]]:
    """Probability that a run of each arm beats one of each reference, with its 95 % bootstrap interval.

    There is no interval where either arm has fewer than three seeds, nor where it would have no width, as when all runs
    of one arm beat all of the other: resampling knows no other seeds, and that is not certainty.

    Args:
        scores: final scores by arm, one for each seed; arms with fewer than two are left out.
        references: arms to compare with.
    """
    rows = []
    for reference in references:
        for arm, own in scores.items():
            if arm != reference and min(len(own), len(scores.get(reference, ()))) > 1:
                probability, low, high = _improvement(own, scores[reference])
                rows.append({"arm": arm, "reference": reference, "probability": probability, "low": low, "high": high})
    return rows


def _improvement(own: Sequence[float], others: Sequence[float]) -> tuple[float, float | None, float | None]:
    """(probability, low, high); the ends are None where they would say more than is known."""
    probability, low, high = map(float, stratified_interval(probability_of_improvement, own, others))
    known = min(len(own), len(others)) >= _MIN_SEEDS and low < high
    return (probability, low, high) if known else (probability, None, None)


def machine(argv: Sequence[str] = ()) -> dict[str, Any]:
    """Commit, versions and device of this very process; imports JAX."""
    from gradweave.training.runtime import describe_devices

    return _compact({**collect_provenance(Config(), argv), **describe_devices()})


def provenance(collected: Collected) -> dict[str, Any]:
    """Provenance of the runs: commit and start of each, versions and devices once, and missing runs.

    A run that was gone on with elsewhere, or at another commit, says so under `continued`, in order.
    """
    environments: list[dict[str, Any]] = []
    runs = {}
    for job, path in collected.finished:
        first, *later = _origins(path, environments)
        runs[job.name] = {"seed": job.seed, **first, **({"continued": later} if later else {})}
    return {"runs": runs, "environments": environments, "missing": collected.missing}


def configurations(all_jobs: Iterable[Job]) -> dict[str, Any]:
    """The first arm's whole configuration, and the differences of each other arm; seeds and steps apart."""
    plain: dict[str, dict[str, Any]] = {}
    steps: dict[str, int] = {}
    for job in all_jobs:
        sections = config_to_dict(job.config)
        flat = _flat({name: part for name, part in sections.items() if name != "preset"})
        plain.setdefault(job.arm, {key: entry for key, entry in flat.items() if key.removeprefix("run.") not in _OWN})
        steps[job.arm] = job.config.run.total_steps
    base = next(iter(plain.values()))
    arms = {
        arm: {name: own.get(name) for name in {**base, **own} if own.get(name) != base.get(name)}
        for arm, own in plain.items()
    }
    return {"base": base, "arms": arms, "total_steps": steps}


def _flat(sections: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with names joined by dots."""
    flat: dict[str, Any] = {}
    for name, part in sections.items():
        flat |= _flat(part, f"{prefix}{name}.") if isinstance(part, Mapping) else {prefix + name: part}
    return flat


def write_study(
    results: Path,
    size: str,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    about: Mapping[str, Any],
    source: Mapping[str, Any] | None = None,
) -> None:
    """Write NAME.csv for each table that has rows, each row with its size, and provenance.json; remove the others.

    Figures are drawn from the first table: without it there is nothing to write.

    Args:
        results: where to; made if needed.
        size: of the study.
        tables: rows by name.
        about: provenance of the runs; anything JSON can hold.
        source: the code that made the tables, whose commit need not be that of any run; from `current_source` at the
            start of the command, or as it is now.

    Raises:
        ConfigError: the first table is empty, because nothing has been finished yet.
    """
    if not next(iter(tables.values()), ()):
        raise ConfigError("--stage", "tables", "runs of which at least one is finished", "start it with --stage all")
    results.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        path = results / f"{name}.csv"
        if rows:
            write_rows(path, [{"size": size, **row} for row in rows])
        else:
            path.unlink(missing_ok=True)  # of runs that are no longer there
    described = {"size": size, **({"mark": MARKS[size]} if MARKS[size] else {}), **about}
    described["tables"] = dict(current_source() if source is None else source)
    write_atomically(results / "provenance.json", json.dumps(described, indent=1, default=_listed) + "\n")
    print(f"tables: {results}")


def setting_rows(finished: Iterable[tuple[Job, Path]]) -> list[dict[str, Any]]:
    """Runs of a sweep: setting, seed, training return over the last quarter, and the environment steps taken."""
    rows = []
    for job, path in finished:
        until = job.config.run.total_steps
        steps = metrics_until(path, until)[-1]["step"]
        score = late_return(path, until)
        rows.append({"setting": job.arm, "seed": job.seed, "score": score, "environment_steps": steps})
    return rows


def save_figure(figure: Figure | None, path: Path, rows: Sequence[Mapping[str, str]], title: str = "") -> None:
    """Save a figure; another size than the full study is marked in its title.

    Args:
        figure: with a constrained layout; None: there is nothing to show, and an older figure is removed.
        path: of the PNG file.
        rows: of the CSV it was drawn from, for its size.
        title: above everything.
    """
    if figure is None:
        path.unlink(missing_ok=True)
        return
    mark = MARKS.get(rows[0]["size"], rows[0]["size"])
    text = "\n".join(part for part in (title, f"[{mark}]" if mark else "") if part)
    if text:
        figure.suptitle(text, fontsize=10, color="#b00000" if mark else "black")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    path.write_bytes(buffer.getvalue())
    print(f"figure: {path}")


def _origins(path: Path, environments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Commit, start and index of the environment of a run's processes, without those that differ in none of them from
    the one before; new environments are appended.
    """
    origins: list[dict[str, Any]] = []
    before: tuple[Any, ...] = ()
    for process in processes(json.loads((path / "provenance.json").read_text(encoding="utf-8"))):
        found = _compact(process)
        names = ("from_step", "started", "commit", "modified")
        own: dict[str, Any] = {name: found.pop(name) for name in names if name in found}
        if found not in environments:
            environments.append(found)
        if (process.get("source"), found) != before:
            origins.append({**own, "environment": environments.index(found)})
        before = process.get("source"), found
    return origins


def _compact(found: Mapping[str, Any]) -> dict[str, Any]:
    """A process's provenance without its command line, run, seed, free memory and the text of uncommitted changes."""
    left_out = ("argv", "run_id", "seed", "source", "memory_forecast")
    kept = {name: entry for name, entry in found.items() if name not in left_out}
    # A cache or a path of the machine at hand says nothing about the results.
    kept["flags"] = {name: value for name, value in kept.get("flags", {}).items() if "CACHE" not in name}
    source = found.get("source") or {}
    return {**kept, "commit": source.get("commit"), "modified": is_modified(source)}


def _listed(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
