"""Pictures of lesions that are followed: their courses, and each in each session."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bids_qsm.report.group_style import (
    INK,
    MUTED,
    WIDTH_IN,
    as_chart,
    colour_of,
    heading,
    panel_grid,
)

MOST_LESIONS = 12
LEAST_COLUMNS = 4
"""Slices of fewer sessions are not drawn larger."""
FLAG = "#D55E00"
CHI_PPM = (-0.1, 0.6)


@as_chart
def lesion_courses(table: pd.DataFrame, threshold_percent: float) -> Figure:
    """Return a panel for each lesion: its mean susceptibility over the sessions.

    The band is the first value and what the threshold adds to it; a ring marks a rise from one
    session to the next that reaches the threshold.

    Parameters
    ----------
    table : DataFrame
        Columns ``lesion, scan, years, chi_ppm_mean, exceeds_threshold``; the first
        :data:`MOST_LESIONS` lesions are drawn.
    threshold_percent : float
    """
    lesions = list(dict.fromkeys(table["lesion"]))[:MOST_LESIONS]
    time = "years" if table["years"].notna().all() else "scan"
    figure, axes = panel_grid(len(lesions), max_columns=3)
    for ax, lesion in zip(axes, lesions, strict=True):
        rows = table[(table["lesion"] == lesion) & table["chi_ppm_mean"].notna()]
        at, ppb = rows[time].to_numpy(float), 1000 * rows["chi_ppm_mean"].to_numpy(float)
        if ppb.size:
            ends = sorted((ppb[0], ppb[0] + abs(ppb[0]) * threshold_percent / 100))
            ax.axhspan(*ends, color=MUTED, alpha=0.15, linewidth=0)
        ax.plot(at, ppb, color=colour_of(0), marker="o", markersize=4)
        flagged = rows["exceeds_threshold"].fillna(False).astype(bool).to_numpy()
        ax.plot(
            at[flagged],
            ppb[flagged],
            linestyle="none",
            marker="o",
            markersize=9,
            markerfacecolor="none",
            markeredgecolor=FLAG,
            markeredgewidth=1.6,
        )
        ax.margins(x=0.1, y=0.2)
        if time == "scan":
            ax.set_xticks(range(int(table["scan"].max()) + 1))
        ax.set(xlabel="years" if time == "years" else "session", ylabel="χ (ppb)")
        heading(ax, f"Lesion {lesion}", "")
    return figure


@as_chart
def lesion_slices(
    slices: Sequence[Sequence[tuple[NDArray, NDArray] | None]],
    lesions: Sequence[int],
    sessions: Sequence[str],
) -> Figure:
    """Return an axial slice through each lesion (a row) in each session (a column).

    Parameters
    ----------
    slices : sequence of sequence
        For each lesion and session susceptibility (ppm) and how much lies in the region, arrays
        (right, front); None where the session does not show the lesion.
    lesions : sequence of int
    sessions : sequence of str
    """
    n_rows, n_columns = len(lesions), max(len(sessions), LEAST_COLUMNS)
    height = n_rows * WIDTH_IN / (n_columns + 0.3) + 0.3
    figure = Figure(figsize=(WIDTH_IN, height), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for unused in axes[:, len(sessions) :].ravel():
        unused.set_axis_off()
    for row, lesion in enumerate(lesions):
        for column, session in enumerate(sessions):
            ax = axes[row][column]
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            if row == 0:
                ax.set_title(session, fontsize=8, color=INK)
            if column == 0:
                ax.set_ylabel(f"Lesion {lesion}")
            shown = slices[row][column]
            if shown is None:
                ax.text(0.5, 0.5, "outside", ha="center", va="center", transform=ax.transAxes)
                continue
            chi, share = shown
            ax.imshow(chi.T, cmap="gray", vmin=CHI_PPM[0], vmax=CHI_PPM[1], origin="lower")
            if float(share.min(initial=1)) < 0.5 < float(share.max(initial=0)):
                ax.contour(share.T, levels=[0.5], colors=[FLAG], linewidths=0.9)
    return figure
