"""What the benchmarks compare is the same work: the naive loop takes the agent's gradient, the toy is what it says."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import jumanji_trainer
import peers
import variants
from run import SMALLEST
from timing import alternate, spread
from workers import SeedsInProcesses

SIZES = {name: value for name, value in SMALLEST.items() if name != "inner.microbatches"}


def test_ratios_are_of_calls_in_the_same_round() -> None:
    calls: list[str] = []
    programs = {name: lambda name=name: calls.append(name) for name in ("one", "two")}
    seconds = alternate(programs, 3, least_seconds=0.0)
    assert {name: len(values) for name, values in seconds.items()} == {"one": 3, "two": 3}
    rounds = np.array(calls[4:]).reshape(3, 2)
    assert all(set(pair) == {"one", "two"} for pair in rounds)
    assert spread([4.0, 1.0, 2.0, 3.0, 5.0]) == (3.0, 2.0, 4.0)


@pytest.mark.parametrize("game", jumanji_trainer.JUMANJI_SIZES)
def test_a_unit_of_ours_has_the_environment_steps_that_are_divided_by(game) -> None:
    sizes = jumanji_trainer.JUMANJI_SIZES[game]
    agent, config = variants.agent_for(sizes, 0, 5)
    assert agent.steps_per_rollout == sizes["inner.num_envs"] * sizes["inner.num_steps"]
    assert config.meta.num_inner_steps == 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of code that is not ours
@pytest.mark.parametrize(
    "replaced",
    [lambda own: own, lambda own: jumanji_trainer.with_our_network(own, "2048")],
    ids=["its network", "our network"],
)
def test_one_call_of_jumanjis_trainer_makes_the_steps_that_it_says(monkeypatch, replaced) -> None:
    for needed in ("haiku", "rlax", "distrax"):
        pytest.importorskip(needed)
    small = {**jumanji_trainer.JUMANJI_SIZES["2048"], "inner.num_envs": 3, "inner.num_steps": 2}
    monkeypatch.setattr(jumanji_trainer, "JUMANJI_SIZES", {"2048": small})
    monkeypatch.setattr(jax, "local_device_count", lambda *_: 1)  # the tests have several, the trainer would split
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        program = jumanji_trainer.JumanjiA2C("2048", 2, replaced)
        program()
        program()
    assert program.steps_per_call == 2 * 3 * 2
    assert program.state.acting_state.env_step_count[0] == 2 * program.steps_per_call
    assert program.state.params_state.update_count[0] == 2 * 2


@pytest.mark.slow
def test_the_naive_loop_takes_the_same_meta_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {}

    class Once:
        """Runs the function once instead of compiling a donated program."""

        def __init__(self, function, state, calls_per_unit):
            taken["result"] = jax.jit(function)(state)

    monkeypatch.setattr(variants, "Program", Once)
    variants.naive_meta_step(SIZES, 4, 2)
    naive = taken["result"][1]
    agent, config = variants.agent_for(SIZES, 4, 2)
    state = variants._start(agent, config)
    # The agent draws its window's keys as the loop does: both split the state's key once.
    metrics = jax.jit(lambda state: agent.step(state))(state)[1]
    for name in variants.LEARNED[4]:
        np.testing.assert_allclose(getattr(naive, name), getattr(metrics.grad, name), rtol=1e-8)
        assert getattr(naive, name) != 0


@pytest.mark.slow
def test_processes_step_when_called_and_end() -> None:
    with SeedsInProcesses(SIZES, 1, 2, 1) as processes:
        processes()
        processes()
        assert processes.calls_per_unit == 2 * 2
        (worker,) = processes._workers
    assert worker.returncode == 0


@pytest.mark.slow
def test_the_toy_is_a_discount_learned_through_one_update() -> None:
    gradient = peers.weave_toy(1)()
    # One step of SGD from 0 moves the values to G/10; the outer error is then a quadratic in the discounts.
    rewards = peers._toy_rewards(1)

    def backup(rewards, discounts):
        returns = [rewards[-1]]
        for reward, discount in zip(rewards[-2::-1], discounts[::-1], strict=True):
            returns.append(reward + discount * returns[-1])
        return np.array(returns[::-1], np.float64)

    def outer(raw):
        values = 0.1 * backup(rewards[0], 1 / (1 + np.exp(-raw)))
        return np.mean((values - backup(rewards[1], np.ones(9))) ** 2)

    step = 1e-5
    slopes = [(outer(step * unit) - outer(-step * unit)) / (2 * step) for unit in np.eye(9)]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-4)
