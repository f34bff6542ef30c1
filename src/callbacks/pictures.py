"""A heat map with words beside it, as a picture of the size that TensorBoard shows it in."""

import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL = 12  # pixels of a token
LONGEST = 60  # pixels of a label
HEADING = 18
CARD = 350  # pixels: TensorBoard widens what is less, and shrinks what is more
DARKEST = np.array([8, 48, 107])
FONT_FILE = "DejaVuSans.ttf"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font with the letters of most alphabets, the system's or matplotlib's; without them Pillow's, of English."""
    matplotlib = find_spec("matplotlib")
    folder = (
        Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" if matplotlib and matplotlib.origin else Path()
    )
    for path in (FONT_FILE, str(folder / FONT_FILE)):
        try:
            return ImageFont.truetype(path, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


FONT = _font(10)


def _coloured(values: np.ndarray) -> np.ndarray:
    """Values between 0 and 1 as colours from white to dark blue, (..., 3) as bytes."""
    return (255 + values[..., None] * (DARKEST - 255)).round().astype(np.uint8)


def _short(label: str) -> str:
    """A label that has room, with its beginning if it is too long."""
    if FONT.getlength(label) <= LONGEST:
        return label
    while label and FONT.getlength(f"{label}…") > LONGEST:
        label = label[:-1]
    return f"{label}…"


def _labels(texts: list[str], ending: bool) -> Image.Image:
    """Labels below each other, at the left edge or ending at the right one."""
    shorts = [_short(text) for text in texts]
    width = 6 + max(math.ceil(FONT.getlength(text)) for text in shorts)
    picture = Image.new("RGB", (width, CELL * len(shorts)), "white")
    pen = ImageDraw.Draw(picture)
    for i, text in enumerate(shorts):
        x = width - 3 - math.ceil(FONT.getlength(text)) if ending else 3
        pen.text((x, CELL * i - 1), text, "black", FONT)
    return picture


def _upright(texts: list[str]) -> Image.Image:
    """Labels side by side, each read from below, beginning at the bottom edge."""
    return _labels(texts, ending=False).transpose(Image.Transpose.ROTATE_90)


def heat_map(weights: np.ndarray, columns: list[str], rows: list[str]) -> np.ndarray:
    """A map of how much each row looks at each column, (height, width, 3) as bytes; the largest weight is the darkest.

    Args:
        weights: (rows, columns), at least 0.
        columns: their labels, upright above the map.
        rows: theirs, at its left.
    """
    highest = max(float(weights.max()), 1e-9)
    cells = np.kron(_coloured(weights / highest), np.ones((CELL, CELL, 1), np.uint8))
    left, above = _labels(rows, ending=True), _upright(columns)
    x, y = left.width, HEADING + above.height
    picture = Image.new("RGB", (max(x + cells.shape[1] + 1, CARD), y + cells.shape[0] + 1), "white")
    picture.paste(left, (0, y))
    picture.paste(above, (x, HEADING))
    picture.paste(Image.fromarray(cells), (x, y))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((x, y, x + cells.shape[1], y + cells.shape[0]), outline="grey")
    pen.text((3, 2), "rows look at columns:  0", "black", FONT)
    bar = 10 + math.ceil(FONT.getlength("rows look at columns:  0"))
    picture.paste(Image.fromarray(np.repeat(_coloured(np.linspace(0, 1, 60))[None], 8, 0)), (bar, 4))
    pen.rectangle((bar, 4, bar + 60, 12), outline="grey")
    pen.text((bar + 66, 2), f"{highest:.2f}", "black", FONT)
    return np.asarray(picture)
