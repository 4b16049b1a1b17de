"""`gradweave measure RUN`: bias, variance and signal-to-noise of the meta-gradient of a trained agent, by estimator."""

import dataclasses
import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

from gradweave.analysis.estimator_names import parse_estimator, parse_reference
from gradweave.training.config import Config
from gradweave.training.errors import ConfigError
from gradweave.training.loading import check_run
from gradweave.training.run_folder import run_name

if TYPE_CHECKING:  # imports JAX, which bad flags must not wait for
    from gradweave.agents import SelfTuning, SelfTuningState
    from gradweave.analysis.bootstrap import FloatArray
    from gradweave.analysis.measure import GradientSamples
    from gradweave.analysis.partial import SampleStore
    from gradweave.training.loading import LoadedAgent

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
    num_samples = config.run.measure_samples if flags.samples is None else flags.samples
    _check_estimators(flags.estimators, length, num_samples)
    asked = _Asked(
        num_samples=num_samples,
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
    from gradweave.analysis.measurement import format_table, write_measurement
    from gradweave.analysis.partial import current_source
    from gradweave.training.loading import read_agent
    from gradweave.training.runtime import describe_devices, enable_compilation_cache

    enable_compilation_cache()
    source = current_source()
    loaded = read_agent(flags.run, flags.step, _say)
    trained_with = loaded.agent.environment.num_envs
    stores = _stores(flags, asked, loaded, source)
    sources = [*(earlier for store in stores.values() for earlier in store.sources), source]
    start = time.monotonic()
    samples = _sampled(flags, asked, loaded.agent, loaded.state, stores[trained_with])
    summaries, single = compare(samples, asked.length, flags.estimators, seed=flags.seed)
    details = {
        "run": run_name(flags.run),
        "step": loaded.step,
        "eta": {name: float(value) for name, value in named_leaves(loaded.agent.eta(loaded.state.raw)).items()},
        "meta_parameters": list(samples.names),
        "reference": f"horizon {asked.reference}",
        "num_envs": trained_with,
        "burn_in_rollouts": flags.burn_in,
        "seed": flags.seed,
        "confidence": 0.95,
        "seconds": round(time.monotonic() - start, 1),
        "sources": [one for index, one in enumerate(sources) if one not in sources[:index]],
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
        sized = _sampled(flags, asked, *_resized(loaded, num_envs), stores[num_envs])
        found, _ = compare(sized, asked.length, flags.estimators, seed=flags.seed)
        rows += batch_size_rows(num_envs, sized.names, found)
    if rows:
        files += write_batch_sizes(asked.output, rows)
    print("\n" + "\n".join(str(file) for file in files))
    for path in asked.output.glob(_UNFINISHED.format("*")):
        path.unlink()


_UNFINISHED = "unfinished-{}-environments.npz"


def _stores(flags: _Flags, asked: _Asked, loaded: "LoadedAgent", source: Mapping[str, Any]) -> dict[int, "SampleStore"]:
    """Where the samples of each size of batches are kept while they are drawn.

    Raises:
        ConfigError: what an interrupted call left there are not samples of this checkpoint, drawn in this way.
    """
    from gradweave.analysis.partial import SampleStore
    from gradweave.training.checkpoints import checkpoint_path

    content = checkpoint_path(flags.run / "checkpoints", loaded.step).read_bytes()
    settings = {
        "run": run_name(flags.run),
        "step": loaded.step,
        "checkpoint": hashlib.sha256(content).hexdigest()[:16],
        "horizons": asked.reference,
        "burn_in": flags.burn_in,
        "seed": flags.seed,
    }
    found = {}
    for num_envs in (loaded.agent.environment.num_envs, *flags.batch_sizes):
        path = asked.output / _UNFINISHED.format(num_envs)
        found[num_envs] = SampleStore(path, {**settings, "num_envs": num_envs}, source=source)
        found[num_envs].known()
    return found


def _resized(loaded: "LoadedAgent", num_envs: int) -> tuple["SelfTuning", "SelfTuningState"]:
    """The agent with batches of so many environments, split into parts as it would be in training."""
    from gradweave.analysis.measure import with_num_envs
    from gradweave.training.build import build_agent

    inner = dataclasses.replace(loaded.config.inner, num_envs=num_envs)
    problem = build_agent(dataclasses.replace(loaded.config, inner=inner)).problem
    return with_num_envs(loaded.agent, loaded.state, num_envs, problem=problem)


def _sampled(
    flags: _Flags, asked: _Asked, agent: "SelfTuning", state: "SelfTuningState", store: "SampleStore"
) -> "GradientSamples":
    """The samples, of which those of an interrupted call are not drawn again."""
    import jax

    from gradweave.analysis.measure import measure_agent

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


def _check_estimators(names: Sequence[str], length: int, num_samples: int) -> None:
    for name in names:
        family = parse_estimator(name, length).family
        if family.startswith("adaptive-mix") and num_samples < 4:  # weights of one half, of two or more, for the other
            raise ConfigError("--samples", num_samples, f"at least 4 with {name}", "--samples 128, say")


def _check_learned(config: Config) -> None:
    if not config.meta.learned:
        raise ConfigError(
            "RUN", "a run that learned no meta-parameter", "a run with --meta.learned", "train one, and measure that"
        )
