"""Measuring the meta-gradient of a run's agent at one of its checkpoints, in a way that can be interrupted.

JAX is imported after everything that can be refused has been refused.
"""

import dataclasses
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from gradweave.config.schema import Config
from gradweave.config.validation import validate
from gradweave.errors import CheckpointError, ConfigError, Stopped
from gradweave.files import open_regular, real_folder
from gradweave.machine.signals import interruptible
from gradweave.machine.streams import say
from gradweave.measurement.options import MeasureOptions, check_measurable, check_options
from gradweave.runs.locks import lock_folder
from gradweave.runs.metrics import read_metrics
from gradweave.runs.run_folder import checkpoint_steps, run_name
from gradweave.training.loading import check_run

if TYPE_CHECKING:  # imports JAX, which bad flags must not wait for
    from gradweave.agents import SelfTuning, SelfTuningState
    from gradweave.measurement.result import Measurement
    from gradweave.measurement.sample_store import SampleStore
    from gradweave.measurement.sampling import GradientSamples
    from gradweave.statistics.bootstrap import FloatArray
    from gradweave.training.loading import LoadedAgent

__all__ = ["measure_run"]


class _Asked(NamedTuple):
    """Settings of a measurement, from the options and the run's configuration."""

    run: Path
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


def measure_run(
    run: Path, options: MeasureOptions, first: Callable[["Measurement"], object] = lambda found: None
) -> "Measurement":
    """Measure a run's agent and write the files; says on standard error how far it is.

    The measurement with batches as in training is written as soon as it is there, and once more with the other sizes,
    so that the files in the folder belong together when the call is stopped in between.

    Args:
        run: the run's folder.
        options: how.
        first: given the measurement with batches as in training, before the other sizes are measured.

    Raises:
        ConfigError: a bad option, no run, or one whose meta-gradient cannot be measured.
        CheckpointError: there is no such checkpoint.
        RunInUse: another process measures into the same folder.
        NonFiniteError: a sample is not finite.
    """
    config = check_run(run, options.step)
    check_measurable(config)
    length = config.meta.num_inner_steps if options.horizons is None else options.horizons
    num_samples = config.run.measure_samples if options.samples is None else options.samples
    asked = _Asked(
        run=run,
        num_samples=num_samples,
        length=length,
        reference=check_options(options, num_samples, length),
        output=run / "measure" if options.output is None else options.output,
        num_envs=tuple(dict.fromkeys((config.inner.num_envs, *options.batch_sizes))),
    )
    for num_envs in asked.num_envs[1:]:
        _check_size(config, num_envs)
    if options.output is None and os.path.lexists(asked.output):
        real_folder(asked.output)
    with _claimed(asked.output):
        return _measure(options, asked, first)


def _measure(options: MeasureOptions, asked: _Asked, first: Callable[["Measurement"], object]) -> "Measurement":
    """Everything that needs JAX."""
    from gradweave.measurement.batch_sizes import batch_size_rows, remove_batch_sizes, write_batch_sizes
    from gradweave.measurement.estimates import compare
    from gradweave.measurement.result import measured
    from gradweave.measurement.sample_store import current_source
    from gradweave.training.runtime import describe_devices, enable_compilation_cache

    enable_compilation_cache()
    source = current_source()
    loaded = _loaded(options, asked)
    asked = asked._replace(burn_in=_burn_in(options, asked, loaded))
    stores = _stores(options, asked, loaded, source)
    sources = [*(earlier for store in stores.values() for earlier in store.sources), source]
    start = time.monotonic()
    samples = _sampled(options, asked, loaded.agent, loaded.state, stores[asked.num_envs[0]])
    found = measured(
        samples, loaded.agent, loaded.state, options, step=loaded.step, length=asked.length, burn_in=asked.burn_in
    )
    own = {"sources": [one for index, one in enumerate(sources) if one not in sources[:index]], **describe_devices()}

    def written(sizes: tuple[int, ...]) -> "Measurement":
        remove_batch_sizes(asked.output)
        seconds = round(time.monotonic() - start, 1)
        return found.written(asked.output, run=run_name(asked.run), **own, batch_sizes=list(sizes), seconds=seconds)

    result = written(())
    first(result)
    by_size = {}
    for num_envs in dict.fromkeys(options.batch_sizes):
        sized = samples
        if num_envs != asked.num_envs[0]:
            say(f"batches of {num_envs} environments")
            sized = _sampled(options, asked, *_resized(loaded, num_envs), stores[num_envs])
        by_size[num_envs] = compare(sized, asked.length, options.estimators, seed=options.seed)[0]
    if by_size:
        result = written(tuple(by_size))
        rows = [row for size, summaries in by_size.items() for row in batch_size_rows(size, samples.names, summaries)]
        files = (*result.files, *write_batch_sizes(asked.output, rows))
        result = dataclasses.replace(result, batch_sizes=by_size, files=files)
    _tidy(stores, asked)
    return result


def _check_size(config: Config, num_envs: int) -> None:
    """Refuse batches that the learner could not be trained on.

    Raises:
        ConfigError: of --batch-sizes.
    """
    sized = dataclasses.replace(config, inner=dataclasses.replace(config.inner, num_envs=num_envs))
    # Measuring is one device's work, and not a run of its own.
    steps = max(config.run.total_steps, sized.window_steps)
    try:
        validate(dataclasses.replace(sized, run=dataclasses.replace(config.run, devices=1, total_steps=steps)))
    except ConfigError as error:
        accepted = f"sizes that the run could be trained with ({error.field} would be refused: {error.accepted})"
        raise ConfigError("--batch-sizes", num_envs, accepted, "give another size") from None


def _tidy(stores: Mapping[int, "SampleStore"], asked: _Asked) -> None:
    """Delete the samples that have been measured with, unless there are more."""
    for store in stores.values():
        if store.num_kept > asked.num_samples:
            say(
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


def _loaded(options: MeasureOptions, asked: _Asked) -> "LoadedAgent":
    """The agent at the checkpoint that is asked for: without --step that of an unfinished measurement, if there is one.

    Raises:
        ConfigError: the file of an interrupted call has no samples.
        CheckpointError: there is no such checkpoint any more, or it is damaged.
    """
    from gradweave.measurement.sample_store import SampleStore
    from gradweave.training.loading import read_agent

    if options.step is not None:
        return read_agent(asked.run, options.step, say)
    for num_envs in asked.num_envs:
        path = asked.output / _UNFINISHED.format(num_envs)
        settings = SampleStore(path, {}).kept_settings()
        if settings is None or settings.get("run") != run_name(asked.run):  # which `_stores` refuses
            continue
        step, newest = settings["step"], max(checkpoint_steps(asked.run), default=None)
        if step != newest:
            say(f"{path} was begun at step {step}: measuring that, not step {newest}; delete it to begin again")
        try:
            return read_agent(asked.run, step, say)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {path} was begun at that step: delete {path} to measure another") from None
    return read_agent(asked.run, None, say)


def _burn_in(options: MeasureOptions, asked: _Asked, loaded: "LoadedAgent") -> int:
    """The requested burn-in, or that of an episode."""
    from gradweave.measurement.sampling import MOST_BURN_IN, episode_rollouts

    if options.burn_in is not None:
        return options.burn_in
    rows = read_metrics(asked.run / "metrics.jsonl")
    found = episode_rollouts(rows, loaded.config.inner.num_steps, loaded.step)
    capped = "; episodes are longer, give a greater number for independent samples" if found == MOST_BURN_IN else ""
    say(f"{found} to {2 * found} rollouts before each window (--burn-in {found}{capped})")
    return found


def _stores(
    options: MeasureOptions, asked: _Asked, loaded: "LoadedAgent", source: Mapping[str, Any]
) -> dict[int, "SampleStore"]:
    """Stores of the samples for each size of batches, while they are drawn.

    Raises:
        ConfigError: the samples of an interrupted call are not of this checkpoint, or not drawn in this way.
        CheckpointError: the checkpoint is no longer there.
    """
    from gradweave.measurement.sample_store import SampleStore
    from gradweave.runs.checkpoints import checkpoint_path

    checkpoint = checkpoint_path(asked.run / "checkpoints", loaded.step)
    try:
        with open_regular(checkpoint) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:  # a run in training deletes its older ones
        raise CheckpointError(
            f"{checkpoint} was there a moment ago and cannot be read now ({error.strerror}); repeat the command for a "
            "newer one"
        ) from None
    settings = {
        "run": run_name(asked.run),
        "step": loaded.step,
        "checkpoint": digest[:16],
        "horizons": asked.reference,
        "burn_in_at_least": asked.burn_in,
        "seed": options.seed,
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
    options: MeasureOptions, asked: _Asked, agent: "SelfTuning", state: "SelfTuningState", store: "SampleStore"
) -> "GradientSamples":
    """The samples, of which those of an interrupted call are not drawn again."""
    import jax

    from gradweave.measurement.sampling import measure_agent

    known = store.known()
    if known is not None:
        say(f"going on with {len(known)} samples of an unfinished measurement")
    newest = known

    def keep(samples: "FloatArray") -> None:
        nonlocal newest
        newest = samples
        store.keep(samples)

    try:
        with interruptible() as check:
            samples = measure_agent(
                agent,
                state,
                key=jax.random.key(options.seed),
                num_samples=asked.num_samples,
                burn_in_rollouts=asked.burn_in,
                horizons=asked.reference,
                progress=_Progress(check),
                known=known,
                keep=keep,
            )
    except (KeyboardInterrupt, Stopped):
        if newest is not None:
            store.keep(newest, now=True)
            say(f"{len(newest)} samples are kept; the same command goes on with them")
        raise
    store.keep(samples.contributions, now=True)
    return samples


class _Progress:
    """A line on standard error now and then: how many samples are done, and how long the rest will take."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._start: float | None = None
        self._first = 0
        self._shown = time.monotonic()
        say("compiling ...")

    def __call__(self, done: int, total: int) -> None:
        self._check()
        now = time.monotonic()
        if self._start is None:  # the first chunk includes compiling
            self._start, self._first = now, done
        if done == total or now - self._shown > 3:
            left = (now - self._start) / max(1, done - self._first) * (total - done)
            known = done > self._first and done < total
            say(f"{done} of {total} samples" + (f", {left:.0f} s left" if known else ""))
            self._shown = now
