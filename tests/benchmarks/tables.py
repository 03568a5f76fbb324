"""What the measurements are written as: tables, and sheets of pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tests.benchmarks.measure import COSTS
from tests.benchmarks.scores import CHI_SCORES

COLUMNS = ("stage", "head", "combination", *CHI_SCORES, *COSTS)
MEAN = "mean of heads"
_DIGITS = {"xsim": 4, "nuclei_slope": 3, "times_limit": 2, "moved_mb": 0, "load_average": 1}
_DIGITS |= {"peak_mib": 0, "base_mib": 0, "streak_index": 2}
_INCH = 1.7

Row = Mapping[str, Any]


def with_means(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, and after each stage's the means over heads where there are several."""
    out = list(rows)
    keys = list(dict.fromkeys((row["stage"], row["combination"]) for row in rows))
    for stage, combination in keys:
        same = [r for r in rows if (r["stage"], r["combination"]) == (stage, combination)]
        if len(same) > 1:
            numbers = {
                key: float(np.mean([row[key] for row in same]))
                for key in same[0]
                if isinstance(same[0][key], float | int)
            }
            out.append({"stage": stage, "head": MEAN, "combination": combination, **numbers})
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    return sorted(out, key=lambda row: (stages.index(row["stage"]), row["head"] == MEAN))


def write_tables(folder: Path, stem: str, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Write ``stem.tsv`` with all digits and ``stem.md`` with those that matter."""
    tsv = ["\t".join(columns)]
    tsv += ["\t".join(_full(row.get(column)) for column in columns) for row in rows]
    (folder / f"{stem}.tsv").write_text("\n".join(tsv) + "\n", encoding="utf-8")
    (folder / f"{stem}.md").write_text(markdown(rows, columns), encoding="utf-8")


def markdown(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Return a table; columns without any value are left out."""
    used = [c for c in columns if any(row.get(c) is not None for row in rows)]
    lines = [used, ["---"] * len(used)]
    lines += [[_short(column, row.get(column)) for column in used] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _full(value: Any) -> str:
    return "n/a" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _short(column: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.{_DIGITS.get(column, 1)}f}" if isinstance(value, float) else str(value)


def write_sheet(path: Path, title: str, slices: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a picture: truth on top, then each combination, its difference from truth beside it.

    Parameters
    ----------
    path : Path
        PNG.
    title : str
    slices : mapping of str to mapping
        Of each combination what :func:`tests.benchmarks.measure.measure` wrote.
    """
    names, first = list(slices), next(iter(slices.values()))
    shown = np.concatenate([first[f"true{axis}"].ravel() for axis in range(3)])
    window = float(np.percentile(np.abs(shown), 99))
    figure = Figure(figsize=(6 * _INCH, (len(names) + 1) * _INCH), layout="constrained")
    axes = figure.subplots(len(names) + 1, 6, squeeze=False)
    figure.suptitle(f"{title}; grey: -{window:.3f} to {window:.3f} ppm", fontsize=8)
    for name, panels in zip(["truth", *names], axes, strict=True):
        its = slices.get(name, first)
        for axis in range(3):
            true = its[f"true{axis}"]
            spacing = np.delete(its["voxel_mm"], axis)
            aspect = float(spacing[1] / spacing[0])
            image = true if name == "truth" else its[f"found{axis}"]
            _show(panels[axis], image, window, aspect)
            _show(panels[3 + axis], None if name == "truth" else image - true, window, aspect)
        panels[0].set_title(name, fontsize=7, loc="left")
        panels[3].set_title("" if name == "truth" else "less truth", fontsize=7, loc="left")
    figure.savefig(path, dpi=110)


def _show(panel: Axes, image: NDArray | None, window: float, aspect: float) -> None:
    panel.set_axis_off()
    if image is not None:
        look = {"cmap": "gray", "vmin": -window, "vmax": window, "interpolation": "nearest"}
        panel.imshow(image.T, origin="lower", aspect=aspect, **look)
