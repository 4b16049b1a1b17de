"""One episode of an agent, played and drawn."""

from pathlib import Path
from typing import NamedTuple

from jaxtyping import Array, Key

from gradweave.agents import SelfTuning, SelfTuningState
from gradweave.config.schema import Config
from gradweave.reports.board import board_frames, paint_channels, paint_snake, save_gif
from gradweave.reports.scenes import SCENES, Scene
from gradweave.training.evaluation import play_episode

__all__ = ["DrawnEpisode", "save_episode"]


class DrawnEpisode(NamedTuple):
    """What was played and where it was drawn."""

    path: Path
    episode_return: float
    num_steps: int


def save_episode(
    path: Path,
    agent: SelfTuning,
    state: SelfTuningState,
    config: Config,
    *,
    key: Key[Array, ""],
    greedy: bool = False,
    max_steps: int | None = None,
) -> DrawnEpisode:
    """Plays one episode and writes it as a GIF.

    Args:
        path: the GIF to write.
        agent: the agent.
        state: whose parameters play.
        config: of the run; says which environment it is, and how long an episode may last.
        key: for the environment and the actions.
        greedy: take the most probable action instead of sampling.
        max_steps: steps after which the episode is cut off; by default the run's `max_episode_steps`.
    """
    observations, rewards = play_episode(
        agent,
        state.learner.params,
        state.raw,
        normalization=agent.normalization(state.rollout),
        key=key,
        greedy=greedy,
        max_steps=config.run.max_episode_steps if max_steps is None else max_steps,
    )
    views, name = observations.view, config.environment.name
    snake = "snake" in name.lower() and views.shape[-1] == 5
    scene = SCENES.get(name, Scene(paint_snake if snake else paint_channels, None))
    save_gif(path, board_frames(views, rewards=rewards, paint=scene.paint, canvas=scene.canvas))
    return DrawnEpisode(path, float(rewards.sum()), len(rewards))
