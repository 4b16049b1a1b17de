"""The environments of jax-envelope's suites, with the sizes that they had in the versions named in docs/suites.md.

Options are those of `envelope_options`.
"""

from collections.abc import Mapping
from typing import Final

from gradweave.envs.envelope_options import (
    BRAX_OPTIONS,
    CRAFTAX_OPTIONS,
    CROSSING_OPTIONS,
    NAVIX_OPTIONS,
    PLAYGROUND_OPTIONS,
)
from gradweave.envs.row import Learned, Option, Row
from gradweave.envs.suite_options import Options

__all__ = ["ENVELOPE", "FETCHING"]

_LIMIT: Final = {"max_episode_steps": Option(1)}


def _vector(seen: int, actions: int) -> Row:
    """A robot: numbers are seen, and one vector is the action."""
    return Row((seen,), 0, actions, continuous=True)


def _grid(height: int, width: int) -> Row:
    """A grid of Navix, seen as a whole: kind, colour and state of each cell, each one of 11, one-hot."""
    return Row((height, width, 33), 0, 7)


def _with(options: Options, row: Row) -> Row:
    """A row with its options; all have a time limit."""
    return row._replace(options={**_LIMIT, **options})


_BRAX: Final[Mapping[str, Row]] = {
    "ant": _vector(27, 8),
    "fast": _vector(2, 1),
    "halfcheetah": _vector(17, 6),
    "hopper": _vector(11, 3),
    "humanoid": _vector(244, 17),
    "humanoidstandup": _vector(244, 17),
    "inverted_double_pendulum": _vector(8, 1),
    "inverted_pendulum": _vector(4, 1)._replace(
        learned=(Learned("PPO", 788, 307_200, 5), Learned("Brax's PPO", 988, 307_200, 5))
    ),
    "pusher": _vector(23, 7),
    "reacher": _vector(11, 2),
    "swimmer": _vector(8, 2)._replace(note="Brax 0.14.2 cannot step it on JAX 0.11"),
    "walker2d": _vector(17, 6),
}

_NAVIX: Final[Mapping[str, Row]] = {
    "Navix-BlockedUnlockPickup-v0": _grid(6, 11),
    "Navix-DistShift1-v0": _grid(7, 9),
    "Navix-DistShift2-v0": _grid(7, 9),
    "Navix-DoorKey-16x16-v0": _grid(16, 16),
    "Navix-DoorKey-5x5-v0": _grid(5, 5)._replace(learned=(Learned("PPO", 1.0, 312_320, 1),)),
    "Navix-DoorKey-6x6-v0": _grid(6, 6),
    "Navix-DoorKey-8x8-v0": _grid(8, 8),
    "Navix-DoorKey-Random-16x16-v0": _grid(16, 16),
    "Navix-DoorKey-Random-5x5-v0": _grid(5, 5),
    "Navix-DoorKey-Random-6x6-v0": _grid(6, 6),
    "Navix-DoorKey-Random-8x8-v0": _grid(8, 8),
    "Navix-Dynamic-Obstacles-16x16-v0": _grid(16, 16),
    "Navix-Dynamic-Obstacles-5x5-Random-v0": _grid(5, 5),
    "Navix-Dynamic-Obstacles-5x5-v0": _grid(5, 5),
    "Navix-Dynamic-Obstacles-6x6-Random-v0": _grid(6, 6),
    "Navix-Dynamic-Obstacles-6x6-v0": _grid(6, 6),
    "Navix-Dynamic-Obstacles-8x8-v0": _grid(8, 8),
    "Navix-Empty-16x16-v0": _grid(16, 16),
    "Navix-Empty-5x5-v0": _grid(5, 5)._replace(learned=(Learned("PPO", 1.0, 164_864, 1),)),
    "Navix-Empty-6x6-v0": _grid(6, 6),
    "Navix-Empty-8x8-v0": _grid(8, 8),
    "Navix-Empty-Random-16x16-v0": _grid(16, 16),
    "Navix-Empty-Random-5x5-v0": _grid(5, 5),
    "Navix-Empty-Random-6x6-v0": _grid(6, 6),
    "Navix-Empty-Random-8x8-v0": _grid(8, 8),
    "Navix-Fetch-5x5-N2-v0": _grid(5, 5),
    "Navix-Fetch-6x6-N2-v0": _grid(6, 6),
    "Navix-Fetch-8x8-N3-v0": _grid(8, 8),
    "Navix-FourRooms-11x11-v0": _grid(11, 11),
    "Navix-FourRooms-13x13-v0": _grid(13, 13),
    "Navix-FourRooms-15x15-v0": _grid(15, 15),
    "Navix-FourRooms-17x17-v0": _grid(17, 17),
    "Navix-FourRooms-7x7-v0": _grid(7, 7),
    "Navix-FourRooms-9x9-v0": _grid(9, 9),
    "Navix-FourRooms-v0": _grid(19, 19),
    "Navix-GoToDoor-5x5-v0": _grid(5, 5),
    "Navix-GoToDoor-6x6-v0": _grid(6, 6),
    "Navix-GoToDoor-8x8-v0": _grid(8, 8),
    "Navix-GoToObject-6x6-N2-v0": _grid(6, 6),
    "Navix-GoToObject-8x8-N2-v0": _grid(8, 8),
    "Navix-KeyCorridorS3R1-v0": _grid(3, 7),
    "Navix-KeyCorridorS3R2-v0": _grid(5, 7),
    "Navix-KeyCorridorS3R3-v0": _grid(7, 7),
    "Navix-KeyCorridorS4R3-v0": _grid(10, 10),
    "Navix-KeyCorridorS5R3-v0": _grid(13, 13),
    "Navix-KeyCorridorS6R3-v0": _grid(16, 16),
    "Navix-LavaCrossingS11N5-v0": _grid(11, 11),
    "Navix-LavaCrossingS9N1-v0": _grid(9, 9),
    "Navix-LavaCrossingS9N2-v0": _grid(9, 9),
    "Navix-LavaCrossingS9N3-v0": _grid(9, 9),
    "Navix-LavaGapS5-v0": _grid(5, 5),
    "Navix-LavaGapS6-v0": _grid(6, 6),
    "Navix-LavaGapS7-v0": _grid(7, 7),
    "Navix-LockedRoom-v0": _grid(19, 19),
    "Navix-MemoryS11-v0": _grid(11, 11),
    "Navix-MemoryS13-v0": _grid(13, 13),
    "Navix-MemoryS13Random-v0": _grid(13, 13),
    "Navix-MemoryS17Random-v0": _grid(17, 17),
    "Navix-MemoryS7-v0": _grid(7, 7),
    "Navix-MemoryS9-v0": _grid(9, 9),
    "Navix-MultiRoom-N2-S4-v0": _grid(25, 25),
    "Navix-MultiRoom-N4-S5-v0": _grid(25, 25),
    "Navix-MultiRoom-N6-v0": _grid(25, 25),
    "Navix-ObstructedMaze-1Dl-v0": _grid(6, 11),
    "Navix-ObstructedMaze-1Dlh-v0": _grid(6, 11),
    "Navix-ObstructedMaze-1Dlhb-v0": _grid(6, 11),
    "Navix-ObstructedMaze-1Q-v0": _grid(16, 16),
    "Navix-ObstructedMaze-2Dl-v0": _grid(16, 16),
    "Navix-ObstructedMaze-2Dlh-v0": _grid(16, 16),
    "Navix-ObstructedMaze-2Dlhb-v0": _grid(16, 16),
    "Navix-ObstructedMaze-2Q-v0": _grid(16, 16),
    "Navix-ObstructedMaze-Full-v0": _grid(16, 16),
    "Navix-Playground-v0": _grid(19, 19),
    "Navix-PutNear-6x6-N2-v0": _grid(6, 6),
    "Navix-PutNear-8x8-N3-v0": _grid(8, 8),
    "Navix-RedBlueDoors-6x6-v0": _grid(6, 6),
    "Navix-RedBlueDoors-8x8-v0": _grid(8, 8),
    "Navix-SimpleCrossingS11N5-v0": _grid(11, 11),
    "Navix-SimpleCrossingS9N1-v0": _grid(9, 9),
    "Navix-SimpleCrossingS9N2-v0": _grid(9, 9),
    "Navix-SimpleCrossingS9N3-v0": _grid(9, 9),
    "Navix-Unlock-v0": _grid(6, 11),
    "Navix-UnlockPickup-v0": _grid(6, 11),
}

_CRAFTAX: Final[Mapping[str, Row]] = {
    "Craftax-Classic-Pixels-v1": Row((63, 63, 3), 0, 17),
    "Craftax-Classic-Symbolic-v1": Row((1345,), 0, 17),
    "Craftax-Pixels-v1": Row((130, 110, 3), 0, 43),
    "Craftax-Symbolic-v1": Row((8268,), 0, 43),
}

_PLAYGROUND: Final[Mapping[str, Row]] = {
    "AcrobotSwingup": _vector(6, 1),
    "AcrobotSwingupSparse": _vector(6, 1),
    "BallInCup": _vector(8, 2),
    "CartpoleBalance": _vector(5, 1)._replace(learned=(Learned("PPO, in the first 500 steps", 477.4, 312_320, 1),)),
    "CartpoleBalanceSparse": _vector(5, 1),
    "CartpoleSwingup": _vector(5, 1),
    "CartpoleSwingupSparse": _vector(5, 1),
    "CheetahRun": _vector(17, 6),
    "FingerSpin": _vector(9, 2),
    "FingerTurnEasy": _vector(12, 2),
    "FingerTurnHard": _vector(12, 2),
    "FishSwim": _vector(24, 5),
    "HopperHop": _vector(15, 4),
    "HopperStand": _vector(15, 4),
    "HumanoidRun": _vector(67, 21),
    "HumanoidStand": _vector(67, 21),
    "HumanoidWalk": _vector(67, 21),
    "PendulumSwingup": _vector(3, 1),
    "PointMass": _vector(4, 2),
    "ReacherEasy": _vector(6, 2),
    "ReacherHard": _vector(6, 2),
    "SwimmerSwimmer6": _vector(25, 5),
    "WalkerRun": _vector(24, 6),
    "WalkerStand": _vector(24, 6),
    "WalkerWalk": _vector(24, 6),
}

ENVELOPE: Final[Mapping[str, Row]] = {
    **{f"brax/{name}": _with(BRAX_OPTIONS[name], row) for name, row in _BRAX.items()},
    **{
        f"navix/{name}": _with(CROSSING_OPTIONS if "SimpleCrossing" in name else NAVIX_OPTIONS, row)
        for name, row in _NAVIX.items()
    },
    **{f"craftax/{name}": _with(CRAFTAX_OPTIONS[name], row) for name, row in _CRAFTAX.items()},
    **{f"mujoco_playground/{name}": _with(PLAYGROUND_OPTIONS, row) for name, row in _PLAYGROUND.items()},
}
"""By the name that jax-envelope has for it, with a stroke for its two colons."""

FETCHING: Final = (
    "mujoco_playground/AeroCubeRotateZAxis",
    "mujoco_playground/AlohaHandOver",
    "mujoco_playground/AlohaSinglePegInsertion",
    "mujoco_playground/ApolloJoystickFlatTerrain",
    "mujoco_playground/BarkourJoystick",
    "mujoco_playground/BerkeleyHumanoidJoystickFlatTerrain",
    "mujoco_playground/BerkeleyHumanoidJoystickRoughTerrain",
    "mujoco_playground/G1JoystickFlatTerrain",
    "mujoco_playground/G1JoystickRoughTerrain",
    "mujoco_playground/Go1Footstand",
    "mujoco_playground/Go1Getup",
    "mujoco_playground/Go1Handstand",
    "mujoco_playground/Go1JoystickFlatTerrain",
    "mujoco_playground/Go1JoystickRoughTerrain",
    "mujoco_playground/H1InplaceGaitTracking",
    "mujoco_playground/H1JoystickGaitTracking",
    "mujoco_playground/LeapCubeReorient",
    "mujoco_playground/LeapCubeRotateZAxis",
    "mujoco_playground/Op3Joystick",
    "mujoco_playground/PandaOpenCabinet",
    "mujoco_playground/PandaPickCube",
    "mujoco_playground/PandaPickCubeCartesian",
    "mujoco_playground/PandaPickCubeOrientation",
    "mujoco_playground/PandaRobotiqPushCube",
    "mujoco_playground/SpotFlatTerrainJoystick",
    "mujoco_playground/SpotGetup",
    "mujoco_playground/SpotJoystickGaitTracking",
    "mujoco_playground/T1JoystickFlatTerrain",
    "mujoco_playground/T1JoystickRoughTerrain",
)
"""Robots whose models MuJoCo Playground clones from a repository when they are first made."""
