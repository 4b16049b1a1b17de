"""Pictures of an episode: boards drawn with Pillow, frame by frame, and written as a small GIF.

Channels become colours, and a vector is drawn as a board of one row; `paint_snake` draws Snake's five channels (body,
head, tail, fruit, order along the body) as a snake. Environments that are drawn by more than their channels are in
`gradweave.reports.scenes`.
Everything is drawn larger than it is shown and scaled down, which smooths the edges. All frames of a GIF share one
palette, so that a frame stores only the cells that changed.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from gradweave.files import write_atomically

__all__ = ["board_frames", "mix", "paint_channels", "paint_snake", "save_gif"]

Colour: TypeAlias = tuple[int, int, int]
Painter: TypeAlias = Callable[[ImageDraw.ImageDraw, npt.NDArray[np.float64], int], None]
"""`(draw, one view (rows, cols, channels), size of a cell)`: draws on top of the empty board, whose corner is (0,
0).
"""

BACKGROUND: Final[Colour] = (13, 17, 23)
CELLS: Final[tuple[Colour, Colour]] = ((22, 29, 39), (26, 34, 45))
TEXT: Final[Colour] = (230, 237, 243)
FAINT: Final[Colour] = (125, 137, 152)
HEAD: Final[Colour] = (134, 245, 190)
TAIL: Final[Colour] = (38, 92, 150)
FRUIT: Final[Colour] = (255, 92, 97)
LEAF: Final[Colour] = (96, 200, 110)
CHANNELS: Final[tuple[Colour, ...]] = (HEAD, FRUIT, (86, 180, 233), (240, 196, 80), (204, 121, 167), (230, 237, 243))

_SMOOTHING: Final = 3
"""Pixels drawn for one pixel shown, in each direction."""
_LEAST_WIDTH: Final = 128
"""Pixels, so that the return and the step stand side by side."""
_SHADES: Final = 24
"""Colours along the snake; more would cost space in the file and not be seen."""


def board_frames(
    views: npt.ArrayLike,
    *,
    rewards: npt.ArrayLike | None = None,
    paint: Painter | None = None,
    canvas: tuple[int, int] | None = None,
    cell: int | None = None,
    max_frames: int = 400,
) -> list[Image.Image]:
    """One picture for each step of an episode.

    Args:
        views: (time, rows, cols, channels), the view before each action; (time, features) is drawn as one row of
            cells.
        rewards: (time,), the reward of each action. Shown is the return so far when the view was seen, and on the
            last picture the return of the whole episode.
        paint: how a view is drawn; by default `paint_channels`.
        canvas: (rows, cols) of the picture where `paint` draws something else than a board; None for a board.
        cell: pixels along one side of a cell; by default chosen so that the board is about 320 pixels large.
        max_frames: of a longer episode only the last `max_frames` steps are drawn, at full speed: in the end the board
            is at its fullest, and skipping steps in between would make a snake jump.

    Returns:
        RGB images of the same size, the board below a line of text.

    Raises:
        ValueError: no steps, views that are no boards, or as many rewards as there are no views.
    """
    boards = _checked_views(views)
    collected = _collected(boards, rewards)
    rows, cols = boards.shape[1:3]
    painter = paint_channels if paint is None else paint
    if canvas is not None:
        rows, cols = canvas
    size = max(8, min(48, 320 // max(rows, cols))) if cell is None else cell
    if painter is paint_channels:
        boards = _scaled(boards)
    empty = _empty_board(rows, cols, size, plain=canvas is not None)
    first = max(0, len(boards) - max_frames)
    return [
        _frame(empty, boards[step], painter, size, step, None if collected is None else collected[step])
        for step in range(first, len(boards))
    ]


def save_gif(path: Path, frames: Sequence[Image.Image], fps: float = 12.0, *, num_colours: int = 64) -> None:
    """Write frames as an endlessly repeated GIF; the last one stays for a second and a half.

    Args:
        path: the file to write.
        frames: RGB images of one size.
        fps: frames per second; a GIF counts in hundredths of a second, and viewers slow down GIFs faster than 50.
        num_colours: of the palette that all frames share, 2 to 256. Fewer make a smaller file.

    Raises:
        ValueError: no frames, or an option out of range.
        OSError: it cannot be written.
    """
    if not frames:
        raise ValueError("there are no frames to write: an episode has at least one step.")
    if not 0 < fps <= 50 or not 2 <= num_colours <= 256:
        raise ValueError(f"fps={fps} must lie in (0, 50], num_colours={num_colours} between 2 and 256.")
    palette = _palette(frames, num_colours)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    pause = 10 * round(100 / fps)
    durations = [*[pause] * (len(frames) - 1), max(pause, 1500)]
    content = io.BytesIO()
    indexed[0].save(content, "GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0, disposal=1)
    write_atomically(path, content.getvalue())


def paint_snake(draw: ImageDraw.ImageDraw, view: npt.NDArray[np.float64], cell: int) -> None:
    """Jumanji's Snake: one smooth body that fades from the head to the tail, and the fruit."""
    for row, col in np.argwhere(view[..., 3] > 0):
        _fruit(draw, (col + 0.5) * cell, (row + 0.5) * cell, 0.34 * cell)
    order = view[..., 4]
    places = np.argwhere(order > 0)
    body = places[np.argsort(order[order > 0], kind="stable")]  # from the tail to the head
    centres = [((col + 0.5) * cell, (row + 0.5) * cell) for row, col in body]
    steps = [body[index + 1] - body[index] for index in range(len(body) - 1)]
    for index, (centre, step) in enumerate(zip(centres, steps, strict=False)):
        if np.abs(step).sum() == 1:
            _segment(draw, centre, step, cell, index, len(body))
    for index, (x, y) in enumerate(centres):  # round the corners and both ends
        if not 0 < index < len(steps) or (steps[index] != steps[index - 1]).any():
            _disc(draw, x, y, cell * _half_width(float(index), len(body)), _shade(float(index), len(body)))
    for row, col in np.argwhere(view[..., 1] > 0):
        ahead = body[-1] - body[-2] if len(body) > 1 else np.array([-1, 0])
        _eyes(draw, ((col + 0.5) * cell, (row + 0.5) * cell), ahead, cell)


def paint_channels(draw: ImageDraw.ImageDraw, view: npt.NDArray[np.float64], cell: int) -> None:
    """Any board: a cell takes the colour of its strongest channel, the brighter the larger the value (in [-1, 1])."""
    margin = 0.1 * cell
    strongest = np.abs(view).argmax(-1)
    for row, col in np.argwhere(np.abs(view).max(-1) > 0):
        channel = strongest[row, col]
        colour = mix(CELLS[0], CHANNELS[channel % len(CHANNELS)], min(1.0, float(abs(view[row, col, channel]))))
        box = (col * cell + margin, row * cell + margin, (col + 1) * cell - margin, (row + 1) * cell - margin)
        if view[row, col, channel] > 0:
            draw.rounded_rectangle(box, radius=0.2 * cell, fill=colour)
        else:  # negative values are hollow
            draw.rounded_rectangle(box, radius=0.2 * cell, outline=colour, width=max(1, cell // 10))


def _frame(
    empty: Image.Image, view: npt.NDArray[np.float64], paint: Painter, size: int, step: int, score: float | None
) -> Image.Image:
    board = empty.copy()
    paint(ImageDraw.Draw(board), view, size * _SMOOTHING)
    board = board.reduce(_SMOOTHING)
    margin = _margin(size)
    band = max(18, min(34, board.width // 9))
    width = max(board.width + 2 * margin, _LEAST_WIDTH)
    frame = Image.new("RGB", (width, board.height + band + margin), BACKGROUND)
    frame.paste(board, ((width - board.width) // 2, band))
    draw = ImageDraw.Draw(frame)
    font = ImageFont.load_default(size=round(0.52 * band))
    draw.text((frame.width - margin, band / 2), f"step {step}", FAINT, font, anchor="rm")
    if score is not None:
        draw.text((margin, band / 2), f"return {score:.{0 if score == round(score) else 2}f}", TEXT, font, anchor="lm")
    return frame


def _margin(size: int) -> int:
    return max(4, size // 3)


def _empty_board(rows: int, cols: int, size: int, *, plain: bool = False) -> Image.Image:
    """A faint chequerboard, or one colour, drawn large."""
    pattern = (np.indices((rows, cols)).sum(0) % (1 if plain else 2))[..., None]
    colours = np.where(pattern == 0, *(np.array(colour, np.uint8) for colour in CELLS)).astype(np.uint8)
    return Image.fromarray(colours).resize(
        (cols * size * _SMOOTHING, rows * size * _SMOOTHING), Image.Resampling.NEAREST
    )


def _half_width(index: float, length: int) -> float:
    """Of the body in cells: full from the third cell on, thinner towards the tail."""
    if length < 4:
        return 0.36
    return 0.22 + 0.14 * min(1.0, index / 2.5)


def _shade(index: float, length: int) -> Colour:
    return mix(TAIL, HEAD, index / (length - 1) if length > 1 else 1.0)


def _segment(
    draw: ImageDraw.ImageDraw,
    centre: tuple[float, float],
    step: npt.NDArray[Any],
    cell: int,
    index: int,
    length: int,
) -> None:
    """The body from the middle of one cell to that of the next, in short pieces of one colour each."""
    num_pieces = 4
    along = np.abs(step[::-1])
    for piece in range(num_pieces):
        ends = [np.array(centre) + share / num_pieces * cell * step[::-1] for share in (piece, piece + 1)]
        place = index + (piece + 0.5) / num_pieces
        across = cell * _half_width(place, length) * (1 - along)
        low, high = np.minimum(*ends) - across, np.maximum(*ends) + across
        draw.rectangle((*np.round(low).tolist(), *np.round(high).tolist()), fill=_shade(place, length))


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: Colour) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _fruit(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float) -> None:
    _disc(draw, x, y + 0.1 * radius, radius, FRUIT)
    _disc(draw, x - 0.32 * radius, y - 0.25 * radius, 0.22 * radius, mix(FRUIT, (255, 255, 255), 0.6))
    draw.ellipse((x, y - 1.3 * radius, x + 0.75 * radius, y - 0.8 * radius), fill=LEAF)


def _eyes(draw: ImageDraw.ImageDraw, centre: tuple[float, float], ahead: npt.NDArray[Any], cell: int) -> None:
    down, right = (float(part) for part in ahead)
    for side in (-1, 1):
        x = centre[0] + cell * (0.1 * right - 0.15 * side * down)
        y = centre[1] + cell * (0.1 * down + 0.15 * side * right)
        _disc(draw, x, y, 0.085 * cell, BACKGROUND)


def mix(start: Colour, end: Colour, share: float) -> Colour:
    """A colour between two, `share` (0 to 1, in steps) of the way from the first to the second."""
    share = round(share * _SHADES) / _SHADES
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(start, end, strict=True))
    return red, green, blue


def _palette(frames: Sequence[Image.Image], num_colours: int) -> Image.Image:
    """The commonest colours of some of the frames, exactly: areas stay as they are, only smoothed edges are rounded."""
    chosen = [frames[round(index)] for index in np.linspace(0, len(frames) - 1, min(6, len(frames)))]
    pixels = np.concatenate([np.asarray(frame, np.uint32).reshape(-1, 3) for frame in chosen])
    codes, counts = np.unique(pixels @ np.array([1, 2**8, 2**16], np.uint32), return_counts=True)
    commonest = codes[np.argsort(-counts, kind="stable")[:num_colours]]
    colours = (commonest[:, None] >> np.array([0, 8, 16], np.uint32)) & 255
    image = Image.new("P", (1, 1))
    image.putpalette(colours.astype(np.uint8).tobytes())
    return image


def _checked_views(views: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(views, np.float64)
    boards = array[:, None, :, None] if array.ndim == 2 else array
    if boards.ndim != 4 or boards.size == 0:
        raise ValueError(
            f"views of shape {array.shape} cannot be drawn; accepted are boards, (time, rows, cols, channels), and "
            "vectors, (time, features), with at least one step."
        )
    return boards


def _collected(boards: npt.NDArray[np.float64], rewards: npt.ArrayLike | None) -> npt.NDArray[np.float64] | None:
    """The score to show on each picture."""
    if rewards is None:
        return None
    sums = np.cumsum(np.asarray(rewards, np.float64))
    if sums.shape != boards.shape[:1]:
        raise ValueError(f"{len(boards)} views came with rewards of shape {np.shape(rewards)}; give one for each view.")
    return np.concatenate([[0.0], sums[:-2], sums[-1:]]) if len(sums) > 1 else sums


def _scaled(boards: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Each channel divided by the largest magnitude it has in the episode."""
    largest = np.abs(boards).max((0, 1, 2))
    return boards / np.where(largest > 0, largest, 1.0)
