"""What the catalogue says has been learned is what the tables in results/ say."""

import csv
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import pytest

from gradweave.envs.catalogue import CATALOGUE
from gradweave.envs.row import Learned

RESULTS = Path(__file__).parents[2] / "results"


class Table(NamedTuple):
    """Where a record's returns lie: the rows whose column has a value, the last of each seed."""

    file: str
    column: str
    value: str
    step: str = "environment_steps"
    score: str = "return"


def beside_rejax(game: str) -> list[Table]:
    return [Table(f"baselines/ppo/returns/{game}.csv", "library", library) for library in ("gradweave", "rejax")]


def beside_jumanji(game: str) -> list[Table]:
    return [Table(f"baselines/jumanji/{game}.csv", "library", library) for library in ("gradweave", "jumanji")]


def through_envelope(run: str) -> list[Table]:
    return [Table("baselines/envelope/evaluations.csv", "run", run)]


def of_games(game: str) -> Table:
    return Table("baselines/games/games.csv", "game", game)


TABLES = {
    "envelope:mujoco_playground/CartpoleBalance": through_envelope("cartpole-balance"),
    "envelope:navix/Navix-DoorKey-5x5-v0": through_envelope("navix-doorkey"),
    "envelope:navix/Navix-Empty-5x5-v0": through_envelope("navix-empty"),
    "envelope:brax/inverted_pendulum": [
        Table("baselines/brax/physics.csv", "library", library) for library in ("gradweave", "brax")
    ],
    "snake": [
        Table("demo/rows.csv", "", "", "step", "evaluation/return"),
        Table("returns-snake-long/final.csv", "arm", "plain-swept", score="final_return"),
        *beside_jumanji("snake"),
    ],
    "jumanji:Game2048-v1": beside_jumanji("game_2048"),
    "gymnax:Acrobot-v1": beside_rejax("acrobot"),
    "gymnax:Breakout-MinAtar": [
        Table("auto/breakout/long.csv", "arm", "auto", score="evaluation_return"),
        *beside_rejax("breakout"),
    ],
    "gymnax:CartPole-v1": [*beside_rejax("cartpole"), of_games("gymnax:CartPole-v1")],
    "gymnax:SpaceInvaders-MinAtar": beside_rejax("space-invaders"),
    "gymnax:Pendulum-v1": [*beside_rejax("pendulum"), of_games("gymnax:Pendulum-v1")],
    **{
        name: [of_games(name)]
        for name in (
            "gymnax:Catch-bsuite",
            "gymnax:DeepSea-bsuite",
            "gymnax:FourRooms-misc",
            "gymnax:Freeway-MinAtar",
            "gymnax:FrozenLake-misc",
            "jumanji:Maze-v0",
            "jumanji:SlidingTilePuzzle-v0",
        )
    },
    "gymnax:MemoryChain-bsuite": [
        Table("baselines/memory-chain/seeds.csv", "memory", memory) for memory in ("s5", "gru")
    ],
}


def test_every_record_has_a_table() -> None:
    assert {name: len(tables) for name, tables in TABLES.items()} == {
        name: len(row.learned) for name, row in CATALOGUE.items() if row.learned
    }


@pytest.mark.parametrize(
    ("learned", "table"),
    [
        pytest.param(learned, table, id=f"{name}-{learned.by}")
        for name, tables in TABLES.items()
        for learned, table in zip(CATALOGUE[name].learned, tables, strict=True)
    ],
)
def test_records_are_what_was_measured(learned: Learned, table: Table) -> None:
    with (RESULTS / table.file).open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if not table.column or row[table.column] == table.value]
    played = sorted((row for row in rows if row[table.score]), key=lambda row: int(row[table.step]))
    last = {row["seed"]: row for row in played}
    assert {int(row[table.step]) for row in last.values()} == {learned.steps}
    assert len(last) == learned.seeds
    measured = mean(float(row[table.score]) for row in last.values())
    assert learned.mean_return == pytest.approx(measured, rel=0.005)


def test_environments_that_were_tried_by_hand_keep_the_contract_and_have_the_sizes_of_their_rows() -> None:
    with (RESULTS / "baselines/envelope/contract.csv").open(encoding="utf-8") as file:
        tried = {row["environment"]: row for row in csv.DictReader(file)}
    assert set(tried) == {name for name in CATALOGUE if name.startswith("envelope:")}
    broken = {name for name, row in tried.items() if row["breaches"]}
    assert broken == {"envelope:brax/swimmer"} and "cannot step it" in CATALOGUE["envelope:brax/swimmer"].note
    for name, found in tried.items():
        if name in broken:
            continue
        listed = CATALOGUE[name]
        sizes = (" x ".join(map(str, listed.view)), str(listed.num_scalars), str(listed.num_actions))
        assert (found["view"], found["scalars"], found["actions"]) == sizes, name
        assert found["continuous"] == str(listed.continuous), name
        assert listed.action_sizes is None, name
        assert int(found["terminated"]) + int(found["truncated"]) > 0, f"{name}: ends are unchecked"
