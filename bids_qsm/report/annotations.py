"""What is written on a picture: colour bar, legend, positions, sides; and its bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bids_qsm.report.slices import SAGITTAL, Layout

Colour = tuple[int, int, int]

FOOTER_PX = 46
LEGEND_ROW_PX = 22
LEGEND_ENTRIES = 36
BAR_PX = (260, 12)
LEFT_PX = 10
PALE = (235, 235, 235)
MUTED = (150, 150, 150)
BLACK = (0, 0, 0)
OUTLINED = {"stroke_width": 2, "stroke_fill": BLACK}
CONVENTION = "L: the subject's left (neurological convention)"
SIDES = "L, R: the subject's left and right; P, A: back and front; I, S: below and above"


def add_footer(canvas: NDArray[np.uint8], legend: Mapping[str, Colour]) -> Image.Image:
    """Return the canvas as an image with room for a colour bar, and with a legend of colours."""
    entries = list(legend.items())[:LEGEND_ENTRIES]
    if len(legend) > LEGEND_ENTRIES:
        entries.append((f"and {len(legend) - LEGEND_ENTRIES} more", BLACK))
    height, width = canvas.shape[:2]
    places, rows = _legend_places([name for name, _ in entries], width)
    image = Image.new("RGB", (width, height + rows * LEGEND_ROW_PX + FOOTER_PX))
    image.paste(Image.fromarray(canvas), (0, 0))
    draw = ImageDraw.Draw(image)
    for (name, colour), (left, row) in zip(entries, places, strict=True):
        middle = height + row * LEGEND_ROW_PX + LEGEND_ROW_PX // 2 + 4
        draw.rectangle((left, middle - 5, left + 12, middle + 5), fill=colour)
        draw.text((left + 18, middle), name, PALE, _font(13), anchor="lm")
    return image


def draw_positions(image: Image.Image, layout: Layout) -> None:
    """Write each slice's position, the sides at the first one of each row, and the convention."""
    draw = ImageDraw.Draw(image)
    tops = set()
    for cell in layout.cells:
        bottom, right = cell.top + cell.height, cell.left + cell.width
        position = f"{'xyz'[cell.axis]} {cell.position_mm:.0f}".replace("-", "−")
        draw.text((cell.left + 3, bottom - 4), position, PALE, _font(11), "ls", **OUTLINED)
        if cell.top not in tops:
            tops.add(cell.top)
            start, end = "PA" if cell.axis == SAGITTAL else "LR"
            font = _font(14, bold=True)
            draw.text((cell.left + 3, cell.top + 3), start, PALE, font, "lt", **OUTLINED)
            draw.text((right - 3, cell.top + 3), end, PALE, font, "rt", **OUTLINED)
    middle = image.height - FOOTER_PX // 2
    draw.text((image.width - LEFT_PX, middle), CONVENTION, MUTED, _font(12), "rm")


def draw_colour_bar(
    image: Image.Image, label: str, colours: str, ticks: tuple[str, str, str]
) -> None:
    """Draw a colour bar into the footer, with texts at its start, middle and end."""
    width, height = BAR_PX
    left, top = LEFT_PX, image.height - FOOTER_PX + 9
    ramp = matplotlib.colormaps[colours](np.linspace(0, 1, 64))[:, :3]
    shades = np.rint(ramp * 255).astype(np.uint8)[np.arange(width) * 64 // width]
    image.paste(Image.fromarray(np.repeat(shades[None], height, axis=0)), (left, top))
    draw = ImageDraw.Draw(image)
    draw.rectangle((left - 1, top - 1, left + width, top + height), outline=MUTED)
    for place, anchor, text in zip((0, width // 2, width), "lmr", ticks, strict=True):
        draw.text((left + place, top + height + 14), text, PALE, _font(12), anchor + "s")
    draw.text((left + width + 14, top + height // 2), label, PALE, _font(14), "lm")


def draw_view(
    image: Image.Image, box: tuple[int, int, int, int], name: str, sides: Mapping[str, str]
) -> None:
    """Write a view's name and its sides into its box (left, top, right, bottom).

    ``sides`` has the letters at ``left``, ``right``, ``top`` and ``bottom``, where one is known.
    """
    draw, font = ImageDraw.Draw(image), _font(14, bold=True)
    left, top, right, bottom = box
    across, upward = (left + right) // 2, (top + bottom) // 2
    places = {
        "left": ((left + 6, upward), "lm"),
        "right": ((right - 6, upward), "rm"),
        "top": ((across, top + 6), "mt"),
        "bottom": ((across, bottom - 6), "mb"),
    }
    draw.text((left + 6, top + 6), name, PALE, _font(13), "lt", **OUTLINED)
    for edge, letter in sides.items():
        place, anchor = places[edge]
        draw.text(place, letter, PALE, font, anchor, **OUTLINED)


def draw_scale(image: Image.Image, length_px: float, text: str) -> None:
    """Draw a scale bar into the footer, and say which side is which."""
    draw, middle = ImageDraw.Draw(image), image.height - FOOTER_PX // 2
    end = LEFT_PX + round(length_px)
    draw.rectangle((LEFT_PX, middle - 2, end, middle + 1), fill=PALE)
    draw.text((end + 12, middle), text, PALE, _font(14), "lm")
    draw.text((image.width - LEFT_PX, middle), SIDES, MUTED, _font(12), "rm")


def write_names(image: Image.Image, name: str, note: str, note_colour: Colour) -> None:
    """Write what the picture is, and a coloured note, into the footer."""
    draw, middle = ImageDraw.Draw(image), image.height - FOOTER_PX // 2
    font = _font(16, bold=True)
    draw.text((LEFT_PX, middle), name, PALE, font, "lm")
    note_left = LEFT_PX + round(font.getlength(name)) + 30
    draw.text((note_left, middle), note, note_colour, _font(13), "lm")


def encode_png(image: Image.Image) -> bytes:
    """Return the bytes of a PNG with a palette of its 256 most frequent colours.

    Rare ones (the smoothed rims of letters) become the nearest of these.
    """
    counted = sorted(image.getcolors(image.width * image.height), key=lambda c: (-c[0], c[1]))
    table = np.array([colour for _, colour in counted])
    palette = table[:256]
    nearest = ((table[:, None] - palette[None]) ** 2).sum(axis=-1).argmin(axis=1)
    index_of = np.zeros(1 << 24, np.uint8)
    index_of[_packed(table)] = nearest
    picture = Image.fromarray(index_of[_packed(np.asarray(image))])
    picture.putpalette(palette.astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _packed(colours: NDArray) -> NDArray[np.int32]:
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return (red << 16) | (green << 8) | blue


def _legend_places(names: list[str], width: int) -> tuple[list[tuple[int, int]], int]:
    """Return the left edge and row of each entry, and the number of rows."""
    places, left, row = [], LEFT_PX, 0
    for name in names:
        needed = 18 + round(_font(13).getlength(name)) + 22
        if left > LEFT_PX and left + needed > width:
            left, row = LEFT_PX, row + 1
        places.append((left, row))
        left += needed
    return places, (row + 1 if names else 0)


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
