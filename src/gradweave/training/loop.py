"""The training loop: compiled chunks of meta-steps; between them metrics, checkpoints, signals; beside them evaluation.

A chunk is one jitted scan over `chunk_size` meta-steps whose state is donated; the host hears of it once, when it is
done. Runs end on whole chunks, so that a resumed run passes through exactly the same programs as one that was never
stopped.
"""

import concurrent.futures
import contextlib
import math
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from gradweave.agents import MetaStepMetrics, SelfTuning, SelfTuningState
from gradweave.agents.edited import as_configured
from gradweave.config.schema import Config
from gradweave.errors import ConfigError, Stopped, command_line
from gradweave.machine.signals import noted_signals
from gradweave.rl import Normalization, pooled
from gradweave.runs.progress import Progress
from gradweave.runs.run_folder import RunFolder
from gradweave.runs.trackers import make_tracker
from gradweave.training.build import build_agent, init_state
from gradweave.training.checkpoints import load_newest, named_arrays
from gradweave.training.devices import DEFAULT_DEVICE, Devices
from gradweave.training.evaluation import Evaluation, evaluate
from gradweave.training.follower import NoFolder
from gradweave.training.hosts import agreed_signal, share_tree
from gradweave.training.log import EvaluationRow, Log
from gradweave.training.memory import Known, explaining, forecast_memory
from gradweave.training.nonfinite import check_checkpoint, check_finite, check_first, skipping

__all__ = ["Summary", "load_agent", "train"]


class Summary(NamedTuple):
    """Result of a run."""

    agent: SelfTuning
    state: SelfTuningState
    environment_steps: int
    sampled: Evaluation
    greedy: Evaluation
    random: Evaluation


class _Programs(NamedTuple):
    """Compiled programs: a chunk of meta-steps, and evaluation `(_Evaluated, key, greedy, uniform) -> Evaluation`."""

    chunk: Callable[[SelfTuningState], tuple[SelfTuningState, MetaStepMetrics]]
    evaluate: Callable[..., Evaluation]
    devices: Devices


def train(
    config: Config,
    folder: RunFolder | NoFolder,
    progress: Progress,
    *,
    resume: bool = False,
    devices: Devices = DEFAULT_DEVICE,
) -> Summary:
    """Train the configured agent, or go on with it, until `config.run.total_steps`.

    Args:
        config: checked by `validate`.
        folder: where metrics and checkpoints go; locked by the caller. In a run of several processes all but the first
            have none.
        progress: the display meanwhile.
        resume: go on from the newest checkpoint that verifies, written on any devices.
        devices: where to compute.

    Raises:
        NonFiniteError: something that learning carries on stopped being finite; with `on_nonfinite` "skip" only where a
            whole chunk did.
        Stopped: SIGTERM or SIGHUP arrived; a checkpoint was written.
        KeyboardInterrupt: SIGINT arrived; a checkpoint was written.
        CheckpointError: nothing to resume from.
        OutOfMemory: training needs more than there is; said before it starts where that can be known.
        FolderLost: rows or checkpoints can no longer be written; as much as possible was saved.
    """
    agent = build_agent(config, devices.axis)
    devices = devices.of_agent(agent)
    tracker = make_tracker(folder.path, config)
    # Of several processes the others would take leaving at once for a failure: they stop together after a chunk.
    several = jax.process_count() > 1
    early: contextlib.AbstractContextManager[list[int]] = noted_signals() if several else contextlib.nullcontext([])
    with contextlib.closing(tracker), explaining() as memory, early as noted:
        with progress.compiling("compiling"):
            programs = _compile(agent, config, devices, memory)
            _tell(memory, folder, progress)
            state = _start(agent, config, folder, progress, devices, resume=resume)
            folder.save_config()  # devices, memory and the checkpoint have been accepted
            if resume:
                folder.add_provenance({"from_step": agent.environment_steps(int(state.num_meta_steps))})
        log = Log(agent, config, folder, progress, tracker, done=int(state.num_meta_steps))
        with noted_signals() as received:  # until here nothing is lost by leaving at once
            received += noted
            state = _run(agent, config, programs, state, log, received)
    steps = agent.environment_steps(int(state.num_meta_steps))
    stopping = agreed_signal(received)  # it may have arrived while the last evaluation was waited for
    if stopping:
        _stop(stopping, steps, folder)
    state = devices.gather(state)
    # For the work after training: one device is enough, and the axis of devices is bound in training's programs only.
    agent, programs = build_agent(config), programs._replace(devices=DEFAULT_DEVICE)
    evaluations = _final_evaluations(config, programs, state)
    return Summary(agent, state, steps, *evaluations)


def load_agent(folder: RunFolder, warn: Callable[[str], None]) -> tuple[SelfTuning, SelfTuningState]:
    """The agent of a run at its newest checkpoint that verifies, with later edits."""
    agent = build_agent(folder.config)
    shapes = _shapes(agent, folder.config)
    found = load_newest(folder, shapes, warn, lambda found: check_checkpoint(agent.environment_steps, found))
    return agent, as_configured(agent, found.tree)


def _shapes(agent: SelfTuning, config: Config) -> SelfTuningState:
    shapes: SelfTuningState = jax.eval_shape(lambda: init_state(agent, config, key=jax.random.key(config.run.seed)))
    return shapes


def _start(
    agent: SelfTuning,
    config: Config,
    folder: RunFolder | NoFolder,
    progress: Progress,
    devices: Devices,
    *,
    resume: bool,
) -> SelfTuningState:
    """The state to begin or to go on with."""
    if not resume:
        folder.metrics.truncate_after(-1)  # rows of a process that was killed before its first checkpoint
        return devices.start(lambda key: init_state(agent, config, key=key), jax.random.key(config.run.seed))

    def newest() -> SelfTuningState:
        assert isinstance(folder, RunFolder)  # only process 0 is asked
        return load_agent(folder, progress.message)[1]

    state = devices.place(share_tree(newest, _shapes(build_agent(config), config)))
    _check_end(config, int(state.num_meta_steps))
    return state


def _check_end(config: Config, done: int) -> None:
    """Refuse edited chunks that would end the run later than what counts its windows was told.

    Raises:
        ConfigError: naming the size of a chunk.
    """
    size = config.run.chunk_size
    counted = config.meta.guard or any(spec.row.timed for spec in config.tuners.values())
    if done % size and counted:
        accepted = f"a divisor of {done}, the windows so far: a guard or a tuner counts on where the run ends"
        raise ConfigError("run.chunk_size", size, accepted, f"set it to {math.gcd(done, size)}")


def _compile(agent: SelfTuning, config: Config, devices: Devices, memory: Known) -> _Programs:
    """Compile from shapes alone, so that a lack of memory is found before anything is allocated."""
    run = config.run
    evaluated = build_agent(config)  # evaluation is one device's work
    step = skipping(agent.step) if run.on_nonfinite == "skip" else agent.step

    def chunk(state: SelfTuningState) -> tuple[SelfTuningState, MetaStepMetrics]:
        return jax.lax.scan(lambda carry, _: step(carry), state, length=run.chunk_size)

    def evaluate_on_one(of: _Evaluated, key: Any, greedy: Any, uniform: Any) -> Evaluation:
        return evaluate(
            evaluated,
            of.params,
            of.raw,
            normalization=of.normalization,
            key=key,
            greedy=greedy,
            num_episodes=run.evaluation_episodes,
            max_steps=run.max_episode_steps,
            uniform=uniform,
        )

    shapes = devices.shapes(lambda key: init_state(agent, config, key=key))
    compiled = jax.jit(devices.stepping(chunk), donate_argnums=0).lower(shapes).compile()
    memory.forecast = forecast_memory(compiled, agent, shapes, devices.num_local)
    return _Programs(compiled, jax.jit(evaluate_on_one), devices)


def _tell(memory: Known, folder: RunFolder | NoFolder, progress: Progress) -> None:
    """Say how much memory training needs, and refuse more than there is."""
    forecast = memory.forecast
    if forecast is None:
        return
    folder.add_provenance({"memory_forecast": forecast.for_provenance()})
    progress.message(forecast.describe())
    memory.check()
    if forecast.near:
        progress.message(f"that is close to all there is; should it run out: {forecast.advice()}")


def _run(
    agent: SelfTuning,
    config: Config,
    programs: _Programs,
    state: SelfTuningState,
    log: Log,
    received: list[int],
) -> SelfTuningState:
    done = int(state.num_meta_steps)
    if done == 0:  # so that there is always something to go on from
        first = programs.devices.gather(state)
        check_first(agent.environment_steps, first)
        _write(log.folder, first, agent.environment_steps(done))
    with log, _Evaluator(config, programs) as evaluator:
        while done < config.num_meta_steps:
            before = agent.environment_steps(done)
            state, metrics = programs.chunk(state)
            metrics = jax.device_get(metrics)  # waits for the chunk
            check_finite(agent.environment_steps, metrics, done, state, skips=config.run.on_nonfinite == "skip")
            done += config.run.chunk_size
            step = agent.environment_steps(done)
            last = done >= config.num_meta_steps
            evaluate_now = last or _crossed(config.run.evaluate_every, before, step)
            log.chunk(metrics, evaluator.begin(state) if evaluate_now else None)
            _check_files(log, programs, state, step)
            stopping = agreed_signal(received)
            if last or stopping or _crossed(config.run.checkpoint_every, before, step):
                _save(log, programs.devices.gather(state), step)
            if stopping:
                log.complete()
                _stop(stopping, step, log.folder)
    _check_files(log, programs, state, agent.environment_steps(done))
    return state


def _check_files(log: Log, programs: _Programs, state: SelfTuningState, step: int) -> None:
    """Raise, after everything has been saved, when rows can no longer be written, or another program took the file."""
    trouble = log.folder.trouble()
    if trouble is not None and isinstance(log.folder, RunFolder):
        log.complete()
        log.folder.rescue(log.folder.trouble() or trouble, named_arrays(programs.devices.gather(state)), step)


def _save(log: Log, state: SelfTuningState, step: int) -> None:
    """Write a checkpoint as soon as the rows before it are written; of a copy, if that is not now."""
    if log.holds:
        state = jax.tree.map(jnp.copy, state)
    log.afterwards(lambda: _write(log.folder, state, step))


def _write(folder: RunFolder | NoFolder, state: SelfTuningState, step: int) -> None:
    if isinstance(folder, RunFolder):  # process 0 only
        folder.save_checkpoint(named_arrays(state), step)


class _Evaluator:
    """Evaluates while training goes on, in a thread and on copies of its own, one evaluation at a time.

    Not on several devices: training's collectives would wait for the one that plays.
    """

    def __init__(self, config: Config, programs: _Programs) -> None:
        self._config = config
        self._programs = programs
        self._executor = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._latest: EvaluationRow | None = None

    def begin(self, state: SelfTuningState) -> EvaluationRow:
        """The evaluation of `state`, which may be donated meanwhile; waits for the one before."""
        self._wait()
        evaluated = jax.tree.map(jnp.copy, _Evaluated.of(state, self._programs.devices))
        self._latest = self._executor.submit(_evaluation_row, self._config, self._programs, evaluated)
        if self._programs.devices.mesh is not None:
            self._wait()
        return self._latest

    def _wait(self) -> None:
        if self._latest is not None:
            concurrent.futures.wait([self._latest])

    def __enter__(self) -> "_Evaluator":
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()


class _Evaluated(NamedTuple):
    """Inputs of evaluation."""

    params: PyTree
    raw: PyTree
    num_meta_steps: Any
    normalization: Normalization | None

    @classmethod
    def of(cls, state: SelfTuningState, devices: Devices) -> "_Evaluated":
        seen = state.rollout.observation_statistics
        normalization = None if seen is None else pooled(devices.gather(seen))
        params, raw, num_meta_steps = devices.local((state.learner.params, state.raw, state.num_meta_steps))
        return cls(params, raw, num_meta_steps, normalization)


def _evaluation_row(config: Config, programs: _Programs, evaluated: _Evaluated) -> dict[str, float]:
    sampled, greedy = (_play(config, programs, evaluated, greedy=greedy, uniform=False) for greedy in (False, True))
    return {
        "evaluation/return": float(sampled.returns.mean()),
        "evaluation/greedy_return": float(greedy.returns.mean()),
        "evaluation/length": float(sampled.lengths.mean()),
    }


def _final_evaluations(config: Config, programs: _Programs, state: SelfTuningState) -> tuple[Evaluation, ...]:
    """Sampled, greedy and random play of the final agent."""
    kinds = ((False, False), (True, False), (False, True))
    evaluated = _Evaluated.of(state, programs.devices)
    return tuple(_play(config, programs, evaluated, greedy=greedy, uniform=uniform) for greedy, uniform in kinds)


def _play(config: Config, programs: _Programs, evaluated: _Evaluated, *, greedy: bool, uniform: bool) -> Evaluation:
    # A key that depends on the seed and the step only: evaluating changes nothing in training.
    key = jax.random.fold_in(jax.random.key(config.run.seed ^ 0x5EED), evaluated.num_meta_steps)
    played = programs.evaluate(evaluated, key, jnp.asarray(greedy), jnp.asarray(uniform))
    result: Evaluation = jax.device_get(played)
    return result


def _crossed(every: int, before: int, after: int) -> bool:
    return every > 0 and before // every != after // every


def _stop(number: int, step: int, folder: RunFolder | NoFolder) -> None:
    """Raise the error that a signal stopped the run, with the saved files and how to go on."""
    again = "gradweave resume" if folder.path is None else command_line("resume", folder.path)
    text = f"stopped by {signal.Signals(number).name} after a checkpoint at environment step {step}; `{again}` goes on"
    raise KeyboardInterrupt(text) if number == signal.SIGINT else Stopped(text)
