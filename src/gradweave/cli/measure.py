"""`gradweave measure RUN`: bias, variance and signal-to-noise of the meta-gradient of a trained agent, by estimator."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gradweave.training.config import Config
from gradweave.training.errors import ConfigError
from gradweave.training.loading import check_run

__all__ = ["run"]


@dataclass(frozen=True)
class _Flags:
    """The flags of `gradweave measure`."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    samples: int | None = None
    """Independent windows; by default the run's `measure_samples`."""
    burn_in: int = 20
    """Rollouts between the checkpoint and each window, so that the windows' environments do not resemble each other."""
    horizons: int | None = None
    """Inner updates in one window (L), which may be more than in training; by default as in training."""
    output: Path | None = None
    """Folder to write to; by default `measure` in the run's own."""
    seed: int = 0
    """Seed of the measurement."""
    step: int | None = None
    """Environment steps of the checkpoint to measure; by default the newest."""


def run(argv: Sequence[str]) -> int:
    """Measure, print the table and write the files; returns the exit code."""
    flags = tyro.cli(
        _Flags,
        prog="gradweave measure",
        description="Sample the meta-gradient of a trained agent and compare estimators on the same samples.",
        args=list(argv) or ["--help"],
    )
    _check_numbers(flags)
    config = check_run(flags.run, flags.step)
    _check_learned(config)
    samples = config.run.measure_samples if flags.samples is None else flags.samples
    output = flags.run / "measure" if flags.output is None else flags.output
    _measure(flags, samples, output)
    return 0


def _measure(flags: _Flags, num_samples: int, output: Path) -> None:
    import jax

    from gradweave.agents import named_leaves
    from gradweave.analysis.measure import default_estimators, estimator_samples, measure_agent, single_estimates
    from gradweave.analysis.measurement import format_table, write_measurement
    from gradweave.analysis.summary import summarize
    from gradweave.training.loading import read_agent
    from gradweave.training.runtime import describe_devices, enable_compilation_cache

    enable_compilation_cache()
    loaded = read_agent(flags.run, flags.step, _say)
    start = time.monotonic()
    samples = measure_agent(
        loaded.agent,
        loaded.state,
        key=jax.random.key(flags.seed),
        num_samples=num_samples,
        burn_in_rollouts=flags.burn_in,
        horizons=flags.horizons,
        progress=_Progress(),
    )
    estimators = default_estimators(samples.num_inner_steps)
    summaries = summarize(estimator_samples(samples, estimators), seed=flags.seed)
    last = f"horizon {samples.num_inner_steps}"
    single = summarize(single_estimates(samples), reference=last, seed=flags.seed)
    eta = named_leaves(loaded.agent.eta(loaded.state.raw))
    details = {
        "run": flags.run.resolve().name,
        "step": loaded.step,
        "eta": {name: float(value) for name, value in eta.items()},
        "meta_parameters": list(samples.names),
        "burn_in_rollouts": flags.burn_in,
        "seed": flags.seed,
        "confidence": 0.95,
        "seconds": round(time.monotonic() - start, 1),
        **describe_devices(),
    }
    files = write_measurement(output, samples, summaries, single, details)
    length = samples.num_inner_steps
    print(f"{num_samples} samples of windows of {length} updates at step {loaded.step:,}; 95 % intervals\n")
    print(format_table(samples.names, summaries))
    print("\n" + "\n".join(str(file) for file in files))


class _Progress:
    """A line on standard error now and then: how many samples are done, and how long the rest will take."""

    def __init__(self) -> None:
        self._start: float | None = None
        self._first = 0
        self._shown = time.monotonic()
        _say("compiling ...")

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._start is None:  # the first chunk includes compiling
            self._start, self._first = now, done
        if done == total or now - self._shown > 3:
            left = (now - self._start) / max(1, done - self._first) * (total - done)
            known = done > self._first and done < total
            _say(f"{done} of {total} samples" + (f", {left:.0f} s left" if known else ""))
            self._shown = now


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _check_numbers(flags: _Flags) -> None:
    lowest = {"samples": 2, "burn_in": 0, "horizons": 1, "seed": 0, "step": 0}
    for name, least in lowest.items():
        value = getattr(flags, name)
        if value is not None and value < least:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(
                flag, value, f"a whole number of at least {least}", f"leave {flag} out for the usual value"
            )


def _check_learned(config: Config) -> None:
    if not config.meta.learned:
        raise ConfigError(
            "RUN", "a run that learned no meta-parameter", "a run with --meta.learned", "train one, and measure that"
        )
