"""Scenes: rod and cart lie on the picture where the numbers say."""

import numpy as np
import pytest
from PIL import Image

from gradweave.envs.catalogue import CATALOGUE
from gradweave.reports.board import CELLS, HEAD, TAIL, board_frames, paint_snake
from gradweave.reports.scenes import SCENES, scene_of

CELL = 40
MARGIN = CELL // 3  # on three sides of the picture; above it a line of text


def drawn(name: str, view: list[float], **options: float) -> Image.Image:
    scene = scene_of(name, options)
    assert scene is not None
    (frame,) = board_frames(np.array([view]), paint=scene.paint, canvas=scene.canvas, cell=CELL)
    return frame


def places(frame: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    """(x, y) in cells of every pixel of a colour, from the picture's corner."""
    found = np.argwhere(np.abs(np.asarray(frame, int) - colour).max(-1) < 12)[:, ::-1]
    assert len(found) > 50
    rows = (frame.height - MARGIN) // CELL
    top = frame.height - MARGIN - rows * CELL
    return (found - [MARGIN, top]) / CELL


@pytest.mark.parametrize(("position", "angle"), [(0.0, 0.0), (-2.0, 0.2), (1.0, -0.2)])
def test_the_cart_is_where_it_is_and_the_pole_leans_as_it_does(position: float, angle: float) -> None:
    frame = drawn("gymnax:CartPole-v1", [position, 9.0, angle, 9.0])
    cart = 4 + position * 3.5 / 2.4
    assert places(frame, TAIL)[:, 0].mean() == pytest.approx(cart, abs=0.1)
    pole = places(frame, HEAD)
    tip = pole[pole[:, 1].argmin()]
    assert tip == pytest.approx([cart + 2.9 * np.sin(angle), 3.8 - 2.9 * np.cos(angle) - 0.13], abs=0.12)


def test_a_shorter_track_is_as_wide_as_the_picture() -> None:
    cart = places(drawn("gymnax:CartPole-v1", [1.0, 0.0, 0.0, 0.0], x_threshold=1.0, gravity=5.0), TAIL)
    assert cart[:, 0].mean() == pytest.approx(7.5, abs=0.1), "at the end, where the episode terminates"
    assert scene_of("gymnax:Acrobot-v1", {}) is None


@pytest.mark.parametrize("angle", [0.0, 1.0, 2.5, -2.0])
def test_the_pendulum_points_to_its_angle(angle: float) -> None:
    rod = places(drawn("gymnax:Pendulum-v1", [np.cos(angle), np.sin(angle), 5.0]), HEAD) - 3.0
    tip = rod[np.hypot(*rod.T).argmax()]
    assert tip == pytest.approx(2.53 * np.array([-np.sin(angle), -np.cos(angle)]), abs=0.12)


@pytest.mark.parametrize("name", [name for name in SCENES if name.endswith("MinAtar")])
def test_every_channel_of_minatar_has_its_colour_where_it_is_on(name: str) -> None:
    row = CATALOGUE[name]
    views = np.zeros((row.view[-1], *row.view))
    for channel, view in enumerate(views):
        view[2, channel, channel] = 1.0
    frames = board_frames(views, paint=SCENES[name].paint, cell=CELL)
    colours = [
        frame.getpixel((MARGIN + int((channel + 0.5) * CELL), frame.height - MARGIN - int(7.5 * CELL)))
        for channel, frame in enumerate(frames)
    ]
    assert colours[0] == HEAD, "who is played"
    assert not set(colours) & set(CELLS), "nothing that is there is hidden"
    assert len(set(colours)) >= 4


def test_a_view_of_another_game_is_refused() -> None:
    with pytest.raises(ValueError, match="3 channels"):
        board_frames(np.ones((1, 10, 10, 3)), paint=SCENES["gymnax:Breakout-MinAtar"].paint)


def test_tiles_of_2048_show_their_numbers() -> None:
    views = np.zeros((4, 4, 4, 1))
    for view, exponent in zip(views, (1, 4, 7, 10), strict=True):
        view[1, 2, 0] = exponent
    widths, fills = [], []
    for frame in board_frames(views, paint=SCENES["jumanji:Game2048-v1"].paint, cell=CELL):
        top = frame.height - MARGIN - 4 * CELL
        tile = np.asarray(frame.crop((MARGIN + 2 * CELL, top + CELL, MARGIN + 3 * CELL, top + 2 * CELL)), int)
        fill = tile[CELL // 2, 5]
        ink = np.abs(tile[6:-6, 4:-4] - fill).max(-1) > 60
        columns = np.flatnonzero(ink.any(0))
        widths.append(columns[-1] - columns[0])
        fills.append(fill[1])
        assert columns.mean() == pytest.approx((CELL - 8) / 2, abs=3), "in the middle"
    assert widths == sorted(set(widths)), "2, 16, 128 and 1024 are written"
    assert fills == sorted(set(fills)), "larger ones are greener"


def test_only_snake_is_drawn_as_a_snake() -> None:
    for name in ("snake", "jumanji:Snake-v1"):
        scene = scene_of(name, {})
        assert scene is not None and scene.paint is paint_snake
    five_channels = np.zeros((1, 4, 4, 5))
    five_channels[0, 1, 2, 0] = 1  # the body of a snake, which has no head here
    frames = {paint: board_frames(five_channels, paint=paint, cell=CELL)[0] for paint in (None, paint_snake)}
    place = (MARGIN + int(2.5 * CELL), frames[None].height - MARGIN - int(2.5 * CELL))
    assert frames[None].getpixel(place) not in CELLS
    assert frames[paint_snake].getpixel(place) in CELLS
