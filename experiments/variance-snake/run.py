"""Trains the agent with every seed, or continues it, measures it at every moment, and writes the results.

horizons.csv    g_k and h_m by themselves: mean, bias against the longest, variance, signal-to-noise, sign, mse
directions.csv  cosines of the mean of every horizon, and of one sample of it, with the mean of the longest
mixes.csv       variance of every mix over that of the unmixed gradient of the same window, raw and free of scale
curves.csv      returns and meta-parameters while the agents were trained

Samples are kept beside each run while they are drawn, with the commits they were drawn at, which provenance.json names:
the same command goes on with them. The seeds can be spread over processes with `--seeds` and `--stage runs`, which
trains and measures.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from sweep import ESTIMATORS, Size, base, size_of

from _study.jobs import GameFlags, Job, chosen, collect, folders, jobs, train
from _study.tables import configurations, provenance, write_study
from gradweave.errors import ConfigError, RunInUse
from gradweave.measurement.sample_store import SampleStore, current_source
from gradweave.reports.tables import learning_curve
from gradweave.runs.locks import lock_folder

STATISTICS = ("mean", "bias", "variance", "snr", "mse", "sign_agreement")


def moments(path: Path, size: Size) -> list[tuple[int, int]]:
    """(moment, step of the checkpoint to measure for it).

    Raises:
        ConfigError: a checkpoint is missing.
    """
    steps = sorted(int(file.stem) for file in (path / "checkpoints").glob("*.safetensors"))
    found = []
    for moment in size.moments:
        later = [step for step in steps if step >= moment]
        if not later:
            raise ConfigError("--runs", path, f"a run with a checkpoint after step {moment}", "train it again")
        found.append((moment, later[0]))
    return found


def store_of(path: Path, step: int, size: Size, source: Mapping[str, Any] | None = None) -> SampleStore:
    settings = {"run": path.name, "step": step, "horizons": size.horizons, "burn_in": size.burn_in}
    return SampleStore(path / "samples" / f"{step:012d}.npz", settings, source=source)


def measure(job: Job, path: Path, size: Size, source: Mapping[str, Any]) -> None:
    """Draw the missing samples of one run, by the code that `source` names, unless another process does."""
    samples = path / "samples"
    samples.mkdir(exist_ok=True)
    try:
        lock = lock_folder(samples)
    except RunInUse as error:
        print(f"{job.name}: not measured here: {error}", file=sys.stderr, flush=True)
        return
    with lock:
        draw(job, path, size, source)


def draw(job: Job, path: Path, size: Size, source: Mapping[str, Any]) -> None:
    import jax

    from gradweave.measurement.sampling import measure_agent
    from gradweave.training.loading import read_agent

    for _, step in moments(path, size):
        store = store_of(path, step, size, source)
        known = store.known()
        if known is not None and len(known) >= size.num_samples:
            continue
        loaded = read_agent(path, step)
        print(f"{job.name}: measuring at step {step:,}", file=sys.stderr, flush=True)
        samples = measure_agent(
            loaded.agent,
            loaded.state,
            key=jax.random.key(10_000 + job.seed),
            num_samples=size.num_samples,
            burn_in_rollouts=size.burn_in,
            horizons=size.horizons,
            known=known,
            keep=store.keep,
        )
        store.keep(samples.contributions, now=True)


def measured(found: Sequence[tuple[Job, Path]], size: Size) -> Iterator[tuple[dict[str, Any], Any, list[Any]]]:
    """(seed, moment, step; samples; their source) of finished measurements; names the others."""
    from gradweave.measurement.sampling import GradientSamples

    for job, path in found:
        for moment, step in moments(path, size):
            store = store_of(path, step, size)
            known = store.known()
            if known is None or len(known) < size.num_samples:
                print(f"{job.name}: step {step:,} is not measured yet", file=sys.stderr, flush=True)
                continue
            names = job.config.learned_names
            samples = GradientSamples(names, known[: size.num_samples])
            yield {"seed": job.seed, "moment": moment, "step": step}, samples, store.sources


def horizon_rows(place: Mapping[str, Any], samples: Any) -> list[dict[str, Any]]:
    from gradweave.measurement.sampling import single_estimates
    from gradweave.measurement.summary import summarize

    last = f"horizon {samples.num_inner_steps}"
    rows = []
    for name, summary in summarize(single_estimates(samples), reference=last, num_resamples=500).items():
        family, _, number = name.partition(" ")
        for statistic in STATISTICS:
            for index, parameter in enumerate(samples.names):
                value, low, high = (float(end[index]) for end in getattr(summary, statistic))
                known = {**place, "family": family, "steps": int(number), "meta_parameter": parameter}
                rows.append({**known, "statistic": statistic, "value": value, "low": low, "high": high})
    return rows


def direction_rows(place: Mapping[str, Any], samples: Any) -> list[dict[str, Any]]:
    """Cosines with the mean of the longest horizon, raw and with each meta-parameter in units of the longest horizon's
    standard deviation: of the mean of every horizon, and of one sample of it.
    """
    from gradweave.measurement.sampling import single_estimates
    from gradweave.measurement.summary import summarize
    from gradweave.statistics.paired import cosine_of_means

    length = samples.num_inner_steps
    spread = samples.horizons[:, -1].std(0, ddof=1)
    rows = []
    for scale, units in (("raw", 1.0), ("standardised", np.where(spread > 0, spread, 1.0))):
        horizons = {name: own / units for name, own in single_estimates(samples).items() if name.startswith("horizon")}
        longest = horizons[f"horizon {length}"]
        of_samples = summarize(horizons, reference=f"horizon {length}", num_resamples=500)
        for steps, (name, own) in enumerate(horizons.items(), start=1):
            found = {"mean": cosine_of_means(own, longest, num_resamples=500), "one sample": of_samples[name].cosine}
            for what, ends in found.items():
                value, low, high = (float(end) for end in ends)
                known = {**place, "steps": steps, "scale": scale, "of": what}
                rows.append({**known, "value": value, "low": low, "high": high})
    return rows


def mix_rows(place: Mapping[str, Any], samples: Any, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Variance ratios to the unmixed gradient of the same window; below 1 the mix is the less noisy.

    "all" sums variances as they are, so that meta-parameters with large gradients weigh most; "all, standardised" takes
    each in units of the unmixed gradient's standard deviation.
    """
    from gradweave.measurement.estimates import first_steps, named_estimates
    from gradweave.statistics.paired import variance_ratio

    rows = []
    for length in lengths:
        estimates = named_estimates(first_steps(samples, length), ESTIMATORS)
        unmixed = estimates["unrolled"]
        spread = unmixed.std(0, ddof=1)
        units = np.where(spread > 0, spread, 1.0)
        for name in ESTIMATORS[1:]:
            ratio = variance_ratio(estimates[name], unmixed, num_resamples=1000)
            scaled = variance_ratio(estimates[name] / units, unmixed / units, num_resamples=1000)
            for scale, totals, leaves in (
                ("raw", (ratio.total, scaled.total), ratio.leaves),
                ("free of scale", (ratio.total_scale_free, scaled.total_scale_free), ratio.leaves_scale_free),
            ):
                columns = [*zip(("all", "all, standardised"), totals, strict=True)]
                columns += zip(samples.names, zip(*leaves, strict=True), strict=True)
                for parameter, ends in columns:
                    value, low, high = (float(end) for end in ends)
                    known = {**place, "length": length, "estimator": name, "meta_parameter": parameter, "scale": scale}
                    rows.append({**known, "ratio": value, "low": low, "high": high})
    return rows


def main(flags: GameFlags) -> None:
    source = current_source()
    size = size_of(flags.size, flags.game)
    runs, results = folders("variance-snake", flags)
    planned = jobs(base(flags.size, flags.game), {"agent": {}}, size.seeds, size.moments[-1], runs)
    train(flags, planned)
    found = collect(planned)
    if flags.stage != "tables":
        wanted = {job.name for job in chosen(flags, planned)}
        for job, path in found.finished:
            if job.name in wanted:
                measure(job, path, size, source)
    if flags.stage == "runs":
        return
    horizons, directions, mixes, drawn_by = [], [], [], []
    for place, samples, sources in measured(found.finished, size):
        drawn_by.append({**place, "sources": sources})
        horizons += horizon_rows(place, samples)
        directions += direction_rows(place, samples)
        mixes += mix_rows(place, samples, size.lengths)
    curves = [
        {"seed": job.seed, **{name: row[name] for name in row if name in ("step", "return") or name.startswith("eta/")}}
        for job, path in found.finished
        for row in learning_curve(path, 60, size.moments[-1])
    ]
    done = sorted({(row["seed"], row["moment"]) for row in horizons})
    everything = [(job.seed, moment) for job in planned for moment in size.moments]
    found.missing.extend(f"seed {seed} at step {moment}" for seed, moment in everything if (seed, moment) not in done)
    tables = {"horizons": horizons, "directions": directions, "mixes": mixes, "curves": curves}
    about = {
        "measurement": size._asdict(),
        "samples": drawn_by,
        "configurations": configurations(planned),
        **provenance(found),
    }
    write_study(results, flags.size, tables, about, source=source)


if __name__ == "__main__":
    main(tyro.cli(GameFlags, description=__doc__))
