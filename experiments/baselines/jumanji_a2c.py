"""Is the plain actor-critic as good as Jumanji's own trainer, with its constants? On Snake 12x12 and 2048.

NAME.csv  mean return over episodes (actions sampled) after every fifth of the steps, five seeds, both; on 2048 also
          Jumanji's trainer with our network in the place of its own

Needs the packages of Jumanji's trainer: pip install dm-haiku rlax distrax hydra-core tensorboardx tqdm. Its logger
for a web service, neptune, is left out. Constants are those of its configs/env, but for the size of Snake's batches;
differences are listed in README.md beside the results.

    python experiments/baselines/jumanji_a2c.py --results results/baselines/jumanji

Half an hour to two hours for a game on one core. A file is written after every seed; the same command goes on from it.
"""

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import dropped
import jax
import jax.numpy as jnp

from gradweave.comparison.population import Population
from gradweave.config.configure import configure
from gradweave.config.schema import Config
from gradweave.envs import Observation
from gradweave.measurement.sample_store import current_source
from gradweave.reports.tables import read_rows, write_rows
from gradweave.rl import actor_critic_network

SEEDS = (0, 1, 2, 3, 4)
FIFTHS = 5
LAMBDA = 0.95
VALUE_COST = 1.0
ENTROPY_COST = 0.01


class Game(NamedTuple):
    """Settings of both programs, what Jumanji has for those in `changed`, and our network that is nearest to theirs."""

    ours: str
    num_envs: int
    num_steps: int
    updates_of_a_fifth: int
    discount: float
    learning_rate: float
    episode_steps: int
    episodes: int
    network: Mapping[str, Any]
    changed: Mapping[str, Any] = {}


_SNAKE = {"channels": (32, 32), "strides": (2, 1), "policy_layers": (64, 64), "value_layers": (128, 128)}
_2048 = {"channels": (32, 32, 32), "strides": (1, 1, 1), "policy_layers": (128, 128), "value_layers": (256, 256)}
_LARGE_BATCHES: Mapping[str, Any] = {"num_envs": 128, "num_steps": 20, "learning_rate": 3e-4}
GAMES = {
    # With batches eight times as large and this rate nothing is learned in as many steps as a CPU core can afford.
    "snake": Game("snake", 64, 5, 187, 0.997, 1e-3, 4000, 32, _SNAKE, _LARGE_BATCHES),
    "game_2048": Game("jumanji:Game2048-v1", 32, 50, 256, 0.99, 2e-4, 4000, 128, _2048),
}
OUR_NETWORK: Mapping[str, Any] = {"kernel_size": 2, "shared_torso": False, "policy_scale": 1.0}

Row = dict[str, Any]
Returns = Callable[[int], Iterator[tuple[int, float]]]
"""From a seed: environment steps and mean return after every fifth."""


def our_config(game: Game) -> Config:
    return configure(
        learner="actor-critic",
        environment={"name": game.ours},
        network={**OUR_NETWORK, **game.network},
        inner={
            "num_envs": game.num_envs,
            "num_steps": game.num_steps,
            "optimizer": "adam",
            "max_grad_norm": None,
            "learning_rate": game.learning_rate,
            "discount": game.discount,
            "lambda_": LAMBDA,
            "entropy_cost": ENTROPY_COST,
            "value_cost": VALUE_COST,
        },
        meta={"learned": [], "num_inner_steps": 1, "estimator": "unrolled"},
        run={
            "total_steps": FIFTHS * game.updates_of_a_fifth * game.num_envs * game.num_steps,
            "evaluation_episodes": game.episodes,
            "max_episode_steps": game.episode_steps,
        },
    )


def our_returns(game: Game) -> Returns:
    population = Population(our_config(game), 1)  # several convolutional networks at once are slower on a CPU

    def returns(seed: int) -> Iterator[tuple[int, float]]:
        members = population.begin([seed], [{}])
        for fifth in range(FIFTHS):
            begun = int(fifth == 0)  # with one rollout: it is collected before the first window
            members, found = population.advance(members, game.updates_of_a_fifth - begun)
            yield int(found.environment_steps[0]), float(found.evaluation_return[0])

    return returns


def our_network(game: Game, theirs: Any) -> Any:
    """Jumanji's pair of networks for 2048 with ours in both places, drawn for each: only one half of either is used."""
    from jumanji.training.networks.base import FeedForwardNetwork

    def seen(observation: Any) -> Observation:
        board = observation.board.astype(jnp.float32)[..., None]
        return Observation(board, jnp.zeros((0,)), observation.action_mask)

    def init(key: Any, batch: Any) -> Any:
        first = jax.tree.map(lambda leaf: leaf[0], batch)
        key = jax.random.split(key)[1]
        return actor_critic_network(seen(first), 4, **OUR_NETWORK, **game.network, key=key)

    def outputs(params: Any, observation: Any) -> Any:
        return jax.vmap(lambda one: params(seen(one), None, None))(observation)

    def policy(params: Any, observation: Any) -> jax.Array:
        logits = outputs(params, observation).logits
        return jnp.where(observation.action_mask, logits, jnp.finfo(jnp.float32).min)

    return theirs._replace(
        policy_network=FeedForwardNetwork(init, policy),
        value_network=FeedForwardNetwork(init, lambda params, observation: outputs(params, observation).value),
    )


def their_returns(name: str, game: Game, *, with_our_network: bool = False) -> Returns:
    dropped.put_back()
    sys.modules.setdefault("neptune", ModuleType("neptune")).new = None
    import jumanji.training as training
    from jumanji.training.evaluator import Evaluator
    from jumanji.training.setup_train import _make_raw_env, setup_agent, setup_env, setup_training_state
    from omegaconf import OmegaConf

    file = Path(training.__file__ or "").parent / "configs" / "env" / f"{name}.yaml"
    settings = OmegaConf.create({"agent": "a2c", "env": OmegaConf.load(file)})
    told = settings.env
    theirs = (told.training.total_batch_size, told.training.n_steps, told.a2c.discount_factor, told.a2c.learning_rate)
    costs = (told.a2c.bootstrapping_factor, told.a2c.l_td / told.a2c.l_pg, told.a2c.l_en / told.a2c.l_pg)
    told.training.total_batch_size, told.training.n_steps = game.num_envs, game.num_steps
    told.a2c.learning_rate = game.learning_rate
    unchanged = game._replace(**game.changed)
    if theirs != (unchanged.num_envs, unchanged.num_steps, unchanged.discount, unchanged.learning_rate):
        raise RuntimeError(f"Jumanji's constants for {name} are {theirs}")
    if costs != (LAMBDA, VALUE_COST, ENTROPY_COST):
        raise RuntimeError(f"Jumanji's constants for {name} are {costs}")
    env = setup_env(settings)
    agent: Any = setup_agent(settings, env)
    if with_our_network:
        agent.actor_critic_networks = our_network(game, agent.actor_critic_networks)
    evaluator = Evaluator(_make_raw_env(settings), agent, game.episodes, stochastic=True)

    @functools.partial(jax.pmap, axis_name="devices")
    def fifth(state: Any) -> Any:
        return jax.lax.scan(lambda state, _: (agent.run_epoch(state)[0], None), state, length=game.updates_of_a_fifth)[
            0
        ]

    def returns(seed: int) -> Iterator[tuple[int, float]]:
        key, init_key = jax.random.split(jax.random.PRNGKey(seed))
        state = setup_training_state(env, agent, init_key)
        for _ in range(FIFTHS):
            state = fifth(state)
            key, evaluation_key = jax.random.split(key)
            played = evaluator.run_evaluation(state.params_state, evaluation_key)
            yield int(state.acting_state.env_step_count[0]), float(played["episode_return"][0])

    return returns


def measure(name: str, file: Path) -> None:
    """Write five rows for each seed of each library; those that the file has already are kept."""
    game = GAMES[name]
    rows: list[Row] = [*read_rows(file)] if file.exists() else []
    done = {(row["library"], int(row["seed"])) for row in rows}
    programs = {"jumanji": lambda: their_returns(name, game), "gradweave": lambda: our_returns(game)}
    if name == "game_2048":
        programs["jumanji, our network"] = lambda: their_returns(name, game, with_our_network=True)
    for library, program in programs.items():
        missing = [seed for seed in SEEDS if (library, seed) not in done]
        if not missing:
            continue
        returns = program()
        for seed in missing:
            begun = time.monotonic()
            rows += [
                {"game": name, "library": library, "seed": seed, "environment_steps": steps, "return": mean}
                for steps, mean in returns(seed)
            ]
            write_rows(file, rows)
            print(f"{name}, {library}, seed {seed}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", nargs="+", choices=list(GAMES), default=list(GAMES))
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    source = current_source()
    for name in options.games:
        measure(name, options.results / f"{name}.csv")
        libraries = {library: version(library) for library in ("jax", "jumanji", "dm-haiku", "rlax")}
        about = {**source, "device": "CPU", "libraries": libraries, "settings": GAMES[name]._asdict()}
        (options.results / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
