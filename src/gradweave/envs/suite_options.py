"""Options of Jumanji's and gymnax's environments: every number and every switch that one can be made with.

Jumanji's are arguments of the environment's class, or of the generator of its levels; gymnax's are fields of its
parameters, or arguments of its class. Words, arrays and functions are left to programs, which hand over an environment.
"""

from collections.abc import Mapping
from typing import Final

from gradweave.envs.row import Option

__all__ = ["GYMNAX_OPTIONS", "JUMANJI_OPTIONS", "Options", "of_kinds"]

Options = Mapping[str, Option]


def of_kinds(*, counts: str = "", whole: str = "", numbers: str = "", switches: str = "") -> Options:
    """Options by their kinds: whole numbers from 1 and from 0, any numbers, and switches."""
    kinds = ((counts, Option(1)), (whole, Option(0)), (numbers, Option(number=True)), (switches, Option()))
    return {name: option for names, option in kinds for name in names.split()}


_BOARD: Final = of_kinds(counts="num_rows num_cols")
_CUBE: Final = of_kinds(counts="cube_size time_limit", whole="num_scrambles_on_reset")

JUMANJI_OPTIONS: Final[Mapping[str, Options]] = {
    "BinPack-v2": of_kinds(
        counts="obs_num_ems max_num_items max_num_ems split_num_same_items",
        numbers="split_eps prob_split_one_item",
        switches="normalize_dimensions",
    ),
    "CVRP-v1": of_kinds(counts="num_nodes max_capacity max_demand"),
    "Cleaner-v0": {**_BOARD, **of_kinds(counts="num_agents time_limit", numbers="penalty_per_timestep")},
    "Connector-v3": of_kinds(counts="grid_size num_agents max_steps time_limit", numbers="temperature"),
    "FlatPack-v0": of_kinds(counts="num_row_blocks num_col_blocks"),
    "Game2048-v1": {"board_size": Option(2)},
    "GraphColoring-v1": of_kinds(counts="num_nodes", numbers="edge_probability"),
    "JobShop-v0": of_kinds(counts="num_jobs num_machines max_num_ops max_op_duration"),
    "Knapsack-v1": of_kinds(counts="num_items", numbers="total_budget"),
    "LevelBasedForaging-v0": of_kinds(
        counts="grid_size num_agents num_food fov max_agent_level time_limit",
        numbers="penalty",
        switches="force_coop grid_observation normalize_reward",
    ),
    "MMST-v0": of_kinds(counts="num_nodes num_edges max_degree num_agents num_nodes_per_agent max_step time_limit"),
    "Maze-v0": {**_BOARD, **of_kinds(counts="time_limit")},
    "Minesweeper-v0": {**_BOARD, **of_kinds(counts="num_mines")},
    "MultiCVRP-v0": of_kinds(counts="num_customers num_vehicles"),
    "PacMan-v1": of_kinds(counts="time_limit"),
    "RobotWarehouse-v0": of_kinds(
        counts="shelf_rows shelf_columns column_height num_agents sensor_range request_queue_size time_limit"
    ),
    "RubiksCube-partly-scrambled-v0": _CUBE,
    "RubiksCube-v0": _CUBE,
    "SearchAndRescue-v0": of_kinds(
        counts="num_searchers num_targets time_limit",
        numbers="target_contact_range env_size searcher_max_rotate searcher_max_accelerate searcher_min_speed "
        "searcher_max_speed",
    ),
    "SlidingTilePuzzle-v0": of_kinds(counts="grid_size time_limit", whole="num_random_moves"),
    "Snake-v1": {"num_rows": Option(2), "num_cols": Option(2), "time_limit": Option(1)},
    "Sokoban-v0": of_kinds(counts="time_limit"),
    "TSP-v1": of_kinds(counts="num_cities"),
    "Tetris-v0": {**_BOARD, **of_kinds(counts="time_limit")},
}
"""By the environment's name in Jumanji; Sudoku has none."""

_MINIMAL: Final = of_kinds(switches="use_minimal_action_set")

GYMNAX_OPTIONS: Final[Mapping[str, Options]] = {
    "Acrobot-v1": of_kinds(
        numbers="dt link_length_1 link_length_2 link_mass_1 link_mass_2 link_com_pos_1 link_com_pos_2 link_moi "
        "max_vel_1 max_vel_2 torque_noise_max"
    ),
    "Asterix-MinAtar": {
        **of_kinds(counts="ramp_interval init_spawn_speed init_move_interval shot_cool_down", switches="ramping"),
        **_MINIMAL,
    },
    "BernoulliBandit-misc": of_kinds(counts="t_max", numbers="reward_prob min_lim max_lim", switches="normalize_time"),
    "Breakout-MinAtar": _MINIMAL,
    "CartPole-v1": of_kinds(
        numbers="gravity masscart masspole total_mass length polemass_length force_mag tau theta_threshold_radians "
        "x_threshold"
    ),
    "Catch-bsuite": of_kinds(counts="rows columns"),
    "DeepSea-bsuite": of_kinds(
        counts="size", numbers="unscaled_move_cost", switches="deterministic sample_action_map randomize_actions"
    ),
    "DiscountingChain-bsuite": {"n_actions": Option(1, 5), **of_kinds(whole="mapping_seed", numbers="optimal_return")},
    "FourRooms-misc": of_kinds(numbers="fail_prob", switches="resample_init_pos resample_goal_pos use_visual_obs"),
    "Freeway-MinAtar": {**of_kinds(counts="player_speed"), **_MINIMAL},
    "FrozenLake-misc": {
        "map_name": Option(words=("4x4", "8x8")),
        **of_kinds(numbers="success_rate", switches="is_slippery"),
    },
    "GaussianBandit-misc": of_kinds(numbers="mean_mu sigma_p sigma_l", switches="normalize_time"),
    "MemoryChain-bsuite": of_kinds(counts="memory_length num_bits"),
    "MetaMaze-misc": of_kinds(counts="maze_size rf_size", numbers="reward punishment", switches="normalize_time"),
    "MountainCar-v0": of_kinds(numbers="min_position max_position max_speed goal_position goal_velocity force gravity"),
    "MountainCarContinuous-v0": of_kinds(
        numbers="min_action max_action min_position max_position max_speed goal_position goal_velocity power gravity"
    ),
    "Pendulum-v1": of_kinds(numbers="max_speed max_torque dt g m l"),
    "PointRobot-misc": of_kinds(
        numbers="max_force circle_radius goal_radius", switches="dense_reward center_init normalize_time"
    ),
    "Pong-misc": of_kinds(
        counts="ball_max_y_speed paddle_y_speed ball_x_speed width height paddle_half_height", switches="use_ai_policy"
    ),
    "Reacher-misc": of_kinds(numbers="torque_scale dt"),  # its observation fits no other num_joints than 2
    "Seaquest-MinAtar": {
        **of_kinds(
            counts="ramp_interval init_spawn_speed init_move_interval max_oxygen diver_spawn_speed shot_cool_down "
            "enemy_shot_interval enemy_move_interval diver_move_interval",
            switches="ramping",
        ),
        **_MINIMAL,
    },
    "SimpleBandit-bsuite": of_kinds(counts="num_actions", numbers="optimal_return"),
    "SpaceInvaders-MinAtar": {
        **of_kinds(counts="shot_cool_down enemy_move_interval enemy_shot_interval"),
        **_MINIMAL,
    },
    "Swimmer-misc": of_kinds(counts="num_urchins", numbers="dt"),
    "UmbrellaChain-bsuite": of_kinds(counts="chain_length", whole="n_distractor"),
}
"""By the environment's name in gymnax, beside `max_steps_in_episode`, which all have."""
