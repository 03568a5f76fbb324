"""How the charts of the clinical steps become pictures of a report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure

from bids_qsm.report.annotations import encode_png
from bids_qsm.report.group_style import STYLE, rasterised

DPI = 110
"""A report shows pictures at some 1000 pixels; more make it large."""


def drawn(draw: Callable[..., Figure], *args: Any) -> bytes:
    """Return a figure as PNG, drawn in the style of all charts; the same input, the same bytes."""
    with matplotlib.style.context(["default", {**STYLE, "figure.dpi": DPI}]):
        return encode_png(rasterised(draw(*args)))
