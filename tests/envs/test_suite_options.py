"""Options of the suites' environments against the suites themselves."""

import dataclasses
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from gradweave.envs import check_environment, make_environment
from gradweave.envs.catalogue import CATALOGUE
from gradweave.envs.foreign import foreign_code
from gradweave.envs.jumanji import _either
from gradweave.envs.row import Option
from gradweave.envs.suites import missing, suite_of

UNUSABLE = {"debug", "num_joints"}  # prints, and fits no other number

FETCHED = {"gymnax:MNISTBandit-bsuite", "jumanji:Sokoban-v0"}


def kinds(values: dict[str, Any]) -> dict[str, type]:
    """The numbers, switches and words among some values."""
    return {name: type(value) for name, value in values.items() if isinstance(value, (bool, int, float, str))}


def of_class(made: Any) -> dict[str, Any]:
    """Arguments of an object's class, as it keeps them or else by default."""
    return {
        name: _either(made, name) if hasattr(made, name) or hasattr(made, f"_{name}") else parameter.default
        for name, parameter in inspect.signature(type(made)).parameters.items()
    }


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
                    told = bool if accepted.switch else float if accepted.number else str if accepted.words else int
                    assert told is kind, (name, option)


LEFT_OUT = {
    "brax": {"debug", "use_contact_forces", "contact_cost_weight", "asymmetric_obs", "obs_mode"},
    "craftax": {"max_timesteps", "max_attribute", "num_levels"},
    "mujoco_playground": {"episode_length", "action_repeat", "vision"},
    "navix": {"max_steps", "gamma", "disable_autoreset"},
}
"""Numbers, switches and words that are no options, as docs/suites.md says with the reason."""


def of_brax(name: str) -> dict[str, Any]:
    """Arguments of the class, and those that the classes hand on to `PipelineEnv`."""
    from brax import envs
    from brax.envs.base import PipelineEnv

    own, passed = (inspect.signature(kind.__init__).parameters for kind in (envs._envs[name], PipelineEnv))
    named = {**passed, **own} if "backend" in own else own  # `fast` has no body
    return {key: parameter.default for key, parameter in named.items()}


def of_navix(name: str) -> dict[str, Any]:
    """Fields that can be given beside those that the name fixes."""
    import navix

    made, open_fields = navix.make(name), {}
    for field in dataclasses.fields(made):
        try:
            navix.make(name, **{field.name: getattr(made, field.name)})
        except TypeError:  # "got multiple values for keyword argument"
            continue
        open_fields[field.name] = getattr(made, field.name)
    return open_fields


def of_craftax(name: str) -> dict[str, Any]:
    from craftax.craftax_env import make_craftax_env_from_name

    made = make_craftax_env_from_name(name, auto_reset=False)
    return {**vars(made.default_params), **vars(made.default_static_params())}


def of_playground(name: str) -> dict[str, Any]:
    from mujoco_playground import registry

    return dict(registry.get_default_config(name).items())


def kind_of(option: Option) -> type:
    return str if option.words else bool if option.switch else float if option.number else int


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore")  # of suites that are nobody's dependency
@pytest.mark.parametrize(
    ("suite", "of_suite"),
    [("brax", of_brax), ("navix", of_navix), ("craftax", of_craftax), ("mujoco_playground", of_playground)],
)
def test_every_number_switch_and_word_of_jax_envelopes_suites_is_an_option(suite: str, of_suite: Any) -> None:
    rows = {name: row for name, row in CATALOGUE.items() if name.startswith(f"envelope:{suite}/")}
    if lacking := missing(suite_of(next(iter(rows)))):
        pytest.skip(lacking)
    for name, row in rows.items():
        with foreign_code():
            found = of_suite(name.partition("/")[2])
        plain = {key: type(value) for key, value in found.items() if isinstance(value, (bool, int, float, str))}
        wanted = {key: kind for key, kind in plain.items() if key not in LEFT_OUT[suite]}
        options = {key: kind_of(option) for key, option in row.options.items() if key != "max_episode_steps"}
        assert options == wanted, name


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


def of_installed(name: str, **options: Any) -> Any:
    """An environment of jax-envelope, if its suite is installed."""
    suite = suite_of(name)
    assert suite is not None
    if lacking := missing(suite):
        pytest.skip(lacking)
    return make_environment(name, **options)


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore")  # of suites that are nobody's dependency
def test_a_penalty_is_the_share_of_the_time_limit_that_the_way_took() -> None:
    environment = of_installed("envelope:navix/Navix-Empty-5x5-v0", penalty_coeff=0.6, max_episode_steps=30)
    state, _ = environment.reset(key=jax.random.key(0))
    forward, right = 2, 1
    steps = []
    for action in (forward, forward, right, forward, forward):  # from a corner, facing east, to the opposite one
        state, step = environment.step(state, jnp.asarray(action), key=jax.random.key(0))
        steps.append((float(step.reward), bool(step.terminated)))
    assert steps[:4] == [(0.0, False)] * 4
    assert steps[4] == (pytest.approx(1 - 0.6 * 5 / 30), True)


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore")
def test_static_parameters_of_craftax_are_sizes_of_its_state() -> None:
    environment = of_installed("envelope:craftax/Craftax-Classic-Symbolic-v1", max_cows=5, cow_health=7)
    state, _ = jax.eval_shape(lambda key: environment.reset(key=key), jax.random.key(0))
    assert state.inner_state.env_state.cows.health.shape == (5,)
    assert environment.held.env.env.env_params.cow_health == 7
    assert environment.held.env.max_steps == 10_000, "Craftax's own limit"
