"""`gradweave measure RUN`: bias, variance and signal-to-noise of the meta-gradient of a trained agent, by estimator."""

import dataclasses
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NamedTuple

import tyro

from gradweave.config.estimators import measurable_estimator, parse_reference
from gradweave.config.schema import Config
from gradweave.errors import CheckpointError, ConfigError, Stopped
from gradweave.files import open_regular, real_folder
from gradweave.machine.signals import interruptible
from gradweave.runs.locks import lock_folder
from gradweave.runs.metrics import read_metrics
from gradweave.runs.run_folder import checkpoint_steps, run_name
from gradweave.training.loading import check_run

if TYPE_CHECKING:  # imports JAX, which bad flags must not wait for
    from gradweave.agents import SelfTuning, SelfTuningState
    from gradweave.measurement.sample_store import SampleStore
    from gradweave.measurement.sampling import GradientSamples
    from gradweave.statistics.bootstrap import FloatArray
    from gradweave.training.loading import LoadedAgent

__all__ = ["run"]


@dataclass(frozen=True)
class _Flags:
    """The flags of `gradweave measure`."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    samples: int | None = None
    """Independent windows; by default the run's `measure_samples`."""
    burn_in: int | None = None
    """Rollouts between the checkpoint and each window, up to twice as many, so that the windows' environments do not
    resemble each other; by default what an episode took lately, from 20 to 100."""
    horizons: int | None = None
    """Inner updates in one window (L), which may be more than in training; by default as in training."""
    output: Path | None = None
    """Folder to write to; by default `measure` in the run's own."""
    estimators: tuple[str, ...] = ()
    """Which to compare, named as for train: unrolled, truncated:M, horizon:K, horizon-mix[:WEIGHTS],
    truncation-mix[:WEIGHTS], adaptive-mix[:CRITERION]; by default a selection. Variances are compared with the first
    one's."""
    reference: str = "longest"
    """The reference of bias, cosine, error and sign: the longest horizon, or unroll:K, a longer one of K updates."""
    batch_sizes: tuple[int, ...] = ()
    """Other numbers of environments in a batch to measure with, each with as many samples."""
    seed: int = 0
    """Seed of the measurement."""
    step: int | None = None
    """Environment steps of the checkpoint to measure; by default that of an unfinished measurement, or the newest."""


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
    _check_measurable(config)
    length = config.meta.num_inner_steps if flags.horizons is None else flags.horizons
    num_samples = config.run.measure_samples if flags.samples is None else flags.samples
    _check_estimators(flags.estimators, length, num_samples)
    asked = _Asked(
        num_samples=num_samples,
        length=length,
        reference=parse_reference(flags.reference, length),
        output=flags.run / "measure" if flags.output is None else flags.output,
        num_envs=tuple(dict.fromkeys((config.inner.num_envs, *flags.batch_sizes))),
    )
    if flags.output is None and os.path.lexists(asked.output):
        real_folder(asked.output)
    with _claimed(asked.output):
        _measure(flags, asked)
    return 0


class _Asked(NamedTuple):
    """What the flags and the run's configuration come to."""

    num_samples: int
    length: int
    """Updates in the windows of the estimators."""
    reference: int
    """Updates in the windows that are sampled, after which the reference takes the outer loss."""
    output: Path
    num_envs: tuple[int, ...]
    """Environments in a batch: as in training, then the other sizes."""
    burn_in: int = 0
    """Rollouts before each window at least, once the checkpoint is known."""


def _measure(flags: _Flags, asked: _Asked) -> None:
    """Everything that needs JAX.

    The measurement with batches as in training is written as soon as it is there, and once more with the other sizes,
    so that the files in the folder belong together when the command is stopped in between.
    """
    from gradweave.agents import named_leaves
    from gradweave.measurement.batch_sizes import batch_size_rows, remove_batch_sizes, write_batch_sizes
    from gradweave.measurement.estimates import compare
    from gradweave.measurement.output import format_table, write_measurement
    from gradweave.measurement.sample_store import current_source
    from gradweave.training.runtime import describe_devices, enable_compilation_cache

    enable_compilation_cache()
    source = current_source()
    loaded = _loaded(flags, asked)
    asked = asked._replace(burn_in=_burn_in(flags, loaded))
    stores = _stores(flags, asked, loaded, source)
    sources = [*(earlier for store in stores.values() for earlier in store.sources), source]
    start = time.monotonic()
    samples = _sampled(flags, asked, loaded.agent, loaded.state, stores[asked.num_envs[0]])
    summaries, single = compare(samples, asked.length, flags.estimators, seed=flags.seed)
    details = {
        "run": run_name(flags.run),
        "step": loaded.step,
        "eta": {name: float(value) for name, value in named_leaves(loaded.agent.eta(loaded.state.raw)).items()},
        "meta_parameters": list(samples.names),
        "reference": f"horizon {asked.reference}",
        "num_envs": asked.num_envs[0],
        "burn_in_rollouts": asked.burn_in,
        "seed": flags.seed,
        "confidence": 0.95,
        "sources": [one for index, one in enumerate(sources) if one not in sources[:index]],
        **describe_devices(),
    }

    def write(batch_sizes: Sequence[int]) -> list[Path]:
        now = {**details, "batch_sizes": list(batch_sizes), "seconds": round(time.monotonic() - start, 1)}
        remove_batch_sizes(asked.output)
        return write_measurement(asked.output, samples, summaries, single, now, length=asked.length)

    files = write(())
    print(
        f"{asked.num_samples} samples of windows of {asked.length} updates at step {loaded.step:,}; 95 % intervals; "
        f"reference: horizon {asked.reference}\n"
    )
    print(format_table(samples.names, summaries))
    rows = []
    batch_sizes = tuple(dict.fromkeys(flags.batch_sizes))
    for num_envs in batch_sizes:
        sized = samples
        if num_envs != asked.num_envs[0]:
            _say(f"batches of {num_envs} environments")
            sized = _sampled(flags, asked, *_resized(loaded, num_envs), stores[num_envs])
        found, _ = compare(sized, asked.length, flags.estimators, seed=flags.seed)
        rows += batch_size_rows(num_envs, sized.names, found)
    if rows:
        files = [*write(batch_sizes), *write_batch_sizes(asked.output, rows)]
    print("\n" + "\n".join(str(file) for file in files))
    for store in stores.values():
        if store.num_kept > asked.num_samples:
            _say(
                f"{store.num_kept} samples are kept in {store.path}: --samples {store.num_kept} measures with all of "
                "them; delete it if they are not wanted"
            )
        else:
            store.remove()


def _claimed(output: Path) -> BinaryIO:
    """An open file that keeps other measurements out of the folder, which is there and can be written in.

    It is not the lock of the run, which a process that trains may hold.

    Raises:
        ConfigError: the folder cannot be made, written in, or locked.
        RunInUse: another process measures into it.
    """
    remedy = "choose another --output"
    try:
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
    except OSError as error:
        accepted = f"a folder to write in ({error.strerror})"
        raise ConfigError("--output", str(output), accepted, remedy) from None
    try:
        return lock_folder(output)
    except ConfigError as error:
        raise ConfigError("--output", str(output), error.accepted, remedy) from None


_UNFINISHED = "unfinished-{}-environments.npz"


def _loaded(flags: _Flags, asked: _Asked) -> "LoadedAgent":
    """The agent at the checkpoint that is asked for: without --step that of an unfinished measurement, if there is one.

    Raises:
        ConfigError: what an interrupted call left there are no samples.
        CheckpointError: there is no such checkpoint any more, or it is damaged.
    """
    from gradweave.measurement.sample_store import SampleStore
    from gradweave.training.loading import read_agent

    if flags.step is not None:
        return read_agent(flags.run, flags.step, _say)
    for num_envs in asked.num_envs:
        path = asked.output / _UNFINISHED.format(num_envs)
        settings = SampleStore(path, {}).kept_settings()
        if settings is None or settings.get("run") != run_name(flags.run):  # which `_stores` refuses
            continue
        step, newest = settings["step"], max(checkpoint_steps(flags.run), default=None)
        if step != newest:
            _say(f"{path} was begun at step {step}: measuring that, not step {newest}; delete it to begin again")
        try:
            return read_agent(flags.run, step, _say)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {path} was begun at that step: delete {path} to measure another") from None
    return read_agent(flags.run, None, _say)


def _burn_in(flags: _Flags, loaded: "LoadedAgent") -> int:
    """What was asked for, or an episode."""
    from gradweave.measurement.sampling import MOST_BURN_IN, episode_rollouts

    if flags.burn_in is not None:
        return flags.burn_in
    rows = read_metrics(flags.run / "metrics.jsonl")
    found = episode_rollouts(rows, loaded.config.inner.num_steps, loaded.step)
    capped = "; episodes are longer, give a greater number for independent samples" if found == MOST_BURN_IN else ""
    _say(f"{found} to {2 * found} rollouts before each window (--burn-in {found}{capped})")
    return found


def _stores(flags: _Flags, asked: _Asked, loaded: "LoadedAgent", source: Mapping[str, Any]) -> dict[int, "SampleStore"]:
    """Where the samples of each size of batches are kept while they are drawn.

    Raises:
        ConfigError: what an interrupted call left there are not samples of this checkpoint, drawn in this way.
        CheckpointError: the checkpoint is no longer there.
    """
    from gradweave.measurement.sample_store import SampleStore
    from gradweave.runs.checkpoints import checkpoint_path

    checkpoint = checkpoint_path(flags.run / "checkpoints", loaded.step)
    try:
        with open_regular(checkpoint) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:  # a run in training deletes its older ones
        raise CheckpointError(
            f"{checkpoint} was there a moment ago and cannot be read now ({error.strerror}); repeat the command for a "
            "newer one"
        ) from None
    settings = {
        "run": run_name(flags.run),
        "step": loaded.step,
        "checkpoint": digest[:16],
        "horizons": asked.reference,
        "burn_in_at_least": asked.burn_in,
        "seed": flags.seed,
    }
    found = {}
    for num_envs in asked.num_envs:
        path = asked.output / _UNFINISHED.format(num_envs)
        found[num_envs] = SampleStore(path, {**settings, "num_envs": num_envs}, source=source)
        found[num_envs].known()
    return found


def _resized(loaded: "LoadedAgent", num_envs: int) -> tuple["SelfTuning", "SelfTuningState"]:
    """The agent with batches of `num_envs` environments, split into parts as it would be in training."""
    from gradweave.measurement.sampling import with_num_envs
    from gradweave.training.build import build_agent

    inner = dataclasses.replace(loaded.config.inner, num_envs=num_envs)
    problem = build_agent(dataclasses.replace(loaded.config, inner=inner)).problem
    return with_num_envs(loaded.agent, loaded.state, num_envs, problem=problem)


def _sampled(
    flags: _Flags, asked: _Asked, agent: "SelfTuning", state: "SelfTuningState", store: "SampleStore"
) -> "GradientSamples":
    """The samples, of which those of an interrupted call are not drawn again."""
    import jax

    from gradweave.measurement.sampling import measure_agent

    known = store.known()
    if known is not None:
        _say(f"going on with {len(known)} samples of an unfinished measurement")
    newest = known

    def keep(samples: "FloatArray") -> None:
        nonlocal newest
        newest = samples
        store.keep(samples)

    try:
        with interruptible():
            samples = measure_agent(
                agent,
                state,
                key=jax.random.key(flags.seed),
                num_samples=asked.num_samples,
                burn_in_rollouts=asked.burn_in,
                horizons=asked.reference,
                progress=_Progress(),
                known=known,
                keep=keep,
            )
    except (KeyboardInterrupt, Stopped):
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
        row = measurable_estimator(name, length).row
        if row.name == "adaptive-mix" and num_samples < 4:  # weights of one half, of two or more, for the other
            raise ConfigError("--samples", num_samples, f"at least 4 with {name}", "--samples 128, say")


def _check_measurable(config: Config) -> None:
    if not config.meta.learned:
        raise ConfigError(
            "RUN", "a run that learned no meta-parameter", "a run with --meta.learned", "train one, and measure that"
        )
    if config.meta.sampling_correction:
        accepted = "a run without one: samples would leave its share of the meta-gradient out"
        raise ConfigError("RUN", "a run with a sampling correction", accepted, "train one without it, and measure that")
