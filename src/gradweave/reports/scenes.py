"""Pictures of environments that are no boards: what a vector of numbers stands for, drawn to scale.

A scene is a painter, as for `gradweave.reports.board`, and the size of its picture in cells. An environment without one
is drawn as a board, whose cells are its numbers.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ImageDraw

from gradweave.reports.board import BACKGROUND, FAINT, FRUIT, HEAD, TAIL, Painter

__all__ = ["SCENES", "Scene", "paint_cart_pole", "paint_pendulum"]


class Scene(NamedTuple):
    """How an environment is drawn."""

    paint: Painter
    canvas: tuple[int, int] | None
    """Rows and columns of the picture, in cells; None for a board, which has its own."""


def paint_cart_pole(draw: ImageDraw.ImageDraw, view: npt.NDArray[np.float64], cell: int) -> None:
    """Cart and pole on a track of 2.4 units to each side, at whose ends an episode terminates; 5 x 8 cells.

    The view is position, velocity, angle and its velocity; the angle is counted from upright, to the right.
    """
    position, _, angle, _ = view.ravel()
    track, unit = 4.3 * cell, 1.45 * cell  # 2.4 units are 3.5 cells
    centre = 4 * cell + position * unit
    draw.line((0.2 * cell, track, 7.8 * cell, track), fill=FAINT, width=max(1, cell // 20))
    for end in (-2.4, 2.4):
        place = 4 * cell + end * unit
        draw.line((place, track - 0.2 * cell, place, track + 0.2 * cell), fill=FRUIT, width=max(1, cell // 20))
    box = (centre - 0.5 * cell, track - 0.55 * cell, centre + 0.5 * cell, track)
    draw.rounded_rectangle(box, radius=0.1 * cell, fill=TAIL)
    hinge = np.array([centre, track - 0.5 * cell])
    _rod(draw, hinge, hinge + 2.9 * cell * np.array([np.sin(angle), -np.cos(angle)]), cell)


def paint_pendulum(draw: ImageDraw.ImageDraw, view: npt.NDArray[np.float64], cell: int) -> None:
    """A rod on a pivot, to be held upright; 6 x 6 cells. The view is cosine and sine of its angle, and its velocity.

    The angle is counted from upright, to the left, as the suites draw it.
    """
    cosine, sine, _ = view.ravel()
    pivot = np.array([3.0 * cell, 3.0 * cell])
    draw.line((3 * cell, 0.15 * cell, 3 * cell, 0.4 * cell), fill=FRUIT, width=max(1, cell // 20))  # where it is to be
    _rod(draw, pivot, pivot + 2.4 * cell * np.array([-sine, -cosine]), cell)


def _rod(draw: ImageDraw.ImageDraw, hinge: npt.NDArray[Any], tip: npt.NDArray[Any], cell: int) -> None:
    """A thick line with round ends, and its hinge."""
    half = 0.13 * cell
    draw.line((*hinge.tolist(), *tip.tolist()), fill=HEAD, width=round(2 * half))
    for x, y in (hinge, tip):
        draw.ellipse((x - half, y - half, x + half, y + half), fill=HEAD)
    x, y = hinge
    draw.ellipse((x - half / 2, y - half / 2, x + half / 2, y + half / 2), fill=BACKGROUND)


SCENES: Final[Mapping[str, Scene]] = {
    "gymnax:CartPole-v1": Scene(paint_cart_pole, (5, 8)),
    "gymnax:Pendulum-v1": Scene(paint_pendulum, (6, 6)),
}
"""By the environment's name."""
