"""Several processes, one run: the same curve as one process, an end together, and one who goes on alone."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from gradweave.config.presets import preset
from gradweave.errors import ConfigError, HostLost
from gradweave.training.follower import NoFolder
from gradweave.training.hosts import ALONE, Hosts, agreed_signal, check_hosts, end, leads, share, share_tree, together

SMALL = [
    "--inner.num-envs",
    "4",
    "--inner.num-steps",
    "5",
    "--meta.num-inner-steps",
    "2",
    "--meta.estimator",
    "unrolled",
    "--chunk-size",
    "3",
    "--network.policy-layers",
    "8",
    "--network.value-layers",
    "8",
    "--evaluation-episodes",
    "2",
    "--max-episode-steps",
    "110",
    "--checkpoint-every",
    "1200",
    "--evaluate-every",
    "0",
    "--measure-samples",
    "2",
]
END = 20 + 40 * 3 * 20  # twenty chunks
FOR_EVER = 10**9


class Pair:
    """Two processes of one run, and what each says."""

    def __init__(self, folder: Path, command: list[str], other: list[str] | None, *, slurm: bool) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._logs = [folder / f"log{index}" for index in range(2)]
        self.processes = []
        for index, arguments in enumerate((command, command if other is None else other)):
            flags = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", "2", "--process-id", str(index)]
            environment = dict(os.environ)
            if slurm:
                flags = ["--coordinator", "auto"]
                environment |= {"SLURM_JOB_ID": str(port), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
                environment |= {"SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)}
            with self._logs[index].open("w") as log:
                self.processes.append(
                    gradweave([*arguments, *flags], stdout=log, stderr=log, cwd=folder, env=environment)
                )

    def said(self, index: int) -> str:
        return self._logs[index].read_text()

    def wait(self, seconds: float) -> tuple[int, int]:
        """Both exit codes."""
        deadline = time.monotonic() + seconds
        first, second = (process.wait(max(0.1, deadline - time.monotonic())) for process in self.processes)
        return first, second


def gradweave(arguments: list[str], **options: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-m", "gradweave", *arguments], text=True, **options)


@contextlib.contextmanager
def pair(folder: Path, command: list[str], other: list[str] | None = None, *, slurm: bool = False) -> Iterator[Pair]:
    """Two processes, which do not outlive the test; with `slurm` what they know of each other comes from Slurm."""
    both = Pair(folder, command, other, slurm=slurm)
    try:
        yield both
    finally:
        for process in both.processes:
            process.kill()
            process.wait()


def train(runs_dir: Path, total_steps: int) -> list[str]:
    return ["train", "discounting-chain", *SMALL, "--total-steps", str(total_steps), "--runs-dir", str(runs_dir)]


def alone(folder: Path, arguments: list[str]) -> None:
    with (folder / "log").open("w") as log:
        code = gradweave(arguments, stdout=log, stderr=log, cwd=folder).wait(300)
    assert code == 0, (folder / "log").read_text()


def run_of(runs_dir: Path) -> Path:
    (run,) = runs_dir.iterdir()
    return run


def rows(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def until_under_way(both: Pair, runs_dir: Path) -> None:
    """Waits for a checkpoint that was written between two chunks."""
    deadline = time.monotonic() + 240
    while not (
        runs_dir.exists() and any(int(file.stem) > 1000 for file in runs_dir.glob("*/checkpoints/*.safetensors"))
    ):
        assert both.processes[0].poll() is None, both.said(0)
        assert time.monotonic() < deadline, both.said(0)
        time.sleep(0.2)


def assert_same_curve(run: Path, reference: Path) -> None:
    found, expected = rows(run), rows(reference)
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        for name, value in wanted.items():
            if isinstance(value, float) and not name.startswith("evaluation"):
                # Meta-gradients pass through zero: what is compared is how far apart they are on their own scale.
                np.testing.assert_allclose(row[name], value, rtol=2e-3, atol=2e-5, err_msg=f"{name} at {row['step']}")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of it."""
    folder = tmp_path_factory.mktemp("reference")
    alone(folder, train(folder / "runs", END))
    return run_of(folder / "runs")


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_is_killed_the_other_ends_and_a_single_process_goes_on(
    killed: int, tmp_path: Path, reference: Path
) -> None:
    with pair(tmp_path, train(tmp_path / "runs", FOR_EVER)) as both:
        until_under_way(both, tmp_path / "runs")
        both.processes[killed].send_signal(signal.SIGKILL)
        code = both.processes[1 - killed].wait(60)
        said = both.said(1 - killed)
        if code == -signal.SIGABRT and killed == 0:  # JAX ends a process that has lost its coordinator, if it is first
            assert "another task died" in said
        else:
            assert code == HostLost.exit_code == 7, said
            assert "another process of this run has ended" in said
            assert "gradweave resume" in said
        assert "steps/s" not in both.said(1)  # only process 0 reports
    if killed == 1:  # the one that writes has ended by itself
        return
    run = run_of(tmp_path / "runs")
    newest = max(int(file.stem) for file in (run / "checkpoints").iterdir())
    goal = 20 + (newest - 20) // 120 * 120 + 120
    alone(tmp_path, ["resume", str(run), "--total-steps", str(goal - 20)])
    steps = [row["step"] for row in rows(run)]
    assert steps == list(range(60, steps[-1] + 1, 40)) and steps[-1] > newest
    early = [row for row in rows(run) if row["step"] <= END]
    for row, wanted in zip(early, rows(reference), strict=False):
        np.testing.assert_allclose(row["eta/discount"], wanted["eta/discount"], rtol=1e-4)


@pytest.mark.slow
def test_two_processes_stop_and_go_on_together_and_make_the_curve_of_one(tmp_path: Path, reference: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with pair(tmp_path, train(tmp_path / "runs", END)) as both:
        deadline = time.monotonic() + 240
        while "compiling ..." not in both.said(0):
            assert time.monotonic() < deadline, both.said(0)
            time.sleep(0.05)
        both.processes[0].send_signal(signal.SIGTERM)  # one is told, both stop after their first chunk
        assert both.wait(120) == (143, 143), (both.said(0), both.said(1))
    run = run_of(tmp_path / "runs")
    assert max(int(file.stem) for file in (run / "checkpoints").iterdir()) == rows(run)[-1]["step"] < END
    with pair(tmp_path, ["resume", str(run)], ["resume", str(tmp_path / "elsewhere" / "no folder here")]) as both:
        assert both.wait(240) == (0, 0), (both.said(0), both.said(1))
    assert_same_curve(run, reference)
    assert (run / "report.html").exists()
    assert json.loads((run / "provenance.json").read_text())["num_processes"] == 2


@pytest.mark.slow
def test_what_only_process_0_knows_to_be_wrong_ends_both(tmp_path: Path) -> None:
    with pair(tmp_path, ["resume", str(tmp_path / "nothing")]) as both:
        assert both.wait(120) == (2, 2), (both.said(0), both.said(1))
        assert "the folder of a run" in both.said(0)
        assert "process 0 could not go on" in both.said(1)


@pytest.mark.slow
def test_processes_that_were_started_differently_are_refused(tmp_path: Path) -> None:
    command = train(tmp_path / "runs", END)
    with pair(tmp_path, command, [*command, "--seed", "1"], slurm=True) as both:
        assert both.wait(120) == (2, 2), (both.said(0), both.said(1))
        assert "the same command" in both.said(1)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_environments_that_the_processes_cannot_share_are_refused(tmp_path: Path) -> None:
    with pair(tmp_path, [*train(tmp_path / "runs", END), "--inner.num-envs", "5"], slurm=True) as both:
        assert both.wait(120) == (2, 2), (both.said(0), both.said(1))
        assert "devices (2)" in both.said(0)


@pytest.mark.parametrize(
    ("hosts", "flag"),
    [
        (Hosts(num_processes=2), "--num-processes"),
        (Hosts(process_id=0), "--process-id"),
        (Hosts("localhost", 2, 0), "--coordinator"),
        (Hosts("localhost:1234", None, 0), "--num-processes"),
        (Hosts("localhost:1234", 0, 0), "--num-processes"),
        (Hosts("localhost:1234", 2, 2), "--process-id"),
        (Hosts("localhost:1234", 2), "--process-id"),
    ],
)
def test_flags_that_cannot_be_used_are_refused(hosts: Hosts, flag: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_hosts(hosts)
    assert caught.value.field == flag


def test_flags_that_can_be_used() -> None:
    for hosts in (ALONE, Hosts("auto"), Hosts("10.0.0.1:1234", 4, 3)):
        check_hosts(hosts)
    assert not ALONE.several and Hosts("auto").several


def test_a_single_process_needs_nobody() -> None:
    assert leads()
    assert share(lambda: b"text") == b"text"
    assert share_tree(lambda: {"x": 1}, None) == {"x": 1}
    assert agreed_signal([]) is None and agreed_signal([signal.SIGINT]) == signal.SIGINT
    with pytest.raises(ValueError, match="gloo"), together():  # not about other processes: there are none
        raise ValueError("gloo")
    assert end(3) == 3
    assert not jax.distributed.is_initialized()


def test_a_follower_keeps_nothing() -> None:
    with NoFolder(preset("quick")) as folder:
        folder.metrics.write({"step": 1})
        folder.add_provenance({})
        assert folder.path is None
