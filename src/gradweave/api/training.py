"""Training by a call: a configuration in a folder of its own, or an agent in memory.

JAX is imported after everything that can be refused has been refused.
"""

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradweave.api.finish import finish
from gradweave.api.run import Run, read_table
from gradweave.config.presets import preset
from gradweave.config.schema import Config, NumDevices, Tracker
from gradweave.config.toml_file import typed
from gradweave.config.validation import validate
from gradweave.errors import CheckpointError
from gradweave.machine.streams import say
from gradweave.runs.run_folder import RunFolder, checkpoint_steps
from gradweave.runs.trackers import check_tracker
from gradweave.training.follower import NoFolder
from gradweave.training.hosts import ALONE, Hosts
from gradweave.training.launch import launch

if TYPE_CHECKING:  # imports JAX
    from gradweave.agents import SelfTuning
    from gradweave.training.loop import Summary

__all__ = ["open_to_resume", "resume", "train", "train_config", "train_in"]


def train(
    what: "Config | str | SelfTuning",
    params: Any = None,
    *,
    total_steps: int | None = None,
    key: Any = None,
    chunk_size: int = 20,
    quiet: bool = False,
) -> Run:
    """Train a configuration in a folder of its own, as `gradweave train` does, or an agent in memory.

    Args:
        what: a configuration (`configure`), the name of a preset, or a `SelfTuning`.
        params: of a `SelfTuning` alone: the network's initial parameters.
        total_steps: environment steps, rounded up to whole chunks; required for a `SelfTuning`. A configuration has
            `run.total_steps`, which this replaces.
        key: of a `SelfTuning` alone: for all randomness; required. A configuration has `run.seed`.
        chunk_size: of a `SelfTuning` alone: meta-steps computed between two returns to the host.
        quiet: show nothing meanwhile.

    Returns:
        The trained agent. Of a configuration with its folder, in which checkpoints, figures, a measurement and a report
        are; of a `SelfTuning` without one, with a row of metrics for each meta-step.

    Raises:
        ConfigError: a configuration that cannot be trained.
        NonFiniteError: parameters, meta-parameters or meta-gradient stopped being finite.
        OutOfMemory: training needs more than there is.
        KeyboardInterrupt: interrupted; a run with a folder has written a checkpoint, from which `resume` goes on.
        TypeError: arguments that belong to the other kind.

    Example:
        >>> config = configure("discounting-chain", inner={"num_envs": 4}, run={"total_steps": 4000})
        >>> agent = gradweave.training.build.build_agent(config)
        >>> params = gradweave.training.build.init_state(agent, config, key=jax.random.key(0)).learner.params
        >>> run = train(agent, params, total_steps=4000, key=jax.random.key(1), chunk_size=2, quiet=True)
        >>> run.step, len(run.metrics["eta/discount"])
        (4080, 10)
    """
    if isinstance(what, Config | str):
        if params is not None or key is not None or chunk_size != 20:
            raise TypeError(
                "params, key and chunk_size belong to an agent; a configuration has its own fields for them."
            )
        config = preset(what) if isinstance(what, str) else what
        if total_steps is not None:
            config = dataclasses.replace(config, run=dataclasses.replace(config.run, total_steps=total_steps))
        trained = train_config(config, quiet=quiet)
        assert trained is not None  # there is one process only
        return trained
    from gradweave.runs.metrics_table import MetricsTable
    from gradweave.training.in_memory import train_agent

    if params is None or total_steps is None or key is None:
        raise TypeError(
            "an agent is trained with params, total_steps and key: train(agent, params, total_steps=..., key=...)."
        )
    state, rows = train_agent(what, params, total_steps=total_steps, key=key, chunk_size=chunk_size, quiet=quiet)
    return Run(what, state, rows[-1]["step"], MetricsTable(rows))


def resume(
    path: str | Path,
    *,
    total_steps: int | None = None,
    devices: NumDevices | None = None,
    track: Tracker | None = None,
    accept_changes: bool = False,
    quiet: bool = False,
) -> Run:
    """Go on with a run from its newest checkpoint that verifies, as `gradweave resume` does.

    Args:
        path: the run's folder.
        total_steps: environment steps of the whole run, to go on for longer than was planned.
        devices: to go on with; by default as many as before.
        track: tracker to send metrics to; by default the same as before.
        accept_changes: go on also where config.toml was edited since the newest checkpoint.
        quiet: show nothing meanwhile.

    Raises:
        ConfigError: there is no run, or it cannot go on like this.
        CheckpointError: no checkpoint in the run's folder.
        RunInUse: another process has it.
        Exception: otherwise as `train`.

    Example:
        >>> resume(folder, total_steps=300, quiet=True).step  # whole chunks of three windows of 40 steps
        380
    """
    started = launch(
        lambda: open_to_resume(Path(path), total_steps, devices, track, accept_changes=accept_changes),
        resume=True,
        quiet=quiet,
    )
    trained = train_in(started, quiet=quiet)
    assert trained is not None
    return trained


def train_config(config: Config, argv: Sequence[str] = (), hosts: Hosts = ALONE, *, quiet: bool = False) -> Run | None:
    """Train a configuration in a new folder; None in all processes of a run but the first.

    Args:
        config: checked here.
        argv: the command line for provenance.json.
        hosts: the other processes of the run.
        quiet: show nothing meanwhile.
    """
    config = typed(config)
    validate(config, num_processes=hosts.num_processes or 1)
    check_tracker(config.run.track)
    started = launch(lambda: RunFolder.create(config, argv), resume=False, config=config, hosts=hosts, quiet=quiet)
    return train_in(started, quiet=quiet)


def train_in(
    started: AbstractContextManager["tuple[RunFolder | NoFolder, Summary]"], *, quiet: bool = False
) -> Run | None:
    """Train, then draw, measure and report the result; of several processes only the first reports.

    Args:
        started: a run from `gradweave.training.launch.launch`.
        quiet: show nothing meanwhile.
    """
    with started as (folder, summary):
        if isinstance(folder, NoFolder):
            return None
        from gradweave.training.memory import explaining

        with explaining():
            text = finish(folder, summary, (lambda text: None) if quiet else say)
        metrics = read_table(folder.path)
    return Run(summary.agent, summary.state, summary.environment_steps, metrics, folder.config, folder.path, text)


def open_to_resume(
    path: Path,
    total_steps: int | None = None,
    devices: NumDevices | None = None,
    track: Tracker | None = None,
    *,
    accept_changes: bool = False,
    num_processes: int = 1,
) -> RunFolder:
    """A run's folder, with the configuration to go on with; training writes it to config.toml once it can begin.

    Args:
        path: the run's folder.
        total_steps: environment steps of the whole run; None: as it was.
        devices: of each process; None: as it was.
        track: tracker to send metrics to; None: as it was.
        accept_changes: also where config.toml was edited since the newest checkpoint.
        num_processes: of the run.

    Raises:
        ConfigError: there is no run, or it cannot go on like this.
        CheckpointError: no checkpoint in the run's folder.
        RunInUse: another process has it.
    """
    folder = RunFolder.open(path, accept_changes=accept_changes)
    try:
        changes: dict[str, Any] = {"total_steps": total_steps, "devices": devices, "track": track}
        changes = {name: value for name, value in changes.items() if value is not None}
        config = typed(dataclasses.replace(folder.config, run=dataclasses.replace(folder.config.run, **changes)))
        if not checkpoint_steps(folder.path):
            raise CheckpointError(f"there is no checkpoint in {folder.checkpoints}; start again with `gradweave train`")
        if total_steps is not None and isinstance(config.run.total_steps, int):
            from gradweave.runs.identity import check_longer

            check_longer(folder.path, config.run.total_steps)
        validate(config, num_processes=num_processes)
        if track is not None:
            check_tracker(config.run.track)
        folder.config = config
    except BaseException:
        folder.close()
        raise
    return folder
