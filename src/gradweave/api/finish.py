"""Results made after training: a GIF of the agent at play, the measured meta-gradient, a report and a summary."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradweave.config.estimators import parse_estimator
from gradweave.config.schema import Config
from gradweave.errors import command_line
from gradweave.files import write_atomically
from gradweave.runs.metrics import format_row, read_metrics
from gradweave.runs.run_folder import EVALUATION_FILE, RunFolder

if TYPE_CHECKING:  # imports JAX
    from gradweave.training.loop import Summary

__all__ = ["finish"]

Say = Callable[[str], object]


def finish(folder: RunFolder, summary: "Summary", say: Say) -> str:
    """Write evaluation.json; unless `run.finish` says none also agent.gif, measurement.json (where something was
    learned) and the report.

    Args:
        folder: the run's, still locked.
        summary: the result of training.
        say: shows a progress message.

    Returns:
        The findings, in words.
    """
    config, lines = folder.config, [_returns(summary)]
    write_atomically(folder.path / EVALUATION_FILE, format_row(_evaluation(summary)) + "\n")
    places = {"checkpoints": folder.checkpoints}
    if config.run.finish == "all":
        places = _drawn(folder, summary, say) | places
        if config.meta.learned and config.run.measure_samples:
            lines += _measured(folder.path, config, summary, say)
        from gradweave.reports.report import write_report

        places["report"] = write_report([folder.path], folder.path)
    lines += ["", *(f"{name + ':':<13} {place}" for name, place in places.items())]
    again = command_line("resume", folder.path, "--total-steps", config.twice_as_long)
    lines += [f"{'go on with:':<13} {again}"]
    return "\n".join(lines)


def _drawn(folder: RunFolder, summary: "Summary", say: Say) -> dict[str, Path]:
    """An episode as agent.gif, and where figures will be."""
    import jax

    from gradweave.reports.episode import save_episode

    say("drawing an episode ...")
    key = jax.random.key(folder.config.run.seed)
    path = folder.path / "agent.gif"
    animation = save_episode(path, summary.agent, summary.state, folder.config, key=key).path
    return {"animation": animation, "figures": folder.figures}


def _evaluation(summary: "Summary") -> dict[str, Any]:
    """Mean returns of the last evaluation, for reports."""
    kinds = {"return": summary.sampled, "greedy_return": summary.greedy, "random_return": summary.random}
    means = {name: float(played.returns.mean()) for name, played in kinds.items()}
    return {"step": summary.environment_steps, "num_episodes": len(summary.sampled.returns), **means}


def _returns(summary: "Summary") -> str:
    sampled, greedy, random = (
        f"{float(played.returns.mean()):.2f}" for played in (summary.sampled, summary.greedy, summary.random)
    )
    episodes = len(summary.sampled.returns)
    return (
        f"after {summary.environment_steps:,} environment steps the agent's mean return over {episodes} episodes is "
        f"{sampled} (greedy {greedy}); with random allowed actions it is {random}"
    )


def _measured(path: Path, config: Config, summary: "Summary", say: Say) -> list[str]:
    """The variance of the run's estimator against the unmixed gradient of the same windows."""
    import jax

    from gradweave.core import Unrolled
    from gradweave.measurement.sampling import episode_rollouts, estimator_samples, measure_agent
    from gradweave.measurement.verdict import sampled_verdict
    from gradweave.statistics.bootstrap import LEAST_SAMPLES, without_intervals
    from gradweave.statistics.paired import variance_ratio

    estimator: Any = summary.agent.estimator
    row = parse_estimator(config.meta.estimator, config.meta.num_inner_steps).row
    if not row.linear or row.name == "unrolled":
        return []
    if summary.agent.sampling_correction is not None:
        say("its meta-gradient is not measured: samples would leave the sampling correction out")
        return []
    count = config.run.measure_samples
    rows = read_metrics(path / "metrics.jsonl")
    burn_in = episode_rollouts(rows, config.inner.num_steps, summary.environment_steps)
    say(f"measuring the meta-gradient: {count} samples, each {burn_in} to {2 * burn_in} rollouts later ...")

    def progress(done: int, total: int) -> None:
        if done % 32 == 0:
            say(f"{done} of {total} samples")

    samples = measure_agent(
        summary.agent,
        summary.state,
        key=jax.random.key(config.run.seed),
        num_samples=count,
        burn_in_rollouts=burn_in,
        progress=progress,
    )
    drawn = estimator_samples(samples, {"own": estimator, "unrolled": Unrolled()})
    ratio = variance_ratio(drawn["own"], drawn["unrolled"])
    few = count < LEAST_SAMPLES
    ratio = without_intervals(ratio) if few else ratio
    words = sampled_verdict(estimator, config.meta.num_inner_steps, samples)
    found = {
        "samples": count,
        "burn_in_rollouts": burn_in,
        "estimator": config.meta.estimator,
        "meta_parameters": list(samples.names),
        **{
            name: {part: getattr(estimate, part) for part in ("value", "low", "high")}
            for name, estimate in ratio._asdict().items()
        },
        "verdict": words._asdict() if words else None,
    }
    write_atomically(path / "measurement.json", format_row(found) + "\n")
    length = samples.num_inner_steps
    return [
        f"variance of the {config.meta.estimator} meta-gradient / variance of the unmixed {length}-step one, {count} "
        f"samples each, {f'no intervals from fewer than {LEAST_SAMPLES}' if few else '95 % intervals'}:",
        f"  raw {_interval(ratio.total)}",
        f"  free of scale (variance over squared mean) {_interval(ratio.total_scale_free)}",
        *([words.text(shutil.get_terminal_size((0, 0)).columns)] if words else []),
    ]


def _interval(estimate: Any) -> str:
    value, low, high = (float(end) for end in estimate)
    if math.isnan(low) and math.isnan(high):
        return f"{value:.2f}"
    open_ended = "" if math.isfinite(high) else ": so few samples do not tell a mean from zero"
    return f"{value:.2f} ({low:.2f} to {high:.2f}){open_ended}"
