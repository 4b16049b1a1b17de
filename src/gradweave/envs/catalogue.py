"""Every environment that has a name: what is seen of it, how it is acted in, and its options; plain data, without JAX.

An environment is one row. Sizes are those without options; a test compares each row with the environment itself.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["CATALOGUE", "REFUSED", "Option", "Row"]


class Option(NamedTuple):
    """What an option accepts: a switch, or a whole number between bounds."""

    lowest: int | None = None
    """Least number; None for a switch."""
    highest: int | None = None
    """Greatest number; None for no limit."""

    def __str__(self) -> str:
        if self.lowest is None:
            return "True or False"
        if self.highest is None:
            return f"a whole number of at least {self.lowest}"
        return f"a whole number from {self.lowest} to {self.highest}"

    def accepts(self, value: object) -> bool:
        """Whether `value` may be given."""
        if self.lowest is None:
            return isinstance(value, bool)
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return value >= self.lowest and (self.highest is None or value <= self.highest)


class Row(NamedTuple):
    """One environment."""

    view: tuple[int, ...]
    """Shape of `Observation.view`."""
    num_scalars: int
    num_actions: int
    """Discrete actions, or the length of a continuous one."""
    options: Mapping[str, Option] = {}
    continuous: bool = False
    place: tuple[str, str] | None = None
    """Module and attribute in gradweave.envs, for what is defined here."""
    note: str = ""
    """What else to know before making it."""

    @property
    def observation(self) -> str:
        """What is seen, such as "board 12 x 12 x 5, 1 number"."""
        kind = "vector" if len(self.view) == 1 else "board"
        more = f", {self.num_scalars} number{'s'[: self.num_scalars != 1]}" if self.num_scalars else ""
        return f"{kind} {' x '.join(map(str, self.view))}{more}"

    @property
    def actions(self) -> str:
        """How it is acted in, such as "4 discrete"."""
        return f"{self.num_actions} {'continuous' if self.continuous else 'discrete'}"


_NUM_STEPS: Final = {"num_steps": Option(1)}
_TIME_LIMIT: Final = {"time_limit": Option(1)}
_BOARD: Final = {"num_rows": Option(2), "num_cols": Option(2), **_TIME_LIMIT}
_MAX_STEPS: Final = {"max_steps_in_episode": Option(1)}

_OURS: Final[Mapping[str, Row]] = {
    "snake": Row((12, 12, 5), 1, 4, {**_BOARD, "grid_only": Option()}, place=("jumanji", "snake")),
    "discounting-chain": Row((5,), 1, 5, {"best_chain": Option(0, 4)}, place=("discounting_chain", "DiscountingChain")),
    "two-colors": Row((30,), 0, 4, {"size": Option(2), "swap_every": Option(1)}, place=("two_colors", "TwoColors")),
    "constant-reward": Row((1,), 0, 1, place=("probes", "ConstantReward")),
    "observed-reward": Row((1,), 0, 1, place=("probes", "ObservedReward")),
    "chosen-reward": Row((1,), 0, 2, place=("probes", "ChosenReward")),
    "matched-reward": Row((1,), 0, 2, place=("probes", "MatchedReward")),
    "masked-action": Row((1,), 0, 4, {"num_actions": Option(1)}, place=("probes", "MaskedAction")),
    "aimed-reward": Row((1,), 0, 1, continuous=True, place=("probes", "AimedReward")),
    "delayed-reward": Row((1,), 0, 1, place=("horizon_probes", "DelayedReward")),
    "truncated-reward": Row((1,), 0, 1, _NUM_STEPS, place=("horizon_probes", "TruncatedReward")),
    "terminated-reward": Row((1,), 0, 1, _NUM_STEPS, place=("horizon_probes", "TerminatedReward")),
}

_JUMANJI: Final[Mapping[str, Row]] = {
    "CVRP-v1": Row((126,), 0, 21),
    "Game2048-v1": Row((4, 4, 1), 0, 4, {"board_size": Option(2)}),
    "GraphColoring-v1": Row((421,), 0, 20),
    "Knapsack-v1": Row((150,), 0, 50),
    "Maze-v0": Row((105,), 0, 4, _TIME_LIMIT),
    "PacMan-v1": Row((31, 28, 1), 656, 5, _TIME_LIMIT),
    "SlidingTilePuzzle-v0": Row((5, 5, 1), 3, 4, _TIME_LIMIT),
    "Snake-v1": Row((12, 12, 5), 1, 4, _BOARD),
    "Sokoban-v0": Row((10, 10, 2), 1, 4, _TIME_LIMIT, note="fetches its levels when it is made"),
    "TSP-v1": Row((61,), 0, 20),
}
"""Jumanji's environments with one discrete action; options are handed to `jumanji.make`."""

_GYMNAX: Final[Mapping[str, Row]] = {
    "Acrobot-v1": Row((6,), 0, 3, _MAX_STEPS),
    "Asterix-MinAtar": Row((10, 10, 4), 0, 5, _MAX_STEPS),
    "BernoulliBandit-misc": Row((4,), 0, 2, _MAX_STEPS),
    "Breakout-MinAtar": Row((10, 10, 4), 0, 3, _MAX_STEPS),
    "CartPole-v1": Row((4,), 0, 2, _MAX_STEPS),
    "Catch-bsuite": Row((10, 5, 1), 0, 3, _MAX_STEPS),
    "DeepSea-bsuite": Row((8, 8, 1), 0, 2, _MAX_STEPS),
    "DiscountingChain-bsuite": Row((2,), 0, 5, _MAX_STEPS),
    "FourRooms-misc": Row((4,), 0, 4, _MAX_STEPS),
    "Freeway-MinAtar": Row((10, 10, 7), 0, 3, _MAX_STEPS),
    "FrozenLake-misc": Row((16,), 0, 4, _MAX_STEPS),
    "GaussianBandit-misc": Row((4,), 0, 2, _MAX_STEPS),
    "MNISTBandit-bsuite": Row((28, 28, 1), 0, 10, _MAX_STEPS, note="fetches its pictures when it is made"),
    "MemoryChain-bsuite": Row((3,), 0, 2, {"memory_length": Option(1), **_MAX_STEPS}),
    "MetaMaze-misc": Row((15,), 0, 4, _MAX_STEPS),
    "MountainCar-v0": Row((2,), 0, 3, _MAX_STEPS),
    "Pong-misc": Row((30, 40, 3), 0, 3, _MAX_STEPS),
    "Seaquest-MinAtar": Row((10, 10, 10), 0, 6, _MAX_STEPS),
    "SimpleBandit-bsuite": Row((1, 1, 1), 0, 11, _MAX_STEPS),
    "SpaceInvaders-MinAtar": Row((10, 10, 6), 0, 4, _MAX_STEPS),
    "UmbrellaChain-bsuite": Row((3,), 0, 2, _MAX_STEPS),
    "MountainCarContinuous-v0": Row((2,), 0, 1, _MAX_STEPS, continuous=True),
    "Pendulum-v1": Row((3,), 0, 1, _MAX_STEPS, continuous=True),
    "PointRobot-misc": Row((6,), 0, 2, _MAX_STEPS, continuous=True),
    "Reacher-misc": Row((8,), 0, 2, _MAX_STEPS, continuous=True),
    "Swimmer-misc": Row((16,), 0, 2, _MAX_STEPS, continuous=True),
}

CATALOGUE: Final[Mapping[str, Row]] = {
    **_OURS,
    **{f"jumanji:{name}": row for name, row in _JUMANJI.items()},
    **{f"gymnax:{name}": row for name, row in _GYMNAX.items()},
}
"""Every environment that can be made by its name."""

_SEVERAL_AT_ONCE: Final = {
    "BinPack-v2": "2 choices in each step (40 x 20)",
    "Cleaner-v0": "3 choices in each step, one for each agent",
    "Connector-v3": "10 choices in each step, one for each agent, and a reward for each",
    "FlatPack-v0": "4 choices in each step (25 x 4 x 9 x 9)",
    "JobShop-v0": "10 choices in each step, one for each machine",
    "LevelBasedForaging-v0": "2 choices in each step, one for each agent, and a reward for each",
    "MMST-v0": "3 choices in each step, one for each agent",
    "Minesweeper-v0": "2 choices in each step (10 x 10)",
    "MultiCVRP-v0": "2 choices in each step, one for each vehicle",
    "RobotWarehouse-v0": "4 choices in each step, one for each agent",
    "RubiksCube-partly-scrambled-v0": "3 choices in each step (6 x 1 x 3)",
    "RubiksCube-v0": "3 choices in each step (6 x 1 x 3)",
    "SearchAndRescue-v0": "2 continuous vectors in each step, one for each agent, and a reward for each",
    "Sudoku-v0": "3 choices in each step (9 x 9 x 9)",
    "Sudoku-very-easy-v0": "3 choices in each step (9 x 9 x 9)",
    "Tetris-v0": "2 choices in each step (4 x 10)",
}

REFUSED: Final[Mapping[str, str]] = {f"jumanji:{name}": f"takes {what}" for name, what in _SEVERAL_AT_ONCE.items()}
"""What the suites have beside, and why it cannot be made: the rest of a sentence that begins with the name."""
