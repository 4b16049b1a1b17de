"""The Python API against the command line: the same files and the same numbers, to the bit."""

import csv
import dataclasses
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

import gradweave as gw
from gradweave.agents import bundled_apply, network_policy
from gradweave.cli.main import main
from gradweave.envs import VectorEnvironment, make_environment
from gradweave.errors import CheckpointError, ConfigError, NonFiniteError
from gradweave.measurement.options import MeasureOptions
from gradweave.rl import Categorical, NetworkOutput
from gradweave.runs.checkpoints import SavedArray, write
from gradweave.runs.identity import identify
from gradweave.runs.metrics import format_row, parse_row
from gradweave.runs.metrics_table import MetricsTable
from gradweave.runs.run_folder import RunFolder
from gradweave.training.build import build_agent, init_state

FLAGS = ["--inner.num-envs", "4", "--inner.num-steps", "5", "--meta.num-inner-steps", "2", "--chunk-size", "3"]
FLAGS += ["--evaluation-episodes", "2", "--max-episode-steps", "110", "--measure-samples", "8", "--finish", "none"]
FLAGS += ["--network.policy-layers", "4", "--network.value-layers", "4"]


def small(runs_dir: Path, total_steps: int = 240) -> gw.Config:
    return gw.configure(
        "discounting-chain",
        inner={"num_envs": 4, "num_steps": 5},
        meta={"num_inner_steps": 2},
        network={"policy_layers": [4], "value_layers": [4]},
        run={
            "total_steps": total_steps,
            "chunk_size": 3,
            "evaluation_episodes": 2,
            "max_episode_steps": 110,
            "measure_samples": 8,
            "finish": "none",
            "runs_dir": str(runs_dir),
        },
    )


@pytest.fixture(name="run", scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> gw.Run:
    """Trained by a call."""
    return gw.train(small(tmp_path_factory.mktemp("runs")), quiet=True)


@pytest.mark.slow
def test_a_call_and_a_command_train_the_same(run: gw.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "discounting-chain", *FLAGS, "--total-steps", "240", "--runs-dir", str(tmp_path)]
    assert main(arguments) == 0
    (path,) = tmp_path.iterdir()
    assert run.path is not None
    assert (path / "metrics.jsonl").read_bytes() == (run.path / "metrics.jsonl").read_bytes()
    files = sorted((path / "checkpoints").iterdir())
    assert [file.name for file in files] == [f"{step:012d}.safetensors" for step in (20, 260)]
    for file in files:  # their headers differ, in which the configuration names the folder of all runs
        one, other = (load_file(each / "checkpoints" / file.name) for each in (path, run.path))
        assert {name: value.tobytes() for name, value in one.items()} == {
            name: value.tobytes() for name, value in other.items()
        }
    shown = capsys.readouterr()
    assert shown.out.strip() == run.summary.replace(str(run.path), str(path))
    assert "report" not in shown.out and not (path / "report.html").exists() and not (path / "agent.gif").exists()
    assert not (path / "measurement.json").exists()


@pytest.mark.slow
def test_a_run_is_read_back(run: gw.Run) -> None:
    assert run.path is not None
    read = gw.load_run(run.path)
    for found, wanted in zip(jax.tree.leaves(read.state.learner), jax.tree.leaves(run.state.learner), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert (read.step, read.config, read.path, read.eta) == (run.step, run.config, run.path, run.eta)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    np.testing.assert_array_equal(read.metrics["eta/discount"], [line["eta/discount"] for line in lines])
    assert read.metrics["step"][-1] == run.step == 260
    with pytest.raises(CheckpointError, match="there are 20, 260"):
        gw.load_run(run.path, 5)
    with pytest.raises(ConfigError, match="did you mean"):
        gw.load_run(f"{run.path}x")


@pytest.mark.slow
def test_the_policy_is_the_one_that_plays(run: gw.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The chain is the same in every episode, so that a greedy one by hand has the return that `play` prints."""
    output = tmp_path / "agent.gif"
    assert main(["play", str(run.path), "--greedy", "--output", str(output), "--seed", "3"]) == 0
    shown = capsys.readouterr().out.split()
    key, total, length, ended = jax.random.key(0), 0.0, 0, False
    state, observation = run.environment.reset(key=key)
    step = jax.jit(lambda state, action: run.environment.step(state, action, key=key))
    while not ended:
        state, outcome = step(state, run.policy(observation))
        observation, total, length = outcome.observation, total + float(outcome.reward), length + 1
        ended = bool(outcome.terminated | outcome.truncated)
    assert (total, length) == (pytest.approx(float(shown[1])), int(shown[3]))
    greedy = run.evaluate(2, greedy=True, max_steps=110)
    np.testing.assert_allclose(greedy.returns, total)


@pytest.mark.slow
def test_a_sampled_action_follows_the_policy_and_its_key(run: gw.Run) -> None:
    _, observation = run.environment.reset(key=jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 400)
    actions = jax.vmap(lambda key: run.policy(observation, key=key))(keys)
    logits = bundled_apply(run.state.learner.params, observation, None)[0]
    frequencies = np.bincount(actions, minlength=len(logits)) / 400
    np.testing.assert_allclose(frequencies, jax.nn.softmax(logits), atol=0.1)
    assert run.policy(observation) == logits.argmax()


@pytest.mark.slow
def test_an_agent_in_memory_learns_what_its_configuration_does(run: gw.Run, tmp_path: Path) -> None:
    """Nor does it matter that the run with a folder stopped, and went on by `resume`."""
    assert run.path is not None
    resumed = gw.resume(shutil.copytree(run.path, tmp_path / "run"), total_steps=480, quiet=True)
    config = small(tmp_path)
    agent = build_agent(config)
    start = jax.jit(lambda key: init_state(agent, config, key=key))  # as the loop does: rounds in the same way
    params = start(jax.random.key(config.run.seed)).learner.params
    key = jax.random.split(jax.random.key(config.run.seed), 3)[2]  # the one that `init_state` hands to the agent
    trained = gw.train(agent, params, total_steps=480, key=key, chunk_size=3, quiet=True)
    assert trained.step == resumed.step == 500
    assert (trained.path, trained.config) == (None, None)
    assert set(trained.metrics) == set(resumed.metrics) - {
        name for name in resumed.metrics if name.startswith("evaluation/")
    }
    for name in trained.metrics:  # rows in the file have as many digits as they need
        np.testing.assert_array_equal(trained.metrics[name], resumed.metrics[name], err_msg=name)
    with pytest.raises(ConfigError, match="configuration"):
        trained.play(tmp_path / "agent.gif")


@pytest.mark.slow
def test_what_training_an_agent_refuses(run: gw.Run) -> None:
    params, key = run.state.learner.params, jax.random.key(0)
    with pytest.raises(TypeError, match="params, total_steps and key"):
        gw.train(run.agent, params)
    with pytest.raises(TypeError, match="belong to an agent"):
        gw.train("quick", params)
    with pytest.raises(ValueError, match="at least 1"):
        gw.train(run.agent, params, total_steps=0, key=key)
    with pytest.raises(NonFiniteError, match="meta_gradient/discount"):
        gw.train(run.agent, jax.tree.map(lambda leaf: leaf * np.nan, params), total_steps=1, key=key, chunk_size=3)


@pytest.mark.slow
def test_measuring_by_a_call_and_by_a_command(
    run: gw.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("unrolled", "truncated:1")
    flags = ["--samples", "8", "--burn-in", "1", "--estimators", *names, "--output", str(tmp_path / "a")]
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)
    assert main(["measure", str(run.path), *flags]) == 0
    in_memory = gw.measure(dataclasses.replace(run, path=None), samples=8, burn_in=1, estimators=names)
    with np.load(tmp_path / "a" / "samples.npz") as saved:
        np.testing.assert_array_equal(in_memory.samples.contributions, saved["contributions"])
    assert str(in_memory) in capsys.readouterr().out
    assert in_memory.files == ()
    # Of a run with a folder the files are the command's; the samples are not drawn once more.
    monkeypatch.setattr("gradweave.measurement.sampling.measure_agent", lambda *_, **__: in_memory.samples)
    found = gw.measure(run, samples=8, burn_in=1, estimators=names, output=tmp_path / "b")
    table = (tmp_path / "a" / "estimators.csv").read_bytes()
    assert found.files[0].read_bytes() == table
    own = [line for line in csv.DictReader(table.decode().splitlines()) if line["estimator"] in names]
    np.testing.assert_array_equal([row.value for row in found.rows], [float(line["value"]) for line in own])
    with pytest.raises(ValueError, match="need a run with a folder"):
        gw.measure(dataclasses.replace(run, path=None), step=260)
    with pytest.raises(ConfigError, match="--samples = 1"):
        gw.measure(run, samples=1)


measure_unchecked = inspect.unwrap(gw.measure)
"""Without the check of its result's type, which tests make."""


class Pair(NamedTuple):
    """Two entropy costs, of which a loss takes the mean, and a learning rate."""

    entropy_cost: Any
    learning_rate: Any


def two_costs() -> gw.SelfTuning:
    def outputs(params: Any, observation: Any, conditioning: Any) -> NetworkOutput:
        logits = observation.view @ params
        return NetworkOutput(logits, jnp.zeros(logits.shape[:-1]), None)

    def log_probs(params: Any, trajectory: Any) -> Any:
        return jax.nn.log_softmax(trajectory.observations.view[:-1] @ params)

    def loss(params: Any, targets: Any, eta: Pair, trajectory: Any) -> Any:
        found = log_probs(params, trajectory)
        return (found * (eta.entropy_cost.mean() * jnp.exp(found) - targets[..., None])).mean(), {}

    def outer_loss(state: Any, trajectory: Any) -> Any:
        return -(log_probs(state.params, trajectory) * trajectory.rewards[..., None]).mean(), {}

    learner = gw.GradientLearner(
        targets=lambda params, eta, trajectory: trajectory.rewards,
        loss=loss,
        optimizer=gw.differentiable(optax.scale_by_adam()),
        learning_rate=lambda eta: eta.learning_rate,
        outer_loss=outer_loss,
    )
    environment = make_environment("discounting-chain")
    spec = Pair(gw.Positive(), gw.Fixed())
    return gw.SelfTuning(
        agent=gw.Agent(problem=learner, act=network_policy(outputs, Categorical(environment.num_actions))),
        environment=VectorEnvironment(environment, num_envs=2),
        initial_raw=gw.unconstrain(Pair(jnp.array([0.01, 0.02]), 0.1), spec),
        spec=spec,
        estimator=gw.Unrolled(),
        mode=gw.ReverseMode(),
        meta_optimizer=optax.adam(0.1),
        num_inner_steps=1,
        num_steps=3,
    )


@pytest.mark.slow
def test_an_array_among_the_meta_parameters_is_logged_entry_by_entry(capfd: pytest.CaptureFixture[str]) -> None:
    agent = two_costs()
    environment = agent.environment.environment
    view = jax.eval_shape(lambda key: environment.reset(key=key)[1].view, jax.random.key(0))
    params = jnp.zeros((view.size, environment.num_actions))
    trained = gw.train(agent, params, total_steps=12, key=jax.random.key(0), chunk_size=2)
    costs = ["entropy_cost[0]", "entropy_cost[1]"]
    assert list(trained.eta) == [*costs, "learning_rate"]
    shown = capfd.readouterr().err
    for name in costs:
        assert name in shown
        assert trained.metrics[f"eta/{name}"][-1] == pytest.approx(trained.eta[name])
        assert {f"raw/{name}", f"meta_gradient/{name}"} <= set(trained.metrics)
    row = trained.metrics.rows[-1]
    read = parse_row(Path("metrics.jsonl"), format_row(row))
    assert MetricsTable([read])["eta/entropy_cost[1]"][0] == pytest.approx(trained.eta[costs[1]])
    with pytest.raises(ValueError, match="only single numbers are measured, and entropy_cost is an array"):
        gw.measure(trained, samples=8)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"output": "folder"}, {"output": Path("folder")}),
        ({"estimators": "unrolled"}, {"estimators": ("unrolled",)}),
        ({"estimators": ["unrolled"]}, {"estimators": ("unrolled",)}),
        ({"batch_sizes": 4}, {"batch_sizes": (4,)}),
        ({"batch_sizes": np.array([4, 8])}, {"batch_sizes": (4, 8)}),
        ({"samples": 8.0, "seed": np.int64(3)}, {"samples": 8, "seed": 3}),
        ({"samples": "8"}, "--samples = '8'"),
        ({"samples": 2.5}, "--samples = 2.5"),
        ({"batch_sizes": "4"}, "--batch-sizes"),
        ({"estimators": 3}, "--estimators"),
        ({"reference": 3}, "--reference = 3"),
        ({"output": 3}, "--output = 3"),
    ],
)
def test_options_of_a_measurement_are_taken_as_they_are_declared(
    given: dict[str, Any], taken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[MeasureOptions] = []
    monkeypatch.setattr("gradweave.api.measuring.measure_run", lambda path, options: asked.append(options))
    if isinstance(taken, str):
        with pytest.raises(ConfigError, match=taken):
            measure_unchecked("run", **given)
    else:
        measure_unchecked("run", **given)
        (options,) = asked
        assert options == MeasureOptions(**taken)
        assert all(type(getattr(options, name)) is type(value) for name, value in taken.items() if name != "output")


def test_metrics_that_are_missing_or_not_finite() -> None:
    rows = [{"step": 1, "a": None, "nonfinite": {"a": "-inf"}}, {"step": 2, "b": 3}, {"step": 3, "a": 0.5}]
    table = MetricsTable(rows)
    assert list(table) == ["step", "a", "b"] and len(table) == 3
    np.testing.assert_array_equal(table["a"], [-np.inf, np.nan, 0.5])
    np.testing.assert_array_equal(table.series("b"), [[2], [3]])
    with pytest.raises(KeyError, match="did you mean 'step'"):
        table["stepp"]


def test_what_configure_refuses() -> None:
    assert gw.configure("snake-6x6").inner.num_envs == 512
    with pytest.raises(ConfigError, match=r"did you mean inner\.discount"):
        gw.configure(inner={"discout": 0.9})
    with pytest.raises(ConfigError, match=r"inner\.discount = 1\.5"):
        gw.configure(inner={"discount": 1.5})


def test_a_wrong_type_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    """In a process of its own, as tests check annotations."""
    config = small(tmp_path)
    with RunFolder.create(config) as folder:
        file = folder.checkpoints / f"{10**5:012d}.safetensors"
        write(file, {"x": SavedArray(np.array(1), "int64")}, 10**5, identify(config, None))
        (folder.path / "report.html").touch()
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file() and path.name != "lock"}
    code = """if True:
        import sys
        import numpy as np
        import gradweave as gw
        from pathlib import Path
        from gradweave.errors import ConfigError
        from gradweave.api import training
        from gradweave.config.toml_file import read_config
        path = sys.argv[1]
        config = read_config(Path(path) / "config.toml")
        for call, what in ((gw.train, config), (gw.resume, path)):
            for bad in ("400", 1.5, float("nan"), [400]):
                try:
                    call(what, total_steps=bad, quiet=True)
                except ConfigError as error:
                    assert error.field == "run.total_steps" and "a whole number" in error.accepted, error
                else:
                    raise AssertionError(bad)
        for name, bad in (("devices", "two"), ("devices", 1.5), ("track", "bogus")):
            try:
                gw.resume(path, **{name: bad}, quiet=True)
            except ConfigError as error:
                assert error.field == f"run.{name}", error
            else:
                raise AssertionError(bad)
        for steps in (1e6, np.int64(10**6)):
            with training.open_to_resume(Path(path), total_steps=steps) as folder:
                assert repr(folder.config.run.total_steps) == "1000000"
            training.launch = lambda *_, config, **__: sys.exit(repr(config.run.total_steps) != "1000000")
            try:
                gw.train(config, total_steps=steps)
            except SystemExit as end:
                assert not end.code
            else:
                raise AssertionError(steps)
    """
    subprocess.run([sys.executable, "-c", code, str(folder.path)], check=True)
    assert {path: path.read_bytes() for path in before} == before
    assert [path.name for path in tmp_path.iterdir()] == [folder.path.name]
