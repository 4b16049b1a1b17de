"""Every row of the catalogue against the environment that it describes, and against the suites' own lists."""

import jax
import pytest

from gradweave.envs import check_environment, make_environment
from gradweave.envs.catalogue import CATALOGUE, UNTRIED
from gradweave.envs.foreign import foreign_code
from gradweave.envs.suites import missing, suite_of

FETCHED = {name for name, row in CATALOGUE.items() if "fetches" in row.note}
OWN = [name for name in CATALOGUE if ":" not in name]
ENVELOPE = {name for name in CATALOGUE if name.startswith("envelope:")}


def describes(name: str) -> None:
    """The row's sizes are the environment's, and the environment keeps the contract."""
    row, environment = CATALOGUE[name], make_environment(name)
    _, seen = jax.eval_shape(lambda key: environment.reset(key=key), jax.random.key(0))
    assert (row.view, row.num_scalars) == (seen.view.shape, seen.scalars.shape[0])
    made = (environment.num_actions, environment.action_sizes, environment.continuous)
    assert (row.num_actions, row.action_sizes, row.continuous) == made
    report = check_environment(environment, num_steps=100, num_copies=2)
    assert report.ok, report


@pytest.mark.parametrize("name", [*(name for name in OWN if name != "snake"), "gymnax:CartPole-v1"])
def test_a_row_describes_an_environment_that_keeps_the_contract(name: str) -> None:
    describes(name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:scatter inputs have incompatible types:FutureWarning")  # within BinPack
@pytest.mark.parametrize("name", [*sorted(set(CATALOGUE) - {*OWN, *ENVELOPE, "gymnax:CartPole-v1"} - FETCHED), "snake"])
def test_a_row_of_a_suite_describes_an_environment_that_keeps_the_contract(name: str) -> None:
    describes(name)


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore")  # of suites that are nobody's dependency
@pytest.mark.parametrize(
    "name",
    [
        "brax/inverted_pendulum",
        "navix/Navix-Empty-5x5-v0",
        "craftax/Craftax-Classic-Symbolic-v1",
        "mujoco_playground/CartpoleBalance",
    ],
)
def test_a_row_of_jax_envelope_describes_an_environment_that_keeps_the_contract(name: str) -> None:
    suite = suite_of(f"envelope:{name}")
    assert suite is not None
    if lacking := missing(suite):
        pytest.skip(f"{suite.title} {lacking}")
    describes(f"envelope:{name}")


def test_what_could_not_be_tried_has_no_row() -> None:
    assert UNTRIED and not UNTRIED & set(CATALOGUE)


@pytest.mark.slow
def test_the_suites_have_nothing_else() -> None:
    with foreign_code():
        import gymnax
        import jumanji

    listed = set(CATALOGUE) - ENVELOPE
    names = {f"gymnax:{name}" for name in gymnax.registered_envs}
    names |= {f"jumanji:{name}" for name in jumanji.registered_environments()}
    assert names == {name for name in listed if ":" in name}


def test_sizes_are_said_in_words() -> None:
    assert CATALOGUE["snake"].observation == "board 12 x 12 x 5, 1 number"
    assert CATALOGUE["jumanji:SlidingTilePuzzle-v0"].observation == "board 5 x 5 x 1, 3 numbers"
    assert CATALOGUE["gymnax:CartPole-v1"].observation == "vector 4"
    assert CATALOGUE["gymnax:CartPole-v1"].actions == "2 discrete"
    assert CATALOGUE["gymnax:Pendulum-v1"].actions == "1 continuous"
    assert CATALOGUE["jumanji:Cleaner-v0"].actions == "3 x 4 discrete"
    assert CATALOGUE["jumanji:Cleaner-v0"]._replace(action_sizes=(4, 8)).actions == "4 + 8 discrete"
