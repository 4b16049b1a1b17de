"""Every environment that has a name: its observations, actions and options; plain data, without JAX.

An environment is one row. Sizes are those without options; a test compares each row with the environment itself.
"""

from collections.abc import Mapping
from typing import Final

from gradweave.envs.envelope_rows import ENVELOPE, FETCHING
from gradweave.envs.row import Learned, Option, Row
from gradweave.envs.suite_options import GYMNAX_OPTIONS, JUMANJI_OPTIONS

__all__ = ["CATALOGUE", "UNTRIED", "Option", "Row"]

_NUM_STEPS: Final = {"num_steps": Option(1)}
_BOARD: Final = {"num_rows": Option(2), "num_cols": Option(2), "time_limit": Option(1)}
_MAX_STEPS: Final = {"max_steps_in_episode": Option(1)}

_TURN: Final = "face x layer x direction: 6 x 1 x 3"
_DIGIT: Final = "row x column x digit: 9 x 9 x 9"


def _beside_rejax(ours: float, theirs: float, steps: int) -> tuple[Learned, Learned]:
    """Our PPO and rejax's with its constants, in five seeds each."""
    return Learned("PPO", ours, steps, 5), Learned("rejax's PPO", theirs, steps, 5)


def _beside_jumanji(ours: float, theirs: float, steps: int) -> tuple[Learned, Learned]:
    """Our actor-critic and Jumanji's A2C with its constants, in five seeds each."""
    return Learned("the actor-critic", ours, steps, 5), Learned("Jumanji's A2C", theirs, steps, 5)


def _with_auto(mean_return: float, steps: int) -> tuple[Learned]:
    """PPO with the values of its preset and auto, in five seeds."""
    return (Learned("PPO with auto", mean_return, steps, 5),)


_OURS: Final[Mapping[str, Row]] = {
    "snake": Row(
        (12, 12, 5),
        1,
        4,
        {**_BOARD, "grid_only": Option()},
        place=("jumanji", "snake"),
        learned=(
            Learned("the actor-critic, preset quick", 25.8, 4_000_320, 3),
            Learned("the actor-critic, untuned and swept", 57.9, 30_016_320, 3),
            *_beside_jumanji(12.8, 14.05, 299_200),
        ),
    ),
    "discounting-chain": Row(
        (5,),
        1,
        5,
        {"best_chain": Option(0, 4)},
        place=("discounting_chain", "DiscountingChain"),
        note="see the study discounting-chain",
    ),
    "two-colors": Row(
        (30,),
        0,
        4,
        {"size": Option(2), "swap_every": Option(1), "step_cost": Option()},
        place=("two_colors", "TwoColors"),
        note="one stream without ends; see the study two-colors",
    ),
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
    "BinPack-v2": Row((380,), 0, 800, note="space x item: 40 x 20"),
    "CVRP-v1": Row((126,), 0, 21),
    "Cleaner-v0": Row((10, 10, 1), 7, 12, action_sizes=(4,) * 3),
    "Connector-v3": Row((10, 10, 1), 1, 50, action_sizes=(5,) * 10),
    "FlatPack-v0": Row((11, 11, 1), 225, 8100, note="block x turn x row x column: 25 x 4 x 9 x 9"),
    "Game2048-v1": Row((4, 4, 1), 0, 4, learned=_beside_jumanji(3119.6, 3837.6, 2_048_000)),
    "GraphColoring-v1": Row((421,), 0, 20),
    "JobShop-v0": Row((500,), 0, 210, action_sizes=(21,) * 10),
    "Knapsack-v1": Row((150,), 0, 50),
    "LevelBasedForaging-v0": Row((25,), 0, 12, action_sizes=(6,) * 2),
    "MMST-v0": Row((1336,), 0, 108, action_sizes=(36,) * 3),
    "Maze-v0": Row((105,), 0, 4, learned=_with_auto(0.51, 201_728)),
    "Minesweeper-v0": Row((10, 10, 1), 2, 100, note="row x column: 10 x 10"),
    "MultiCVRP-v0": Row((155,), 0, 42, action_sizes=(21,) * 2),
    "PacMan-v1": Row((31, 28, 1), 656, 5),
    "RobotWarehouse-v0": Row((265,), 0, 20, action_sizes=(5,) * 4),
    "RubiksCube-partly-scrambled-v0": Row((55,), 0, 18, note=_TURN),
    "RubiksCube-v0": Row((55,), 0, 18, note=_TURN),
    "SearchAndRescue-v0": Row((774,), 0, 4, continuous=True),
    "SlidingTilePuzzle-v0": Row((5, 5, 1), 3, 4, learned=_with_auto(1.075, 201_728)),
    "Snake-v1": Row((12, 12, 5), 1, 4),
    "Sokoban-v0": Row((10, 10, 2), 1, 4, note="fetches its levels: not tried by CI"),
    "Sudoku-v0": Row((9, 9, 1), 0, 729, note=_DIGIT),
    "Sudoku-very-easy-v0": Row((9, 9, 1), 0, 729, note=_DIGIT),
    "TSP-v1": Row((61,), 0, 20),
    "Tetris-v0": Row((10, 10, 1), 17, 40, note="turn x column: 4 x 10"),
}
"""Jumanji's environments; their options are in `suite_options`."""

_GYMNAX: Final[Mapping[str, Row]] = {
    "Acrobot-v1": Row((6,), 0, 3, learned=_beside_rejax(-87.1, -88.4, 100_000)),
    "Asterix-MinAtar": Row((10, 10, 4), 0, 5),
    "BernoulliBandit-misc": Row((4,), 0, 2),
    "Breakout-MinAtar": Row(
        (10, 10, 4),
        0,
        3,
        learned=(Learned("PPO with auto", 30.6, 3_318_784, 5), *_beside_rejax(5.77, 5.69, 1_003_520)),
    ),
    "CartPole-v1": Row(
        (4,),
        0,
        2,
        learned=(*_beside_rejax(499.0, 396.0, 100_000), Learned("V-trace, preset vtrace", 495.0, 201_216, 5)),
    ),
    "Catch-bsuite": Row((10, 5, 1), 0, 3, learned=_with_auto(1.0, 101_376)),
    "DeepSea-bsuite": Row((8, 8, 1), 0, 2, learned=_with_auto(0.99, 201_728)),
    "DiscountingChain-bsuite": Row((2,), 0, 5),
    "FourRooms-misc": Row((4,), 0, 4, learned=_with_auto(1.0, 201_728)),
    "Freeway-MinAtar": Row((10, 10, 7), 0, 3, learned=_with_auto(5.72, 402_432)),
    "FrozenLake-misc": Row((16,), 0, 4, learned=_with_auto(0.616, 201_728)),
    "GaussianBandit-misc": Row((4,), 0, 2),
    "MNISTBandit-bsuite": Row((28, 28, 1), 0, 10, note="fetches its pictures: not tried by CI"),
    "MemoryChain-bsuite": Row(
        (3,),
        0,
        2,
        learned=(
            Learned("PPO with S5, memory_length 10", 0.984, 61_952, 5),
            Learned("PPO with a GRU, memory_length 10", 0.922, 61_952, 5),
        ),
    ),
    "MetaMaze-misc": Row((15,), 0, 4),
    "MountainCar-v0": Row((2,), 0, 3),
    "Pong-misc": Row((30, 40, 3), 0, 3),
    "Seaquest-MinAtar": Row((10, 10, 10), 0, 6),
    "SimpleBandit-bsuite": Row((1, 1, 1), 0, 11),
    "SpaceInvaders-MinAtar": Row((10, 10, 6), 0, 4, learned=_beside_rejax(59.7, 50.2, 1_003_520)),
    "UmbrellaChain-bsuite": Row((3,), 0, 2),
    "MountainCarContinuous-v0": Row((2,), 0, 1, continuous=True),
    "Pendulum-v1": Row(
        (3,),
        0,
        1,
        continuous=True,
        learned=(*_beside_rejax(-575.0, -783.0, 200_000), *_with_auto(-155.0, 502_784)),
    ),
    "PointRobot-misc": Row((6,), 0, 2, continuous=True),
    "Reacher-misc": Row((8,), 0, 2, continuous=True),
    "Swimmer-misc": Row((16,), 0, 2, continuous=True),
}

CATALOGUE: Final[Mapping[str, Row]] = {
    **_OURS,
    **{f"jumanji:{name}": row._replace(options=JUMANJI_OPTIONS.get(name, {})) for name, row in _JUMANJI.items()},
    **{
        f"gymnax:{name}": row._replace(options={**_MAX_STEPS, **GYMNAX_OPTIONS.get(name, {})})
        for name, row in _GYMNAX.items()
    },
    **{f"envelope:{name}": row for name, row in ENVELOPE.items()},
}
"""Every environment that can be made by its name."""

UNTRIED: Final = frozenset(f"envelope:{name}" for name in FETCHING)
"""Untested environments, which cannot be made by name: their models are cloned from a repository when they are made."""
