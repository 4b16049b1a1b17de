"""`gradweave measure RUN`: bias, variance and signal-to-noise of the meta-gradient of a trained agent, by estimator."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

from gradweave.analysis.estimator_names import parse_estimator, parse_reference
from gradweave.training.config import Config
from gradweave.training.errors import ConfigError
from gradweave.training.loading import check_run

if TYPE_CHECKING:  # imports JAX, which bad flags must not wait for
    from gradweave.agents import SelfTuning, SelfTuningState
    from gradweave.analysis.bootstrap import FloatArray
    from gradweave.analysis.measure import GradientSamples

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
    estimators: tuple[str, ...] = ()
    """Which to compare: unrolled, truncated:M, horizon:K, horizon-mix:W, window-mix:W (W: uniform, or the ratio of
    geometric weights), adaptive-mix; by default a selection. Variances are compared with the first one's."""
    reference: str = "longest"
    """What bias, cosine, error and sign are judged by: the longest horizon, or unroll:K, a longer one of K updates."""
    batch_sizes: tuple[int, ...] = ()
    """Measure with batches of so many environments too, each with as many samples."""
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
    length = config.meta.num_inner_steps if flags.horizons is None else flags.horizons
    for name in flags.estimators:
        parse_estimator(name, length)
    asked = _Asked(
        num_samples=config.run.measure_samples if flags.samples is None else flags.samples,
        length=length,
        reference=parse_reference(flags.reference, length),
        output=flags.run / "measure" if flags.output is None else flags.output,
    )
    _measure(flags, asked)
    return 0


class _Asked(NamedTuple):
    """What the flags and the run's configuration come to."""

    num_samples: int
    length: int
    """Updates in the windows of the estimators."""
    reference: int
    """Updates in the windows that are sampled, after which the reference is judged."""
    output: Path


def _measure(flags: _Flags, asked: _Asked) -> None:

    from gradweave.agents import named_leaves
    from gradweave.analysis.batch_sizes import batch_size_rows, write_batch_sizes
    from gradweave.analysis.estimates import compare
    from gradweave.analysis.measure import with_num_envs
    from gradweave.analysis.measurement import format_table, write_measurement
    from gradweave.training.loading import read_agent
    from gradweave.training.runtime import describe_devices, enable_compilation_cache

    enable_compilation_cache()
    loaded = read_agent(flags.run, flags.step, _say)
    start = time.monotonic()
    samples = _sampled(flags, asked, loaded.agent, loaded.state, loaded.step)
    summaries, single = compare(samples, asked.length, flags.estimators, seed=flags.seed)
    details = {
        "run": flags.run.resolve().name,
        "step": loaded.step,
        "eta": {name: float(value) for name, value in named_leaves(loaded.agent.eta(loaded.state.raw)).items()},
        "meta_parameters": list(samples.names),
        "reference": f"horizon {asked.reference}",
        "num_envs": loaded.agent.environment.num_envs,
        "burn_in_rollouts": flags.burn_in,
        "seed": flags.seed,
        "confidence": 0.95,
        "seconds": round(time.monotonic() - start, 1),
        **describe_devices(),
    }
    files = write_measurement(asked.output, samples, summaries, single, details, length=asked.length)
    print(
        f"{asked.num_samples} samples of windows of {asked.length} updates at step {loaded.step:,}; 95 % intervals; "
        f"reference: horizon {asked.reference}\n"
    )
    print(format_table(samples.names, summaries))
    rows = []
    for num_envs in flags.batch_sizes:
        _say(f"batches of {num_envs} environments")
        sized = _sampled(flags, asked, *with_num_envs(loaded.agent, loaded.state, num_envs), loaded.step)
        found, _ = compare(sized, asked.length, flags.estimators, seed=flags.seed)
        rows += batch_size_rows(num_envs, sized.names, found)
    if rows:
        files += write_batch_sizes(asked.output, rows)
    print("\n" + "\n".join(str(file) for file in files))
    for path in asked.output.glob(_UNFINISHED.format("*")):
        path.unlink()


_UNFINISHED = "unfinished-{}-environments.npz"


def _sampled(
    flags: _Flags, asked: _Asked, agent: "SelfTuning", state: "SelfTuningState", step: int
) -> "GradientSamples":
    """The samples, of which those of an interrupted call are not drawn again."""
    import jax

    from gradweave.analysis.measure import measure_agent
    from gradweave.analysis.partial import SampleStore

    num_envs = agent.environment.num_envs
    settings = {
        "run": flags.run.resolve().name,
        "step": step,
        "horizons": asked.reference,
        "burn_in": flags.burn_in,
        "seed": flags.seed,
        "num_envs": num_envs,
    }
    store = SampleStore(asked.output / _UNFINISHED.format(num_envs), settings)
    known = store.known()
    if known is not None:
        _say(f"going on with {len(known)} samples of an unfinished measurement")
    newest = known

    def keep(samples: "FloatArray") -> None:
        nonlocal newest
        newest = samples
        store.keep(samples)

    try:
        samples = measure_agent(
            agent,
            state,
            key=jax.random.key(flags.seed),
            num_samples=asked.num_samples,
            burn_in_rollouts=flags.burn_in,
            horizons=asked.reference,
            progress=_Progress(),
            known=known,
            keep=keep,
        )
    except KeyboardInterrupt:
        if newest is not None:
            store.keep(newest, now=True)
            _say(f"{len(newest)} samples are kept; the same command goes on with them")
        raise
    store.keep(samples.contributions, now=True)
    return samples


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
    for size in flags.batch_sizes:
        if size < 1:
            remedy = "leave --batch-sizes out for the size of training alone"
            raise ConfigError("--batch-sizes", size, "whole numbers of at least 1", remedy)
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
