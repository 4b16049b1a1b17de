"""Names and options: what is accepted is made, what is not is refused with the nearest right name, without JAX."""

import subprocess
import sys

import pytest

from gradweave.envs import AbstractEnvironment, make_environment, registry, suites, validate_environment


def in_a_fresh_interpreter(code: str) -> list[str]:
    """The words that `code` prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.slow
def test_neither_checking_a_name_nor_importing_the_layer_loads_more_than_it_must() -> None:
    loaded = "print(*(name for name in ('jax', 'equinox', 'jumanji', 'gymnax', 'envelope') if name in sys.modules))"
    checked = (
        "import sys; from gradweave.envs.registry import validate_environment; import gradweave.envs;"
        "validate_environment('snake', {'num_rows': 6}); validate_environment('gymnax:CartPole-v1', {});" + loaded
    )
    assert in_a_fresh_interpreter(checked) == []
    imported = "import sys; from gradweave.envs import *;" + loaded
    assert in_a_fresh_interpreter(imported) == ["jax", "equinox"]


@pytest.mark.parametrize("name", [name for name in registry.ENVIRONMENTS if ":" not in name])
def test_every_name_of_our_own_is_made(name: str) -> None:
    environment = make_environment(name)
    assert isinstance(environment, AbstractEnvironment)
    assert environment == make_environment(name)


def test_options_reach_the_environment() -> None:
    environment = make_environment("snake", num_rows=3, num_cols=5, time_limit=7, grid_only=True)
    assert (environment.env.num_rows, environment.env.num_cols, environment.env.time_limit) == (3, 5, 7)
    assert environment.observe.grid_only
    assert make_environment("discounting-chain", best_chain=2).best_chain == 2
    assert make_environment("truncated-reward", num_steps=9).num_steps == 9
    assert make_environment("masked-action", num_actions=7).num_actions == 7
    assert make_environment("jumanji:Maze-v0", time_limit=7).env.time_limit == 7
    assert make_environment("gymnax:CartPole-v1", max_steps_in_episode=7).params.max_steps_in_episode == 7


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "snaek",
            {},
            r"no environment 'snaek' .*did you mean 'snake'\?; accepted: .*`gradweave environments`",
        ),
        ("Discounting_Chain", {}, "did you mean 'discounting-chain'"),
        ("Game2048-v1", {}, "did you mean 'jumanji:Game2048-v1'"),
        ("jumanji:Game2408-v1", {}, "did you mean 'jumanji:Game2048-v1'"),
        ("gymnax:Cartpole-v1", {}, "did you mean 'gymnax:CartPole-v1'"),
        ("qqqq", {}, "no environment 'qqqq' to train on: see `gradweave environments`; accepted"),
        ("SearchAndRescue-v0", {}, "did you mean 'jumanji:SearchAndRescue-v0'"),
        ("brax::ant", {}, "did you mean 'envelope:brax/ant'"),
        ("brax:ant", {}, "did you mean 'envelope:brax/ant'"),
        ("ant", {}, "did you mean 'envelope:brax/ant'"),
        ("envelope:pgx", {}, "pgx is one of games for two"),
        ("envelope:kinetix", {}, "kinetix has no published package"),
        ("games.py:Corridor", {}, r"without \.py: games:Corridor"),
        ("./mine/games.py:Corridor", {}, r"without \.py: mine\.games:Corridor"),
        ("/some/where/games.py:Corridor", {}, r"the folder that has games\.py, with the name games:Corridor"),
        ("envelope:mujoco_playground/Go1Getup", {}, r"cloned from a repo.*create\('mujoco_playground::Go1Getup'\)"),
        ("envelope:pgx/chess", {}, "pgx is one of games for two and more players.*`gradweave environments` lists"),
        ("envelope:jumanji/maze", {}, "jumanji is reached without jax-envelope: jumanji:Maze-v0"),
        ("jumanji:Tetris", {}, "did you mean 'jumanji:Tetris-v0'."),
        (
            "snake",
            {"num_row": 6},
            r"snake has no option 'num_row' \(did you mean 'num_rows'\?\); options are num_rows,",
        ),
        ("constant-reward", {"num_steps": 3}, "constant-reward has no option 'num_steps'; options are action_mask"),
        ("snake", {"num_rows": 1}, "num_rows = 1 does not fit snake: give a whole number of at least 2"),
        ("snake", {"num_rows": 6.0}, "num_rows = 6.0"),
        ("snake", {"num_cols": True}, "num_cols = True"),
        ("snake", {"time_limit": 0}, "time_limit = 0"),
        ("snake", {"grid_only": 1}, "grid_only = 1 does not fit snake: give True or False"),
        ("discounting-chain", {"best_chain": 5}, "best_chain = 5.*a whole number from 0 to 4"),
    ],
)
def test_mistakes_are_named_with_a_remedy(name: str, options: dict, message: str) -> None:
    for function in (lambda: validate_environment(name, options), lambda: make_environment(name, **options)):
        with pytest.raises(ValueError, match=message):
            function()


def test_a_suite_that_is_not_installed_is_said_to_be_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "gymnax>=1.0"'):
        make_environment("gymnax:CartPole-v1")
    validate_environment("discounting-chain", {})


def test_unknown_names_of_the_layer_are_attribute_errors() -> None:
    import gradweave.envs

    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        gradweave.envs.nothing_of_the_kind  # noqa: B018
    for name in gradweave.envs.__all__:
        assert getattr(gradweave.envs, name) is not None
        assert name in dir(gradweave.envs)
