"""A heat map with labels, as an image of the size that TensorBoard shows it in."""

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


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load a font with most alphabets, the system's or matplotlib's; else Pillow's, which has English alone."""
    spec = find_spec("matplotlib")
    folder = Path(spec.origin).parent / "mpl-data/fonts/ttf" if spec and spec.origin else Path()
    for path in ("DejaVuSans.ttf", str(folder / "DejaVuSans.ttf")):
        try:
            return ImageFont.truetype(path, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


FONT = _font(10)


def _coloured(values: np.ndarray) -> np.ndarray:
    """Map values between 0 and 1 to colours from white to dark blue, (..., 3) as bytes."""
    return (255 + values[..., None] * (DARKEST - 255)).round().astype(np.uint8)


def _short(label: str) -> str:
    """Shorten a label to its beginning if it is too long."""
    short = label
    while FONT.getlength(short) > LONGEST:
        label = label[:-1]
        short = f"{label}…"
    return short


def _labels(texts: list[str], ending: bool) -> Image.Image:
    """Draw labels below each other, aligned left, or right with ``ending``."""
    shorts = [_short(text) for text in texts]
    width = 6 + max(math.ceil(FONT.getlength(text)) for text in shorts)
    image = Image.new("RGB", (width, CELL * len(shorts)), "white")
    pen = ImageDraw.Draw(image)
    for i, text in enumerate(shorts):
        x = width - 3 - math.ceil(FONT.getlength(text)) if ending else 3
        pen.text((x, CELL * i - 1), text, "black", FONT)
    return image


def heat_map(weights: np.ndarray, columns: list[str], rows: list[str]) -> np.ndarray:
    """Draw how much each row attends to each column, (height, width, 3) as bytes; the largest weight is the darkest.

    Args:
        weights: (rows, columns), at least 0.
        columns: their labels, upright above the map.
        rows: their labels, left of the map.
    """
    highest = max(float(weights.max()), 1e-9)
    cells = np.kron(_coloured(weights / highest), np.ones((CELL, CELL, 1), np.uint8))
    left = _labels(rows, ending=True)
    above = _labels(columns, ending=False).transpose(Image.Transpose.ROTATE_90)  # read from below
    x, y = left.width, HEADING + above.height
    image = Image.new("RGB", (max(x + cells.shape[1] + 1, CARD), y + cells.shape[0] + 1), "white")
    image.paste(left, (0, y))
    image.paste(above, (x, HEADING))
    image.paste(Image.fromarray(cells), (x, y))
    pen = ImageDraw.Draw(image)
    pen.rectangle((x, y, x + cells.shape[1], y + cells.shape[0]), outline="grey")
    pen.text((3, 2), "rows look at columns:  0", "black", FONT)
    bar = 10 + math.ceil(FONT.getlength("rows look at columns:  0"))
    image.paste(Image.fromarray(np.repeat(_coloured(np.linspace(0, 1, 60))[None], 8, 0)), (bar, 4))
    pen.rectangle((bar, 4, bar + 60, 12), outline="grey")
    pen.text((bar + 66, 2), f"{highest:.2f}", "black", FONT)
    return np.asarray(image)
