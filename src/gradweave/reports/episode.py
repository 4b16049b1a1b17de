"""One episode of an agent, played and drawn."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Key
from PIL import Image

from gradweave.agents import SelfTuning, SelfTuningState
from gradweave.config.schema import Config, EnvironmentConfig
from gradweave.reports.board import board_frames, paint_channels, save_gif
from gradweave.reports.scenes import Scene, scene_of
from gradweave.reports.series import series_frames
from gradweave.training.evaluation import play_episode

__all__ = ["DrawnEpisode", "save_episode"]


class DrawnEpisode(NamedTuple):
    """A played episode, and the file of its animation."""

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
    """Play one episode and write it as a GIF.

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
    save_gif(path, _frames(config.environment, observations.view, observations.scalars, rewards))
    return DrawnEpisode(path, float(rewards.sum()), len(rewards))


def _frames(environment: EnvironmentConfig, views: Any, scalars: Any, rewards: Any) -> list[Image.Image]:
    """The environment's own scene, a board, or of vectors without a scene the numbers over time."""
    scene = scene_of(environment.name, environment.options)
    if scene is None and views.ndim == 2:
        return series_frames(np.concatenate([views, scalars], axis=1), rewards)
    if scene is None:
        scene = Scene(paint_channels, None)
    return board_frames(views, rewards=rewards, paint=scene.paint, canvas=scene.canvas)
