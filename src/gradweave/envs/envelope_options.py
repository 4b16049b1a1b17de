"""Options of the environments of jax-envelope's suites, beside the time limit: numbers, switches and words.

Brax's and Navix's are arguments of the environment's class, MuJoCo Playground's are fields of its configuration, and
Craftax's are fields of its two kinds of parameters. docs/suites.md says which are left out, and why.
"""

from collections.abc import Mapping
from typing import Final

from gradweave.envs.row import Option
from gradweave.envs.suite_options import Options, of_kinds

__all__ = ["BRAX_OPTIONS", "CRAFTAX_OPTIONS", "CROSSING_OPTIONS", "NAVIX_OPTIONS", "PLAYGROUND_OPTIONS"]

_BODY: Final = {
    "backend": Option(words=("generalized", "mjx", "positional", "spring")),
    **of_kinds(counts="n_frames"),
}
_NOISY: Final = {
    **_BODY,
    **of_kinds(numbers="ctrl_cost_weight reset_noise_scale", switches="exclude_current_positions_from_observation"),
}
_HEALTHY: Final = {**_NOISY, **of_kinds(numbers="healthy_reward", switches="terminate_when_unhealthy")}
_FORWARD: Final = of_kinds(numbers="forward_reward_weight")

BRAX_OPTIONS: Final[Mapping[str, Options]] = {
    "ant": _HEALTHY,
    "fast": {},
    "halfcheetah": {**_NOISY, **_FORWARD},
    "hopper": {**_HEALTHY, **_FORWARD},
    "humanoid": {**_HEALTHY, **_FORWARD},
    "humanoidstandup": _BODY,
    "inverted_double_pendulum": _BODY,
    "inverted_pendulum": _BODY,
    "pusher": _BODY,
    "reacher": _BODY,
    "swimmer": {**_NOISY, **_FORWARD},
    "walker2d": {**_HEALTHY, **_FORWARD},
}
"""By the environment's name in Brax."""

NAVIX_OPTIONS: Final = of_kinds(numbers="penalty_coeff")
"""Of every environment; a name fixes the rest."""

CROSSING_OPTIONS: Final[Options] = {**NAVIX_OPTIONS, "obstacle_type": Option(words=("lava", "wall"))}
"""Of `Navix-SimpleCrossing...`."""

_WORLD: Final = of_kinds(
    counts="day_length max_growing_plants", whole="mob_despawn_distance", switches="always_diamond"
)
_CLASSIC: Final = {
    **_WORLD,
    **of_kinds(
        counts="zombie_health cow_health skeleton_health max_zombies max_cows max_skeletons max_arrows",
        numbers="spawn_cow_chance spawn_zombie_base_chance spawn_zombie_night_chance spawn_skeleton_chance",
    ),
}
_FULL: Final = {
    **_WORLD,
    **of_kinds(
        counts="max_melee_mobs max_passive_mobs max_ranged_mobs max_mob_projectiles max_player_projectiles",
        switches="god_mode",
    ),
}

CRAFTAX_OPTIONS: Final[Mapping[str, Options]] = {
    "Craftax-Classic-Pixels-v1": _CLASSIC,
    "Craftax-Classic-Symbolic-v1": _CLASSIC,
    "Craftax-Pixels-v1": _FULL,
    "Craftax-Symbolic-v1": _FULL,
}
"""By the environment's name in Craftax."""

PLAYGROUND_OPTIONS: Final[Options] = {
    "impl": Option(words=("jax", "warp")),
    **of_kinds(whole="naconmax njmax", numbers="ctrl_dt sim_dt"),
}
"""Of every environment; the last two numbers of Warp's buffers have no effect with `impl` jax."""
