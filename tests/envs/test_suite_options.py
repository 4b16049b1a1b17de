"""Options of Jumanji's and gymnax's environments against the suites themselves."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from gradweave.envs import check_environment, make_environment
from gradweave.envs.catalogue import CATALOGUE
from gradweave.envs.jumanji import _either, _parameters

UNUSABLE = {"debug", "num_joints"}  # prints, and fits no other number

FETCHED = {"gymnax:MNISTBandit-bsuite", "jumanji:Sokoban-v0"}


def kinds(values: dict[str, Any]) -> dict[str, type]:
    """The numbers and switches among some values."""
    return {name: type(value) for name, value in values.items() if isinstance(value, (bool, int, float))}


def of_class(made: Any) -> dict[str, Any]:
    """Arguments of an object's class, where it keeps them."""
    names = [name for name in _parameters(made) if hasattr(made, name) or hasattr(made, f"_{name}")]
    return {name: _either(made, name) for name in names}


def of_gymnax(environment: Any) -> dict[str, Any]:
    fields = {field.name: getattr(environment.params, field.name) for field in dataclasses.fields(environment.params)}
    return of_class(environment.env) | fields


def of_jumanji(environment: Any) -> dict[str, Any]:
    env = environment.env.unwrapped
    generator = of_class(env).get("generator")
    return of_class(env) | ({} if generator is None else of_class(generator))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the suites
@pytest.mark.parametrize("suite", ["gymnax", "jumanji"])
def test_every_number_and_switch_is_an_option(suite: str) -> None:
    for name, row in CATALOGUE.items():
        if name.startswith(f"{suite}:") and name not in FETCHED:
            environment = make_environment(name)
            found = kinds(of_gymnax(environment) if suite == "gymnax" else of_jumanji(environment))
            assert set(found) - UNUSABLE <= set(row.options), name
            for option, kind in found.items():
                if option in row.options and option != "max_steps_in_episode":
                    accepted = row.options[option]
                    told = bool if accepted.switch else float if accepted.number else int
                    assert told is kind, (name, option)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "view", "num_actions"),
    [
        ("gymnax:BernoulliBandit-misc", {"max_steps_in_episode": 4}, (4,), 2),
        ("gymnax:CartPole-v1", {"gravity": 5}, (4,), 2),
        ("gymnax:DeepSea-bsuite", {"size": 6, "deterministic": False}, (6, 6, 1), 2),
        ("gymnax:FourRooms-misc", {"use_visual_obs": True}, (13, 13, 2), 4),
        ("gymnax:Pendulum-v1", {"max_torque": 1.5}, (3,), 1),
        ("jumanji:Maze-v0", {"num_rows": 5, "time_limit": 7}, (55,), 4),
        ("jumanji:Connector-v3", {"grid_size": 6, "num_agents": 3}, (6, 6, 1), 15),
        ("jumanji:Cleaner-v0", {"penalty_per_timestep": 0.25, "num_agents": 2}, (10, 10, 1), 8),
    ],
)
def test_options_reach_the_suite(name: str, options: dict[str, Any], view: tuple[int, ...], num_actions: int) -> None:
    environment = make_environment(name, **options)
    made = of_gymnax(environment) if name.startswith("gymnax:") else of_jumanji(environment)
    assert {option: made[option] for option in options} == options
    assert environment.num_actions == num_actions
    _, seen = jax.eval_shape(lambda key: environment.reset(key=key), jax.random.key(0))
    assert seen.view.shape == view
    report = check_environment(environment, num_steps=8, num_copies=2)
    assert report.ok, report


@pytest.mark.slow
def test_other_options_of_the_levels_stay_as_they_are() -> None:
    made = of_jumanji(make_environment("jumanji:RubiksCube-partly-scrambled-v0", cube_size=2))
    assert (made["cube_size"], made["num_scrambles_on_reset"], made["time_limit"]) == (2, 7, 20)


@pytest.mark.slow
def test_a_torque_is_the_end_of_the_range() -> None:
    environment = make_environment("gymnax:Pendulum-v1", max_torque=1, g=0, dt=0.1)
    state, _ = environment.reset(key=jax.random.key(0))
    after, _ = environment.step(state, jnp.ones(1), key=jax.random.key(1))
    # Without gravity the velocity gains 3 torque / (m l^2) in each unit of time.
    assert float(after.theta_dot - state.theta_dot) == pytest.approx(0.3, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("gymnax:MetaMaze-misc", {"maze_size": 8}, r"maze_size = 8.* \(AssertionError\): choose"),
        ("jumanji:RobotWarehouse-v0", {"shelf_columns": 2}, "shelf_columns = 2.*must be an odd number.*: choose"),
        ("gymnax:CartPole-v1", {"gravity": "heavy"}, "gravity = 'heavy' .* give a number"),
        ("gymnax:CartPole-v1", {"gravity": float("inf")}, "gravity = inf .* give a number"),
        ("gymnax:CartPole-v1", {"gravity": True}, "gravity = True .* give a number"),
    ],
)
def test_values_that_the_suite_refuses_are_named(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_environment(name, **options)
