"""Heat maps with words beside them, as pictures for TensorBoard."""

import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL = 16  # pixels of a token
GAP = 14
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


FONT, TITLE = _font(11), _font(13)


def _coloured(values: np.ndarray) -> np.ndarray:
    """Values between 0 and 1 as colours from white to dark blue, (..., 3) as bytes."""
    return (255 + values[..., None] * (DARKEST - 255)).round().astype(np.uint8)


def _width(labels: list[str]) -> int:
    return 6 + max(math.ceil(FONT.getlength(label)) for label in labels)


def _upright(labels: list[str]) -> Image.Image:
    """Labels side by side, each read from below, standing on the bottom edge."""
    lying = Image.new("RGB", (_width(labels), CELL * len(labels)), "white")
    pen = ImageDraw.Draw(lying)
    for i, label in enumerate(labels):
        pen.text((3, CELL * i + 1), label, "black", FONT)
    return lying.transpose(Image.Transpose.ROTATE_90)


def _panel(weights: np.ndarray, columns: Image.Image, name: str) -> Image.Image:
    """One map with its name and its columns' labels above it; ``weights`` (rows, columns) between 0 and 1."""
    cells = np.kron(_coloured(weights), np.ones((CELL, CELL, 1), np.uint8))
    top = CELL + columns.height
    panel = Image.new("RGB", (cells.shape[1], top + cells.shape[0]), "white")
    panel.paste(columns, (0, CELL))
    panel.paste(Image.fromarray(cells), (0, top))
    pen = ImageDraw.Draw(panel)
    pen.text((2, 0), name, "black", FONT)
    pen.rectangle((0, top, panel.width - 1, panel.height - 1), outline="grey")
    return panel


def _heading(picture: Image.Image, title: str, highest: float) -> None:
    """What is seen, and which colour is how much."""
    pen = ImageDraw.Draw(picture)
    pen.text((6, 6), title, "black", TITLE)
    bar = np.repeat(_coloured(np.linspace(0, 1, 100))[None], 10, 0)
    left = 6 + math.ceil(FONT.getlength("0 "))
    pen.text((6, 27), "0", "black", FONT)
    picture.paste(Image.fromarray(bar), (left, 30))
    pen.rectangle((left, 30, left + 99, 39), outline="grey")
    pen.text((left + 104, 27), f"{highest:.2f} of a row's attention", "black", FONT)


def heat_maps(weights: np.ndarray, columns: list[str], rows: list[str], title: str) -> np.ndarray:
    """The maps of all heads of a layer beside each other, (height, width, 3) as bytes.

    Args:
        weights: (heads, rows, columns), at least 0.
        columns: what is attended to.
        rows: what attends.
        title: above the maps.
    """
    highest = max(float(weights.max()), 1e-9)
    above = _upright(columns)
    panels = [_panel(head / highest, above, f"head {i}") for i, head in enumerate(weights)]
    across = math.ceil(math.sqrt(len(panels)))
    left, (width, height) = _width(rows), panels[0].size
    down = math.ceil(len(panels) / across)
    heading = 50
    size = (max(left + across * (width + GAP), 6 + math.ceil(TITLE.getlength(title))), heading + down * (height + GAP))
    picture = Image.new("RGB", size, "white")
    _heading(picture, title, highest)
    pen = ImageDraw.Draw(picture)
    for i, panel in enumerate(panels):
        y = heading + i // across * (height + GAP)
        picture.paste(panel, (left + i % across * (width + GAP), y))
        if i % across == 0:
            first = y + height - CELL * len(rows)
            for n, label in enumerate(rows):
                pen.text((left - 3 - math.ceil(FONT.getlength(label)), first + CELL * n + 1), label, "black", FONT)
    return np.asarray(picture)
