"""An episode of which no picture is known: observations and rewards, over time.

Up to twelve numbers are curves, one above the other, each scaled to the range that it has in the episode; more than
that are an image with a row for each, the brighter the larger. Below them is the reward of every step, as a bar up or
down from zero. The pictures of a GIF show ever more of it.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from gradweave.reports.board import BACKGROUND, CELLS, CHANNELS, FAINT, FRUIT, HEAD, TEXT

__all__ = ["series_frames"]

_WIDTH: Final = 360
_SEEN: Final = 210
"""Pixels of height for observations."""
_PAID: Final = 50
"""Pixels of height for rewards."""
_BAND: Final = 24
"""Pixels of height for a line of text."""
_MOST_CURVES: Final = 12

Numbers = npt.NDArray[np.float64]


def series_frames(views: npt.ArrayLike, rewards: npt.ArrayLike, *, max_frames: int = 150) -> list[Image.Image]:
    """Pictures of an episode that grow from step to step; a long one is shown in larger strides, to its end.

    Args:
        views: (time, features), the view before each action.
        rewards: (time,), the reward of each action.
        max_frames: pictures at most, at least 1.

    Returns:
        RGB images of the same size.

    Raises:
        ValueError: no steps, or not as many rewards as views.
    """
    seen, paid = np.asarray(views, np.float64), np.asarray(rewards, np.float64)
    if seen.ndim != 2 or seen.size == 0 or paid.shape != seen.shape[:1]:
        raise ValueError(
            f"views of shape {seen.shape} and rewards of shape {paid.shape} are no series: give (time, features) and "
            "(time,), with at least one step."
        )
    whole = Image.new("RGB", (_WIDTH, _SEEN + _PAID), CELLS[0])
    if seen.shape[1] <= _MOST_CURVES:
        _draw_curves(ImageDraw.Draw(whole), seen)
    else:
        whole.paste(_rows(seen))
    _draw_rewards(ImageDraw.Draw(whole), paid)
    count = min(max_frames, len(paid))
    steps = [len(paid) - 1] if count == 1 else np.linspace(0, len(paid) - 1, count).round().astype(int).tolist()
    return [_frame(whole, step, len(paid), float(paid[: step + 1].sum())) for step in steps]


def _frame(whole: Image.Image, step: int, num_steps: int, collected: float) -> Image.Image:
    """The image up to a step, with the return so far."""
    frame = Image.new("RGB", (_WIDTH, _BAND + whole.height), BACKGROUND)
    right = max(1, round(_WIDTH * (step + 1) / num_steps))
    frame.paste(whole.crop((0, 0, right, whole.height)), (0, _BAND))
    draw, font = ImageDraw.Draw(frame), ImageFont.load_default(size=13)
    text = f"return {collected:.{0 if collected == round(collected) else 2}f}"
    draw.text((6, _BAND / 2), text, TEXT, font, anchor="lm")
    draw.text((_WIDTH - 6, _BAND / 2), f"step {step}", FAINT, font, anchor="rm")
    return frame


def _scaled(seen: Numbers) -> Numbers:
    """Each number from 0 to 1 over its own range; one that never changes in the middle."""
    low, span = seen.min(0), np.ptp(seen, axis=0)
    scaled: Numbers = np.where(span > 0, (seen - low) / np.where(span > 0, span, 1.0), 0.5)
    return scaled


def _draw_curves(draw: ImageDraw.ImageDraw, seen: Numbers) -> None:
    height = _SEEN / seen.shape[1]
    centres = (np.arange(len(seen)) + 0.5) * _WIDTH / len(seen)
    for index, column in enumerate(_scaled(seen).T):
        heights = (index + 0.9 - 0.8 * column) * height
        points = [(0.0, heights[0]), *zip(centres, heights, strict=True), (float(_WIDTH), heights[-1])]
        draw.line(points, fill=CHANNELS[index % len(CHANNELS)], width=2)
        if index:
            draw.line((0, index * height, _WIDTH, index * height), fill=CELLS[1])


def _rows(seen: Numbers) -> Image.Image:
    """One row of the image for each number, one column for each step."""
    shades = _scaled(seen).T[..., None]
    colours = (1 - shades) * np.array(CELLS[0]) + shades * np.array(HEAD)
    image = Image.fromarray(colours.round().astype(np.uint8))
    return image.resize((_WIDTH, _SEEN), Image.Resampling.NEAREST)


def _draw_rewards(draw: ImageDraw.ImageDraw, paid: Numbers) -> None:
    """Bars from zero, which lies where the largest and the smallest reward leave it."""
    top, bottom = max(float(paid.max()), 0.0), min(float(paid.min()), 0.0)
    unit = (_PAID - 8) / (top - bottom) if top > bottom else 0.0
    zero = _SEEN + 4 + top * unit
    draw.rectangle((0, _SEEN, _WIDTH, _SEEN + _PAID), fill=BACKGROUND)
    for step, reward in enumerate(paid):
        left, right = (round(_WIDTH * (step + share) / len(paid)) for share in (0, 1))
        low, high = sorted((zero, zero - reward * unit))
        draw.rectangle((left, low, max(left, right - 1), high), fill=HEAD if reward >= 0 else FRUIT)
    draw.line((0, zero, _WIDTH, zero), fill=FAINT)
