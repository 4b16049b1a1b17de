"""Pictures of environments by their names: the physical system behind a vector, drawn to scale, and the pieces of
Snake, 2048 and MinAtar's games.

A scene is a painter, as for `gradweave.reports.board`, and the size of its picture in cells. Without one, a board is
drawn as cells (`gradweave.reports.board`), and a vector over time (`gradweave.reports.series`).
"""

import functools
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ImageDraw, ImageFont

from gradweave.reports.board import BACKGROUND, FAINT, FRUIT, HEAD, TAIL, TEXT, Colour, Painter, mix, paint_snake

__all__ = ["SCENES", "Scene", "minatar", "paint_2048", "paint_cart_pole", "paint_pendulum", "scene_of"]


class Scene(NamedTuple):
    """Drawing of an environment."""

    paint: Painter
    canvas: tuple[int, int] | None
    """Rows and columns of the picture, in cells; None for a board, which has its own."""


def paint_cart_pole(draw: ImageDraw.ImageDraw, view: npt.NDArray[np.float64], cell: int, *, limit: float = 2.4) -> None:
    """Cart and pole on a track of `limit` units to each side, at whose ends an episode terminates; 5 x 8 cells.

    The view is position, velocity, angle and its velocity; the angle is counted from upright, to the right.
    """
    position, _, angle, _ = view.ravel()
    track, unit = 4.3 * cell, 3.5 * cell / limit
    centre = 4 * cell + position * unit
    draw.line((0.2 * cell, track, 7.8 * cell, track), fill=FAINT, width=max(1, cell // 20))
    for end in (-limit, limit):
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


def paint_2048(draw: ImageDraw.ImageDraw, view: npt.NDArray[np.float64], cell: int) -> None:
    """The tiles of 2048 with their numbers, the greener the larger; the view has exponents, 0 for an empty cell."""
    margin = 0.06 * cell
    for row, col in np.argwhere(view[..., 0] > 0):
        exponent = round(float(view[row, col, 0]))
        share = min(exponent, _LAST_SHADE) / _LAST_SHADE
        box = (col * cell + margin, row * cell + margin, (col + 1) * cell - margin, (row + 1) * cell - margin)
        draw.rounded_rectangle(box, radius=0.12 * cell, fill=mix(TAIL, HEAD, share))
        number = str(2**exponent)
        font = ImageFont.load_default(size=round(cell * min(0.46, 1.2 / len(number))))
        ink = TEXT if share < 0.5 else BACKGROUND
        draw.text(((col + 0.5) * cell, (row + 0.5) * cell), number, ink, font, anchor="mm")


def minatar(*colours: Colour) -> Painter:
    """A board of MinAtar, whose cells are on or off: a colour for each channel, the first that is on."""

    def paint(draw: ImageDraw.ImageDraw, view: npt.NDArray[np.float64], cell: int) -> None:
        if view.shape[-1] != len(colours):
            raise ValueError(f"a view with {view.shape[-1]} channels does not fit {len(colours)} colours.")
        margin = 0.06 * cell
        for row, col in np.argwhere((view > 0).any(-1)):
            box = (col * cell + margin, row * cell + margin, (col + 1) * cell - margin, (row + 1) * cell - margin)
            draw.rectangle(box, fill=colours[int(view[row, col].argmax())])

    return paint


_LAST_SHADE: Final = 11
"""The exponent of 2048."""
_GOLD: Final[Colour] = (240, 196, 80)
_BULLET: Final[Colour] = (230, 237, 243)
_FOE: Final[Colour] = FRUIT
_DIVER: Final[Colour] = (86, 180, 233)
_SUBMARINE: Final[Colour] = (204, 121, 167)
_TRAIL: Final[Colour] = (72, 84, 100)
_SPEEDS: Final[tuple[Colour, ...]] = tuple((60 + 22 * speed, 76, 92) for speed in range(5))
"""Of the trails of Freeway's cars, from the slow to the fast."""

_MINATAR: Final[Mapping[str, tuple[Colour, ...]]] = {
    "Asterix": (HEAD, _FOE, _TRAIL, _GOLD),
    "Breakout": (HEAD, _BULLET, _TRAIL, _FOE),  # paddle, ball, where it was, bricks
    "Freeway": (HEAD, _FOE, *_SPEEDS),
    # Front and back of the submarine, own bullets, trails, others' bullets, fish, submarines, oxygen, saved, divers.
    "Seaquest": (HEAD, TAIL, _BULLET, _TRAIL, _GOLD, _FOE, _SUBMARINE, FAINT, _DIVER, _DIVER),
    "SpaceInvaders": (HEAD, _FOE, _SUBMARINE, _SUBMARINE, _BULLET, _GOLD),  # a cannon, aliens, bullets to and fro
}

SCENES: Final[Mapping[str, Scene]] = {
    "gymnax:CartPole-v1": Scene(paint_cart_pole, (5, 8)),
    "gymnax:Pendulum-v1": Scene(paint_pendulum, (6, 6)),
    "jumanji:Game2048-v1": Scene(paint_2048, None),
    **{name: Scene(paint_snake, None) for name in ("snake", "jumanji:Snake-v1")},
    **{f"gymnax:{name}-MinAtar": Scene(minatar(*colours), None) for name, colours in _MINATAR.items()},
}
"""By the environment's name."""


def scene_of(name: str, options: Mapping[str, Any]) -> Scene | None:
    """The scene of an environment with its options; None if it has none."""
    scene, limit = SCENES.get(name), options.get("x_threshold", 0)
    if scene is None or scene.paint is not paint_cart_pole or limit <= 0:
        return scene
    return scene._replace(paint=functools.partial(paint_cart_pole, limit=limit))
