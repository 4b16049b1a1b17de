"""Jumanji's A2C trainer beside ours: Snake 12x12 and 2048, each with the constants that Jumanji has for it.

Its networks for Snake have the layers of ours. For 2048 two of its three convolutions have no padding, where all of
ours pad: there the trainer is measured with its own networks and with ours in their place. Needs dm-haiku, rlax and
distrax, which are no dependencies.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import jax
import jax.numpy as jnp
import optax
from timing import alternate, spread
from variants import configured, meta_step

from gradweave.envs import Observation
from gradweave.rl import actor_critic_network

__all__ = ["JUMANJI_SIZES", "JumanjiA2C", "jumanji_rows", "with_our_network"]

JUMANJI_SIZES: Final[Mapping[str, Mapping[str, Any]]] = {
    "Snake 12x12": {
        "network.channels": (32, 32),
        "network.policy_layers": (64, 64),
        "network.value_layers": (128, 128),
        "network.shared_torso": False,
        "inner.num_envs": 128,
        "inner.num_steps": 20,
        "inner.discount": 0.997,
        "inner.lambda_": 0.95,
        "inner.value_cost": 1.0,
        "inner.entropy_cost": 0.01,
        "inner.learning_rate": 3e-4,
    },
    "2048": {
        "environment.name": "jumanji:Game2048-v1",
        "environment.options": {},
        "network.channels": (32, 32, 32),
        "network.strides": (1, 1, 1),
        "network.kernel_size": 2,
        "network.policy_layers": (128, 128),
        "network.value_layers": (256, 256),
        "network.policy_scale": 1.0,
        "network.shared_torso": False,
        "inner.num_envs": 32,
        "inner.num_steps": 50,
        "inner.discount": 0.99,
        "inner.lambda_": 0.95,
        "inner.value_cost": 1.0,
        "inner.entropy_cost": 0.01,
        "inner.learning_rate": 2e-4,
    },
}
"""Jumanji's own configurations of the two games, said as ours."""
Row = dict[str, Any]


def jumanji_rows(game: str, changes: Mapping[str, Any], rounds: int) -> list[Row]:
    """Environment steps a second of plain learning and of self-tuning over those of Jumanji's trainer.

    Args:
        game: a name in `JUMANJI_SIZES`.
        changes: to the sizes of ours; theirs keep their own.
        rounds: how often everything is timed.
    """
    sizes = {**JUMANJI_SIZES[game], **changes}
    batch = configured(sizes).inner
    num_updates = 5 if game == "2048" else 1  # one of Snake takes seconds
    theirs = {"": JumanjiA2C(game, num_updates)}
    if game == "2048":
        theirs[", our network"] = JumanjiA2C(game, num_updates, lambda own: with_our_network(own, game))
    ours = {"plain": meta_step(sizes, 0, 5), "self-tuning, L = 5, four meta-parameters": meta_step(sizes, 4, 5)}
    seconds = alternate({**{f"jumanji{which}": program for which, program in theirs.items()}, **ours}, rounds)
    per_step = {f"jumanji{which}": seconds[f"jumanji{which}"] / theirs[which].steps_per_call for which in theirs}
    for name, program in ours.items():
        per_step[name] = seconds[name] / program.calls_per_unit / (batch.num_envs * batch.num_steps)
    rows = []
    for which in theirs:
        for name in per_step if not which else ours:
            faster = spread(per_step[f"jumanji{which}"] / per_step[name])
            ratio = {"times_faster": faster.median, "low": faster.low, "high": faster.high, "rounds": rounds}
            rows.append({"program": name, "base": f"Jumanji's A2C trainer{which}", **ratio})
    return rows


class JumanjiA2C:
    """Updates of Jumanji's A2C trainer, with the constants of a game; a call goes on from the call before.

    The first two calls compile.

    Attributes:
        state: of its training.
        steps_per_call: environment steps of the updates of a call.
    """

    def __init__(self, game: str, num_updates: int, replaced: Callable[[Any], Any] = lambda own: own) -> None:
        """Start the trainer.

        Args:
            game: a name in `JUMANJI_SIZES`.
            num_updates: of a call; its own train.py has hundreds.
            replaced: from Jumanji's networks for the game to those that are used.

        Raises:
            ImportError: dm-haiku, rlax or distrax is not installed.
        """
        from jumanji.training.agents.a2c import A2CAgent
        from jumanji.training.types import ActingState, TrainingState
        from jumanji.wrappers import VmapAutoResetWrapper

        sizes = JUMANJI_SIZES[game]
        num_envs, num_steps = sizes["inner.num_envs"], sizes["inner.num_steps"]
        bare, networks = _game_and_networks(game)
        environment = VmapAutoResetWrapper(bare)
        agent = A2CAgent(
            env=environment,
            n_steps=num_steps,
            total_batch_size=num_envs,
            actor_critic_networks=replaced(networks),
            optimizer=optax.adam(sizes["inner.learning_rate"]),
            normalize_advantage=False,
            discount_factor=sizes["inner.discount"],
            bootstrapping_factor=sizes["inner.lambda_"],
            l_pg=1.0,
            l_td=sizes["inner.value_cost"],
            l_en=sizes["inner.entropy_cost"],
        )
        params = agent.init_params(jax.random.PRNGKey(0))
        env_state, timestep = environment.reset(jax.random.split(jax.random.PRNGKey(1), num_envs))
        acting = ActingState(env_state, timestep, jax.random.PRNGKey(2), jnp.float32(0), jnp.float32(0))
        # As its train.py does: one replica a device under pmap, and a scan of updates inside.
        start = TrainingState(params_state=params, acting_state=acting)
        self.state = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], start)
        self.steps_per_call = num_updates * num_envs * num_steps
        self._epoch = jax.pmap(
            lambda state: jax.lax.scan(lambda state, _: agent.run_epoch(state), state, None, num_updates),
            axis_name="devices",
        )

    def __call__(self) -> None:
        self.state, metrics = self._epoch(self.state)
        jax.block_until_ready((self.state, metrics))


def _game_and_networks(game: str) -> tuple[Any, Any]:
    """Jumanji's environment and its networks for it."""
    from jumanji.environments import Game2048, Snake
    from jumanji.training.networks.game_2048.actor_critic import make_actor_critic_networks_game_2048
    from jumanji.training.networks.snake.actor_critic import make_actor_critic_networks_snake

    sizes = JUMANJI_SIZES[game]
    layers = (sizes["network.channels"][0], sizes["network.policy_layers"], sizes["network.value_layers"])
    if game == "2048":
        board = Game2048()
        return board, make_actor_critic_networks_game_2048(board, *layers)
    snake = Snake(12, 12)
    return snake, make_actor_critic_networks_snake(snake, *layers)


def with_our_network(networks: Any, game: str) -> Any:
    """Jumanji's pair of networks with ours for the game in both places: of each only one half is used.

    Observations must be a `board` and an `action_mask`, as those of 2048 are.
    """
    from jumanji.training.networks.base import FeedForwardNetwork

    section = "network."
    sizes = {name.removeprefix(section): value for name, value in JUMANJI_SIZES[game].items() if section in name}

    def seen(observation: Any) -> Observation:
        board = observation.board.astype(jnp.float32)[..., None]
        return Observation(board, jnp.zeros((0,)), observation.action_mask)

    def init(key: Any, batch: Any) -> Any:
        first = seen(jax.tree.map(lambda leaf: leaf[0], batch))
        return actor_critic_network(first, first.action_mask.size, **sizes, key=jax.random.wrap_key_data(key))

    def outputs(params: Any, observation: Any) -> Any:
        return jax.vmap(lambda one: params(seen(one), None, None))(observation)

    def policy(params: Any, observation: Any) -> jax.Array:
        logits = outputs(params, observation).logits
        return jnp.where(observation.action_mask, logits, jnp.finfo(jnp.float32).min)

    return networks._replace(
        policy_network=FeedForwardNetwork(init, policy),
        value_network=FeedForwardNetwork(init, lambda params, observation: outputs(params, observation).value),
    )
