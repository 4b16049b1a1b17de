"""How sure is a mean over seeds? Intervals of the baselines, from their CSV files alone; nothing is trained.

A row is a mean over seeds of evaluations of one arm (a library, a memory or a loss) on one game, with its 95 %
bootstrap interval over seeds: of the evaluation at `steps`, or of each seed's mean over the last three that end there.
The steps are the last ones, or those that stand beside a number from elsewhere. Intervals of five seeds are too short.

    python experiments/baselines/intervals.py results/baselines
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import games
import numpy as np

from gradweave.reports.tables import read_rows, write_rows
from gradweave.statistics.few_seeds import stratified_interval

Row = dict[str, Any]


class Source(NamedTuple):
    """Files whose rows belong together, and what their columns are called."""

    files: Sequence[str]
    game: str
    arm: str = "library"
    score: str = "return"
    where: tuple[str, str] | None = None
    """A column and the value that its rows have to have."""
    until: int | None = None
    """The environment steps of the evaluation that is read as the last; None: of the last one."""


BREAKOUT = "Breakout-MinAtar"
SOURCES = (
    *(
        Source([f"ppo/returns/{name}.csv"], game)
        for name, game in (
            ("cartpole", "CartPole"),
            ("acrobot", "Acrobot"),
            ("pendulum", "Pendulum"),
            ("breakout", BREAKOUT),
            ("space-invaders", "SpaceInvaders-MinAtar"),
        )
    ),
    Source(["ppo/returns/acrobot-rectifiers.csv"], "Acrobot", where=("library", "gradweave")),
    Source(["brax/physics.csv"], "inverted_pendulum"),
    Source(["jumanji/game_2048.csv"], "2048"),
    Source(["jumanji/game_2048.csv"], "2048", until=409_600),
    Source(["jumanji/snake.csv"], "Snake 12x12"),
    Source(["jumanji/snake.csv"], "Snake 12x12", until=59_840),
    Source(["jumanji/snake.csv", "jumanji/snake-more-seeds.csv"], "Snake 12x12", where=("library", "gradweave")),
    Source(["jumanji/snake-before.csv"], "Snake 12x12"),
    Source(["jumanji/snake-large-batches.csv"], "Snake 12x12"),
    Source(["jumanji/snake-losses.csv"], "Snake 12x12", "loss"),
    Source(["jumanji/snake-losses.csv"], "Snake 12x12", "loss", "fruits_of_1000_steps"),
    Source(["memory-chain/seeds.csv"], "MemoryChain", "memory"),
    *(
        Source(["games/games.csv"], game, "learner", where=("game", game))
        for game in sorted({*games.PPO, *games.VTRACE})
    ),
    # Beside public runs and beside other constants:
    Source(["ppo/returns/cartpole.csv"], "CartPole", until=70_000),
    Source(["ppo/returns/breakout.csv"], BREAKOUT, until=301_056),
    Source(["../auto/breakout/starts.csv"], BREAKOUT, "arm", "evaluation_return", ("start", "swept")),
    *(
        Source(["../auto/breakout/long.csv"], BREAKOUT, "arm", "evaluation_return", until=until)
        for until in (1_106_944, 1_475_584, None)
    ),
)


def curves(results: Path, source: Source) -> dict[str, dict[str, dict[int, float]]]:
    """Scores by arm, seed and environment steps."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for file in source.files:
        for row in read_rows(results / file):
            if source.where is None or row[source.where[0]] == source.where[1]:
                curve = found.setdefault(row[source.arm], {}).setdefault(row["seed"], {})
                curve[int(row["environment_steps"])] = float(row[source.score])
    return found


def intervals(results: Path, source: Source) -> list[Row]:
    """For each arm a row of the last evaluation and, where no steps are asked for, one of the last three.

    Raises:
        ValueError: a seed was not evaluated at the steps that are asked for, or seeds end at different ones.
    """
    table = []
    for arm, by_seed in curves(results, source).items():
        ends = {max(curve) for curve in by_seed.values()}
        last = source.until if source.until is not None else max(ends)
        if len(ends) > 1 or any(last not in curve for curve in by_seed.values()):
            raise ValueError(f"{source.files}: not every seed of {arm} was evaluated at {last} steps; {ends} are last.")
        for evaluations in (1,) if source.until is not None else (1, 3):
            places = [sorted(step for step in curve if step <= last)[-evaluations:] for curve in by_seed.values()]
            scores = [np.mean([curve[step] for step in at]) for curve, at in zip(by_seed.values(), places, strict=True)]
            found = stratified_interval(np.mean, scores)
            table.append(
                {
                    "files": " ".join(source.files),
                    "game": source.game,
                    "arm": arm,
                    "score": source.score,
                    "seeds": len(scores),
                    "steps": last,
                    "evaluations": evaluations,
                    "mean": float(found.value),
                    "low": float(found.low),
                    "high": float(found.high),
                }
            )
    return table


def main(results: Path) -> None:
    write_rows(results / "intervals.csv", [row for source in SOURCES for row in intervals(results, source)])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
