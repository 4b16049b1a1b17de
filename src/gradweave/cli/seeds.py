"""Several seeds of one configuration, each an ordinary run in a process of its own, and their summary.

On CPUs one seed trains on each core, elsewhere one after another: docs/decisions.md says why.
"""

import dataclasses
import functools
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradweave.cli.one_seed import command
from gradweave.config.schema import Config
from gradweave.config.toml_file import read_config
from gradweave.errors import ConfigError, DamagedFile, SeedFailed, Stopped, command_line
from gradweave.files import open_regular
from gradweave.machine.processes import Job, default_backend, run_jobs, share_cores
from gradweave.machine.runtime import usable_cores
from gradweave.machine.signals import noted_signals, say_when_leaving
from gradweave.machine.streams import say
from gradweave.runs.metrics import parse_row
from gradweave.runs.run_folder import newest_checkpoint
from gradweave.runs.seeds_folder import SUMMARY_FILE, SeedsFolder, is_finished
from gradweave.runs.trackers import check_tracker
from gradweave.training.hosts import Hosts

__all__ = [
    "RunsView",
    "check_seeds",
    "how_far",
    "plan_shares",
    "raise_failed",
    "raise_stopped",
    "refuse_hosts",
    "resume_seeds",
    "say_how_to_resume",
    "train_runs",
    "train_seeds",
    "training_job",
]

_SECONDS_BETWEEN_ROWS = 10.0
_TAIL_BYTES = 2**16
_MOST_SHOWN = 5


def check_seeds(config: Config, num_seeds: int, hosts: Hosts) -> None:
    """Raise when a configuration cannot be trained with this number of seeds.

    Raises:
        ConfigError: with the flag, the accepted values and a remedy.
    """
    if num_seeds < 1:
        raise ConfigError("--seeds", num_seeds, "at least 1", "--seeds 5, say")
    if config.run.seed + num_seeds > 2**32:
        accepted = f"few enough for the last seed, after --seed {config.run.seed}, to be at most 2**32 - 1"
        raise ConfigError("--seeds", num_seeds, accepted, "lower --seeds, or --seed")
    refuse_hosts(hosts)


def refuse_hosts(hosts: Hosts) -> None:
    """Raise when several processes are to share runs of several seeds.

    Raises:
        ConfigError: they are.
    """
    if hosts.several:
        accepted = "one run, not several seeds, each of which is a run of its own"
        raise ConfigError("--coordinator", hosts.coordinator, accepted, "leave it out, or start the seeds one by one")


def plan_shares(config: Config, num_seeds: int) -> list[tuple[int, ...]]:
    """The cores of each of the runs that go on at the same time: one run a core on CPUs, one run at a time elsewhere.

    A run with several devices takes as many cores.

    Raises:
        ConfigError: a run is to have more devices than there are cores.
    """
    if default_backend() != "cpu":
        return [()]
    devices, cores = config.run.devices, usable_cores()
    if devices != "all" and devices > cores:
        raise ConfigError("run.devices", devices, f"at most {cores} here, the usable cores", f"--devices {cores}")
    return share_cores(num_seeds, cores if devices == "all" else devices)


def train_seeds(config: Config, num_seeds: int, argv: Sequence[str]) -> int:
    """Train `config.run.seed` and the seeds after it; returns the exit code.

    Args:
        config: checked.
        num_seeds: their number; checked.
        argv: the command line for every provenance.json.
    """
    shares = plan_shares(config, num_seeds)
    with SeedsFolder.create(config, num_seeds, argv) as folder:
        return _go_on(folder, shares)


def resume_seeds(path: Path, changes: Mapping[str, Any], *, accept_changes: bool = False) -> int:
    """Go on with all seeds that are not finished; returns the exit code.

    Args:
        path: their folder.
        changes: of the section `run` of every seed's configuration; None: as it was.
        accept_changes: go on also with seeds whose config.toml was edited.
    """
    wanted = {name: value for name, value in changes.items() if value is not None}
    check_tracker(wanted.get("track", "none"))
    with SeedsFolder.open(path) as folder:
        config = read_config(next(iter(folder.runs.values())) / "config.toml")
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, **wanted))
        shares = plan_shares(config, len(folder.seeds))  # before anything is changed: there may be too few cores
        folder.change(wanted, accept_changes=accept_changes)
        return _go_on(folder, shares)


def _go_on(folder: SeedsFolder, shares: Sequence[tuple[int, ...]]) -> int:
    """Train every seed to its end, then summarise.

    Raises:
        SeedFailed: one of them failed; the others went on to their ends.
        Stopped: SIGTERM arrived; the runs have written their checkpoints.
        KeyboardInterrupt: SIGINT arrived, likewise.
    """
    failed = train_runs(folder.path, {f"seed {seed}": path for seed, path in folder.runs.items()}, shares)
    finished = {seed: path for seed, path in folder.runs.items() if is_finished(path)}
    if finished:
        _summarize(folder, finished)
    raise_failed(folder.path, failed)
    return 0


def train_runs(path: Path, runs: Mapping[str, Path], shares: Sequence[tuple[int, ...]]) -> dict[str, int]:
    """Train every run that is not finished, each in a process of its own.

    Args:
        path: of the folder that holds them, locked.
        runs: the folder of each, by its name.
        shares: the cores of each of those that train at the same time.

    Returns:
        The exit codes of those that failed.

    Raises:
        Stopped: SIGTERM arrived; the runs have written their checkpoints.
        KeyboardInterrupt: SIGINT arrived, likewise.
    """
    say(f"folder: {path}; up to {len(shares)} at a time")
    jobs = [training_job(name, run) for name, run in runs.items() if not is_finished(run)]
    view = RunsView()
    say_how_to_resume(path)
    with noted_signals() as received:
        codes = run_jobs(
            map(view.expected, jobs), shares, received, started=view.started, ended=view.ended, looked=view.looked
        )
    raise_stopped(path, runs, received)
    return {name: code for name, code in codes.items() if code}


def training_job(name: str, run: Path) -> Job:
    """The process that trains a run to its end."""
    return Job(name, functools.partial(command, run), run / "output.log")


def say_how_to_resume(path: Path) -> None:
    """Set the message for when this process leaves at once, about the folder of the runs."""
    again = command_line("resume", path)
    say_when_leaving(f"the runs are stopped as well, each after a checkpoint; go on with: {again}")


def raise_stopped(path: Path, runs: Mapping[str, Path], received: Sequence[int]) -> None:
    """Raise where a signal arrived before all runs had finished.

    Raises:
        Stopped: SIGTERM; the runs have written their checkpoints.
        KeyboardInterrupt: SIGINT, likewise.
    """
    if received and not all(map(is_finished, runs.values())):
        again = command_line("resume", path)
        text = f"stopped by {signal.Signals(received[0]).name}; {_newest_checkpoints(runs)}; `{again}` goes on"
        raise KeyboardInterrupt(text) if received[0] == signal.SIGINT else Stopped(text)


def _newest_checkpoints(runs: Mapping[str, Path]) -> str:
    """Paths of the newest checkpoint of each unfinished run, and the number of runs without one."""
    unfinished = {name: run for name, run in runs.items() if not is_finished(run)}
    newest = {name: newest_checkpoint(run) for name, run in unfinished.items()}
    found = [f"{name}: {path}" for name, path in newest.items() if path is not None]
    shown = "\n".join(f"  {line}" for line in found[:_MOST_SHOWN])
    more = f"\n  and of {len(found) - _MOST_SHOWN} more runs" if len(found) > _MOST_SHOWN else ""
    none = len(newest) - len(found)
    text = f"the newest checkpoints are\n{shown}{more}\n" if found else ""
    return f"{text}{none} of {len(runs)} runs have no checkpoint yet" if none else text.rstrip()


def raise_failed(path: Path, failed: Mapping[str, int]) -> None:
    """Raise when there is a run that failed.

    Raises:
        SeedFailed: with the exit code of the first.
    """
    if failed:
        names = ", ".join(f"{name} ({code})" for name, code in failed.items())
        message = f"failed, with exit code: {names}; `{command_line('resume', path)}` tries again"
        raise SeedFailed(message, next(iter(failed.values())))


def _summarize(folder: SeedsFolder, finished: Mapping[int, Path]) -> None:
    from gradweave.reports.seed_summary import format_summary, write_summary

    config = read_config(next(iter(finished.values())) / "config.toml")
    summary = write_summary(folder.path, folder.seeds, finished)
    print(format_summary(summary))
    for seed in summary["unfinished"]:
        print(f"seed {seed} is missing: it has not finished")
    print(f"\nsummary:     {folder.path / SUMMARY_FILE}")
    if config.run.finish == "all":
        from gradweave.reports.report import write_report

        print(f"report:      {write_report(list(finished.values()), folder.path)}")
    print(f"go on with:  {command_line('resume', folder.path, '--total-steps', config.twice_as_long)}")


class RunsView:
    """Terminal output while runs train: their beginnings and ends, and now and then how far each has come."""

    def __init__(self) -> None:
        self._shown_at = time.monotonic()
        self._written: dict[str, int] = {}

    def expected(self, job: Job) -> Job:
        """Note where a job's output begins in its log, before it is started; returns the job."""
        self._written[job.name] = job.log.stat().st_size if job.log.exists() else 0
        return job

    def started(self, job: Job) -> None:
        """Say so."""
        say(f"{job.name}: started, its output is in {job.log}")

    def ended(self, job: Job, code: int) -> None:
        """Say how, with its last words where it failed."""
        if code == 0:
            say(f"{job.name}: done")
        else:
            say(f"{job.name}: ended with exit code {code}\n{self._last_words(job)}")

    def looked(self, running: Sequence[Job]) -> None:
        """Say how far each is, now and then."""
        if time.monotonic() - self._shown_at < _SECONDS_BETWEEN_ROWS:
            return
        self._shown_at = time.monotonic()
        for job in running:
            say(f"{job.name}: {how_far(job.log.with_name('metrics.jsonl'))}")

    def _last_words(self, job: Job) -> str:
        """The message that the run ended with, or else its last lines, of its output since it was started here."""
        with open_regular(job.log) as file:
            file.seek(max(self._written[job.name], file.seek(0, 2) - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).decode(errors="replace").splitlines()
        said = [index for index, line in enumerate(lines) if line.startswith("gradweave: ")]
        return "\n".join(f"  {line}" for line in lines[said[-1] if said else -12 :])


def how_far(metrics: Path) -> str:
    """Steps and return from the end of a file of metrics that is being written."""
    try:
        with open_regular(metrics) as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).decode(errors="replace").split("\n")[:-1]
        rows = [parse_row(metrics, line) for line in lines[-50:] if line.startswith("{")]
    except OSError:  # not there yet, or just being replaced
        rows = []
    except DamagedFile as error:
        return str(error)
    if not rows:
        return "nothing logged yet"
    returns = [row["return"] for row in rows if row.get("return") is not None]
    return f"{rows[-1]['step']:,} steps, return {f'{returns[-1]:.2f}' if returns else '-'}"
