"""`measure` on a run that was never trained: what it writes, that it only reads, and its exit codes."""

import csv
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from gradweave.cli.main import main
from gradweave.files import write_atomically
from gradweave.measurement.sampling import GradientSamples
from gradweave.reports.report import write_report
from gradweave.runs.locks import lock_folder
from gradweave.runs.metrics import read_metrics
from gradweave.runs.run_folder import RunFolder
from gradweave.training.checkpoints import named_arrays
from gradweave.training.loading import read_agent

from .material import content_of, first_state, tiny_config

PROBE = (
    "import sys\n"
    "from gradweave.cli.main import main\n"
    "try:\n    code = main(sys.argv[1:])\n"
    "except SystemExit as error:\n    code = error.code\n"
    "print('PROBE', code, [name for name in ('jax', 'numpy', 'matplotlib') if name in sys.modules])\n"
)


@pytest.fixture(name="measure")
def make_measure(monkeypatch):
    """Measures with samples and figures that cost nothing; is interrupted once so many samples of a size are drawn."""

    def measure(run, *flags, interrupted=None):
        def sample(agent, state, *, num_samples, known=None, keep, progress, **_):
            num_envs = agent.environment.num_envs
            table = np.random.default_rng(num_envs).standard_normal((64, 2, 2, 2))
            count = 0 if known is None else min(len(known), num_samples)
            np.testing.assert_array_equal(table[:count], table[:0] if known is None else known[:count])
            while count < num_samples:
                count = min(count + 4, num_samples)
                keep(table[:count])
                if (num_envs, count) == interrupted:
                    raise KeyboardInterrupt
                progress(count, num_samples)
            return GradientSamples(("discount", "entropy_cost"), table[:num_samples])

        monkeypatch.setattr("gradweave.measurement.sampling.measure_agent", sample)
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, file, **_: None)
        return main(["measure", str(run), "--estimators", "unrolled", *flags])

    return measure


def summary_in(folder):
    return json.loads((folder / "summary.json").read_text())


def kept_in(folder):
    """How many samples are kept for each number of environments."""
    found = {}
    for path in folder.glob("unfinished-*"):
        with np.load(path) as saved:
            found[int(path.name.split("-")[1])] = len(saved["samples"])
    return found


@pytest.mark.slow
def test_measure(run, tmp_path, capsys):
    before = content_of(run)
    arguments = ["measure", str(run), "--burn-in", "1", "--horizons", "3", "--output", str(tmp_path / "found")]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert "4 samples of windows of 3 updates at step 12" in shown.out
    assert "horizon-mix uniform" in shown.out
    assert "4 of 4 samples" in shown.err
    summary = json.loads((tmp_path / "found" / "summary.json").read_text())
    assert (summary["step"], summary["num_samples"], summary["num_inner_steps"]) == (12, 4, 3)
    assert summary["meta_parameters"] == ["discount", "entropy_cost"]
    assert summary["eta"]["discount"] == pytest.approx(0.9)
    assert set(summary["estimators"]["truncation 3"]) == {"all", "discount", "entropy_cost"}
    assert (summary["run"], summary["batch_sizes"]) == (run.name, [])
    assert [set(source) for source in summary["sources"]] == [{"commit", "modified"}]
    with np.load(tmp_path / "found" / "samples.npz") as saved:
        assert saved["contributions"].shape == (4, 3, 3, 2)
    assert content_of(run) == before
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [4, 12, 20]


@pytest.mark.slow
def test_measure_asks_for_estimators_reference_and_batch_sizes(run, tmp_path, capsys):
    names = ["unrolled", "truncated:1", "horizon:2", "horizon-mix:0.8", "truncation-mix:uniform", "adaptive-mix"]
    output = tmp_path / "found"
    arguments = ["measure", str(run), "--burn-in", "1", "--output", str(output), "--estimators", *names]
    assert main([*arguments, "--reference", "unroll:3", "--batch-sizes", "1", "2", "1"]) == 0
    shown = capsys.readouterr()
    assert "reference: horizon 3" in shown.out
    assert shown.err.count("compiling") == 2 and "going on" not in shown.err
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["num_inner_steps"], summary["reference"], summary["num_envs"]) == (2, "horizon 3", 2)
    singles = {f"{family} {k}" for family in ("horizon", "truncation") for k in (1, 2)}
    assert set(summary["estimators"]) == {*names, *singles}
    with np.load(output / "samples.npz") as saved:
        contributions = saved["contributions"]
    horizons = contributions.sum(2)
    bias = summary["estimators"]["unrolled"]["discount"]["bias"]["value"]
    assert bias == pytest.approx(horizons[:, 1, 0].mean() - horizons[:, 2, 0].mean())
    ratio = summary["estimators"]["horizon:2"]["all"]["variance_ratio"]["value"]
    assert ratio == pytest.approx(1)
    with (output / "batch_sizes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["num_envs"] for row in rows} == {"1", "2"} and summary["batch_sizes"] == [1, 2]
    assert {row["estimator"] for row in rows} == set(names)
    assert len(rows) == len({tuple(row.values()) for row in rows})
    assert (output / "batch_sizes.png").read_bytes().startswith(b"\x89PNG")
    assert not list(output.glob("unfinished*"))


def test_a_burn_in_shorter_than_an_episode_is_said(own, measure, capsys):
    told = {}
    for length in (60, 9000):
        (own / "metrics.jsonl").write_text(json.dumps({"step": 4, "num_episodes": 1, "episode_length": length}) + "\n")
        assert measure(own, "--samples", "4", "--output", str(own / f"found-{length}")) == 0
        told[length] = capsys.readouterr().err
    assert "--burn-in 30)" in told[60]
    assert "--burn-in 100; episodes are longer" in told[9000] and "greater number" in told[9000]


@pytest.mark.slow
def test_two_samples_are_measured(run, tmp_path):
    output = tmp_path / "found"
    assert main(["measure", str(run), "--burn-in", "0", "--output", str(output), "--samples", "2"]) == 0
    assert json.loads((output / "summary.json").read_text())["num_samples"] == 2


@pytest.mark.slow
def test_an_interrupted_measurement_is_gone_on_with(run, tmp_path, capsys, monkeypatch):
    output = tmp_path / "found"
    arguments = ["measure", str(run), "--burn-in", "1", "--output", str(output), "--samples", "12"]

    def interrupt(self, done, total):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("gradweave.measurement.of_run._Progress.__call__", interrupt)
        assert main(arguments) == 130
    assert "8 samples are kept" in capsys.readouterr().err
    assert main([*arguments, "--seed", "1"]) == 2
    assert "seed = 0" in capsys.readouterr().err
    other = shutil.copytree(run, tmp_path / "other" / run.name)
    with RunFolder.open(other) as folder:
        folder.save_checkpoint(named_arrays(first_state(folder.config, 1)._replace(key=jax.random.key(9))), 12)
    assert main(["measure", str(other), *arguments[2:]]) == 2
    assert "checkpoint = " in capsys.readouterr().err
    earlier, unfinished = {"commit": "an earlier one", "modified": False}, output / "unfinished-2-environments.npz"
    with np.load(unfinished) as saved:
        content = dict(saved)
    np.savez(unfinished, **{**content, "sources": np.array(json.dumps([earlier]))})
    assert main(arguments) == 0
    assert "going on with 8 samples" in capsys.readouterr().err
    assert json.loads((output / "summary.json").read_text())["sources"][0] == earlier
    with np.load(output / "samples.npz") as saved:
        assert len(saved["contributions"]) == 12
    assert not list(output.glob("unfinished*"))


@pytest.mark.slow
def test_an_unfinished_measurement_stays_at_its_checkpoint(own, measure, capsys):
    output, flags = own / "measure", ("--samples", "8")
    assert measure(own, *flags, interrupted=(2, 4)) == 130
    with RunFolder.open(own) as folder:
        folder.save_checkpoint(named_arrays(first_state(folder.config, 2)), 20)
    capsys.readouterr()
    assert measure(own, *flags) == 0
    shown = capsys.readouterr().err
    for text in ("at step 12", "not step 20", "unfinished-2-environments.npz", "going on with 4 samples"):
        assert text in shown
    assert (summary_in(output)["step"], kept_in(output)) == (12, {})
    assert measure(own, *flags, interrupted=(2, 4)) == 130
    shutil.copytree(own, own.with_name("other"))
    assert measure(own.with_name("other"), *flags, "--output", str(output)) == 2
    assert "run = other" in capsys.readouterr().err
    (own / "checkpoints" / f"{20:012d}.safetensors").unlink()
    assert measure(own, *flags) == 3
    shown = capsys.readouterr().err
    assert "no checkpoint of step 20" in shown and f"delete {output / 'unfinished-2-environments.npz'}" in shown


@pytest.mark.slow
def test_samples_that_were_not_asked_for_are_kept(own, measure, capsys):
    output, sizes = own / "measure", ("--batch-sizes", "3")
    assert measure(own, "--step", "4", "--samples", "16", *sizes, interrupted=(3, 12)) == 130
    assert kept_in(output) == {2: 16, 3: 12}
    (output / ".1.unfinished-2-environments.npz.tmp").touch()  # as a process that was killed left it
    assert measure(own, "--samples", "16") == 0
    assert (summary_in(output)["step"], kept_in(output)) == (4, {3: 12})
    assert not list(output.glob(".*.tmp"))
    assert measure(own, "--samples", "8", "--step", "4", *sizes) == 0
    assert "12 samples are kept in" in capsys.readouterr().err
    assert (summary_in(output)["num_samples"], kept_in(output)) == (8, {3: 12})
    assert measure(own, "--samples", "8") == 0, "nothing of this size is unfinished"
    assert summary_in(output)["step"] == 12
    assert measure(own, "--samples", "16", *sizes) == 0
    assert "going on with 12 samples" in capsys.readouterr().err
    assert (summary_in(output)["step"], kept_in(output)) == (4, {})


def test_the_verdict_is_printed_last_and_kept(own, measure, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert measure(own, "--samples", "32") == 0
    verdict = summary_in(own / "measure")["verdict"]
    assert set(verdict["lines"]) == {"discount", "entropy_cost"} and "32 samples" in verdict["heading"]
    shown = capsys.readouterr().out
    rows = shown.split(str(own))[0].rstrip().splitlines()
    assert max(map(len, rows)) <= 60
    assert [row.split(maxsplit=1) for row in rows[-2:]] == [[name, line] for name, line in verdict["lines"].items()]
    assert "after 12 environment steps" in write_report([own], own).read_text()


def test_a_checkpoint_that_is_pruned_while_it_is_read(own, measure, capsys, monkeypatch):
    def read_and_lose(*arguments):
        loaded = read_agent(*arguments)
        (own / "checkpoints" / f"{12:012d}.safetensors").unlink()
        return loaded

    monkeypatch.setattr("gradweave.training.loading.read_agent", read_and_lose)
    assert measure(own) == 3
    shown = capsys.readouterr().err
    assert f"{12:012d}.safetensors" in shown and "repeat the command" in shown


@pytest.mark.slow
def test_batch_sizes_of_an_earlier_measurement_do_not_lie_beside_another(own, measure):
    output, files = own / "measure", {"batch_sizes.csv", "batch_sizes.png"}
    calls = [("4", (1, 3), None, (1, 3)), ("12", (3,), (3, 4), ()), ("12", (3,), None, (3,)), ("12", (), None, ())]
    for step, sizes, interrupted, written in calls:
        flags = ("--step", step, *(("--batch-sizes", *map(str, sizes)) if sizes else ()))
        assert measure(own, *flags, interrupted=interrupted) == (130 if interrupted else 0)
        assert (summary_in(output)["step"], summary_in(output)["batch_sizes"]) == (int(step), list(written))
        assert {path.name for path in output.glob("batch_sizes.*")} == (files if written else set())


@pytest.mark.slow
def test_one_process_at_a_time_measures_into_a_folder(own, measure, capsys):
    (own / "measure").mkdir()
    with lock_folder(own / "measure"):
        assert measure(own) == 6
    assert f"{own / 'measure'} is in use" in capsys.readouterr().err
    with RunFolder.open(own):  # as a process that trains has it
        assert measure(own) == 0
    (own / "figures" / "lock").mkdir()
    assert measure(own, "--output", str(own / "figures")) == 2
    assert f"--output = '{own / 'figures'}'" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_a_bad_output(own, capsys):
    (own / "figures").chmod(0o500)
    for output in (own / "figures", own / "figures" / "new"):
        assert main(["measure", str(own), "--output", str(output)]) == 2
        assert "Permission denied" in capsys.readouterr().err


def test_a_file_in_the_making_is_named_after_its_process(tmp_path, monkeypatch):
    sources = []
    monkeypatch.setattr("gradweave.files.os.replace", lambda source, target: sources.append(source))
    for process in (11, 12):
        monkeypatch.setattr("gradweave.files.os.getpid", lambda process=process: process)
        write_atomically(tmp_path / "1.safetensors", "text")
    assert len(set(sources)) == 2
    assert set(tmp_path.glob(".*.safetensors.tmp")) == set(sources), "what pruning checkpoints removes"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("measure", "RUN", "--samples", "1"), 2, "--samples = 1"),
        (("measure", "RUN", "--samples", "3", "--estimators", "adaptive-mix:least-error"), 2, "at least 4"),
        (("measure", "RUN", "--burn-in", "-1"), 2, "--burn-in = -1"),
        (("measure", "RUN", "--estimators", "unroled"), 2, "adaptive-mix"),
        (("measure", "RUN", "--estimators", "truncated:3"), 2, "from 1 to 2"),
        (("measure", "RUN", "--estimators", "horizon-mix:1.5"), 2, "[0, 1]"),
        (("measure", "RUN", "--reference", "unroll:1"), 2, "at least 2"),
        (("measure", "RUN", "--reference", "pes"), 2, "MetaProblem"),
        (("measure", "RUN", "--batch-sizes", "0"), 2, "--batch-sizes = 0"),
        *(
            (("measure", "RUN", flag, "9" * digits), 2, f"{flag} = ")
            for flag in ("--samples", "--burn-in", "--horizons", "--batch-sizes", "--seed")
            for digits in (13, 400)
        ),
        (("measure", "RUN", "--reference", f"unroll:{'9' * 5000}"), 2, "--reference = "),
        (("play", "RUN", "--seed", "4294967296"), 2, "at most 4,294,967,295"),
        (("play", "RUN", "--max-steps", "9" * 400), 2, "--max-steps = "),
        (("check-environment", "snake", "--num-steps", "9" * 400), 2, "--num-steps = "),
        (("compare", "discounting-chain", "--at-once", "9" * 400), 2, "--at-once = "),
        (("sweep", "discounting-chain", "--sampler", "random", "--trials", "9" * 400), 2, "--trials = "),
        (("measure", "RUN", "--output", "RUN/config.toml"), 2, "choose another --output"),
        (("measure", "RUN", "--output", "RUN/config.toml/x"), 2, "a folder to write in"),
        (("measure", "RUNx"), 2, "did you mean"),
        (("measure", "RUN", "--step", "5"), 3, "there are 4, 12"),
        (("play", "RUN", "--max-steps", "0"), 2, "--max-steps = 0"),
        (("play", "RUN", "--output", "RUN/no/such/agent.gif"), 2, "a folder that exists"),
        (("play", "RUN", "--step", "5"), 3, "there are 4, 12"),
    ],
)
def test_bad_arguments(run, capsys, arguments, code, text):
    assert main([argument.replace("RUN", str(run)) for argument in arguments]) == code
    assert text in capsys.readouterr().err


def test_nothing_to_measure_without_meta_parameters(tmp_path, capsys):
    config = tiny_config(tmp_path, learned=())
    with RunFolder.create(config) as folder:
        folder.save_checkpoint(named_arrays({"any": np.zeros(1)}), 4)
    assert main(["measure", str(folder.path)]) == 2
    assert "--meta.learned" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("measure", "--samples", "1"),
        ("measure", "--estimators", "x"),
        ("measure", "--output", "RUN/config.toml"),
        ("play", "--step", "5"),
    ],
)
def test_jax_waits_until_the_arguments_are_good(run, arguments):
    command, *flags = (argument.replace("RUN", str(run)) for argument in arguments)
    done = subprocess.run(
        [sys.executable, "-c", PROBE, command, str(run), *flags], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip().endswith("[]")
    assert "PROBE 0" not in done.stdout
