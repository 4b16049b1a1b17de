"""Is plain PPO as good, and as fast, as another library's? Beside rejax's, with rejax's published constants.

returns/NAME.csv  mean return over 128 episodes (actions sampled) after every tenth of the steps, five seeds, both
speed.csv         environment steps a second of training alone, theirs and ours in turns in one process

Needs rejax beside gradweave: pip install rejax==0.1.3. Its constants are those of its configs/gymnax and, for MinAtar,
of its benchmark/breakout_1m.yaml. Differences are listed in README.md beside the results.

    python experiments/baselines/run.py returns speed --games cartpole acrobot --results results/baselines/ppo
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from evaluations import evaluations

from gradweave.config.configure import configure
from gradweave.config.schema import Config
from gradweave.measurement.sample_store import current_source
from gradweave.reports.tables import write_rows
from gradweave.training.build import build_agent, init_state

SEEDS = (0, 1, 2, 3, 4)
EPISODES = 128
TENTHS = 10


class Game(NamedTuple):
    """Settings of both libraries."""

    environment: str
    total_steps: int
    num_envs: int
    num_steps: int
    num_epochs: int
    num_minibatches: int
    learning_rate: float
    discount: float
    entropy_cost: float
    max_grad_norm: float
    normalize_observations: bool
    activation: str
    max_episode_steps: int

    @property
    def rollout_steps(self) -> int:
        return self.num_envs * self.num_steps

    @property
    def rollouts_of_a_tenth(self) -> int:
        return -(-self.total_steps // (TENTHS * self.rollout_steps))


GAMES: Mapping[str, Game] = {
    "cartpole": Game("CartPole-v1", 100_000, 5, 100, 5, 5, 7.5e-4, 0.99, 0.01, 0.5, False, "tanh", 500),
    "acrobot": Game("Acrobot-v1", 100_000, 5, 100, 5, 5, 7.5e-4, 0.99, 0.01, 0.5, True, "tanh", 500),
    "pendulum": Game("Pendulum-v1", 150_000, 100, 100, 10, 10, 1e-3, 0.995, 0.0, 10.0, True, "swish", 200),
    "breakout": Game("Breakout-MinAtar", 1_000_000, 32, 32, 4, 4, 2.5674e-4, 0.995, 0.01, 1.0, False, "tanh", 1000),
    "space-invaders": Game(
        "SpaceInvaders-MinAtar", 1_000_000, 32, 32, 4, 4, 2.5674e-4, 0.995, 0.01, 1.0, False, "tanh", 1000
    ),
}

Row = dict[str, Any]


def our_config(game: Game, **network: Any) -> Config:
    inner = {
        "num_envs": game.num_envs,
        "num_steps": game.num_steps,
        "num_epochs": game.num_epochs,
        "num_minibatches": game.num_minibatches,
        "learning_rate": game.learning_rate,
        "discount": game.discount,
        "entropy_cost": game.entropy_cost,
        "max_grad_norm": game.max_grad_norm,
        "normalize_observations": game.normalize_observations,
        "clip_values": True,
    }
    meta = {"learned": [], "num_inner_steps": 1, "estimator": "unrolled"}
    run = {
        "total_steps": game.total_steps,
        "evaluation_episodes": EPISODES,
        "max_episode_steps": game.max_episode_steps,
    }
    return configure(
        "ppo",
        environment={"name": f"gymnax:{game.environment}"},
        network={"activation": game.activation, **network},
        inner=inner,
        meta=meta,
        run=run,
    )


class FiveValues:
    """A gymnax environment whose `step` returns the five values of before gymnax 1.0, which rejax 0.1.3 reads."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # names that copying asks for before there is an environment
            raise AttributeError(name)
        return getattr(self._environment, name)

    def step(self, *arguments: Any) -> Any:
        observation, state, reward, terminated, truncated, info = self._environment.step(*arguments)
        return observation, state, reward, terminated | truncated, info


def their_algorithm(game: Game) -> Any:
    import gymnax
    import rejax

    environment, parameters = gymnax.make(game.environment)
    return rejax.get_algo("ppo").create(
        env=FiveValues(environment),
        env_params=parameters,
        agent_kwargs={"activation": game.activation},
        num_envs=game.num_envs,
        num_steps=game.num_steps,
        num_epochs=game.num_epochs,
        num_minibatches=game.num_minibatches,
        learning_rate=game.learning_rate,
        max_grad_norm=game.max_grad_norm,
        total_timesteps=TENTHS * game.rollouts_of_a_tenth * game.rollout_steps,
        eval_freq=game.rollouts_of_a_tenth * game.rollout_steps,
        skip_initial_evaluation=True,
        gamma=game.discount,
        gae_lambda=0.95,
        clip_eps=0.2,
        ent_coef=game.entropy_cost,
        vf_coef=0.5,
        normalize_observations=game.normalize_observations,
    )


def our_returns(name: str, game: Game) -> list[Row]:
    tenth = game.rollouts_of_a_tenth
    lengths = [tenth - 1, *[tenth] * (TENTHS - 1)]  # one rollout is collected before the first window
    return [{"game": name, "library": "gradweave", **row} for row in evaluations(our_config(game), SEEDS, lengths)]


def their_returns(name: str, game: Game) -> list[Row]:
    algorithm = their_algorithm(game)
    keys = jnp.stack([jax.random.PRNGKey(seed) for seed in SEEDS])
    state, (_, returns) = jax.jit(jax.vmap(algorithm.train))(keys)
    of_tenths = np.asarray(returns, np.float64).mean(-1)  # seed, tenth
    if of_tenths.shape != (len(SEEDS), TENTHS):
        raise RuntimeError(f"rejax evaluated {of_tenths.shape}, expected {(len(SEEDS), TENTHS)}")
    steps = np.asarray(state.global_step) // TENTHS
    return [
        {
            "game": name,
            "library": "rejax",
            "seed": seed,
            "environment_steps": int(steps[index]) * (tenth + 1),
            "return": float(of_tenths[index, tenth]),
        }
        for tenth in range(TENTHS)
        for index, seed in enumerate(SEEDS)
    ]


def speed(game_name: str, game: Game, repeats: int = 21) -> list[Row]:
    """Training alone, one seed, the two in turns."""
    rollouts = max(1, 20_000 // game.rollout_steps)
    algorithm = their_algorithm(game)
    networks: dict[str, dict[str, Any]] = {"gradweave": {}}
    if "MinAtar" in game.environment:
        networks["gradweave, dense layers"] = {"channels": [], "strides": []}  # as rejax has

    def ours(agent: Any) -> Callable[[Any], Any]:
        return jax.jit(
            lambda state: jax.lax.scan(lambda state, _: (agent.step(state)[0], None), state, length=rollouts)[0]
        )

    @jax.jit
    def theirs(state: Any) -> Any:
        return jax.lax.scan(lambda state, _: (algorithm.train_iteration(state), None), state, length=rollouts)[0]

    states: dict[str, Any] = {"rejax": algorithm.init_state(jax.random.PRNGKey(0))}
    programs: dict[str, Callable[[Any], Any]] = {"rejax": theirs}
    for name, network in networks.items():
        config = our_config(game, **network)
        agent = build_agent(config)
        states[name] = init_state(agent, config, key=jax.random.key(0))
        programs[name] = ours(agent)
    rows = []
    for repeat in range(repeats + 1):
        for library, program in programs.items():
            begun = time.perf_counter()
            states[library] = jax.block_until_ready(program(states[library]))
            taken = time.perf_counter() - begun
            if repeat:  # the first one compiles
                rate = rollouts * game.rollout_steps / taken
                rows.append({"game": game_name, "library": library, "repeat": repeat, "steps_per_second": round(rate)})
    return rows


def write(path: Path, rows: Sequence[Row], source: Mapping[str, Any]) -> None:
    from importlib.metadata import version

    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, rows)
    libraries = {name: version(name) for name in ("jax", "rejax", "gymnax")}
    told = {name: GAMES[name]._asdict() for name in dict.fromkeys(row["game"] for row in rows)}
    about = {**source, "device": "CPU", "libraries": libraries, "settings": told}
    path.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=("returns", "speed"))
    parser.add_argument("--games", nargs="+", choices=list(GAMES), default=list(GAMES))
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    source = current_source()
    for name in options.games if "returns" in options.parts else ():
        begun = time.monotonic()
        rows = [*our_returns(name, GAMES[name]), *their_returns(name, GAMES[name])]
        write(options.results / "returns" / f"{name}.csv", rows, source)
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    if "speed" in options.parts:
        write(
            options.results / "speed.csv", [row for name in options.games for row in speed(name, GAMES[name])], source
        )


if __name__ == "__main__":
    main()
