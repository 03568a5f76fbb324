"""Scan-rescan reliability, by structure and by voxel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_qsm.statistics.bland_altman import LIMIT, bland_altman
from bids_qsm.statistics.icc import KINDS, MeanSquares, interval, intraclass, mean_squares
from bids_qsm.statistics.intervals import Float64, checked_confidence, deviation
from bids_qsm.statistics.pairs import repeats

Float32 = NDArray[np.float32]
CHANGE = LIMIT * np.sqrt(2)
"""Two single measurements of one subject differ by less than this times SD, in 95 of 100."""


@dataclass(frozen=True)
class Reliability:
    """``table``: one row for each structure; ``left_out``: who was not used, and why."""

    table: pd.DataFrame
    left_out: pd.DataFrame


@dataclass(frozen=True)
class VoxelReliability:
    """Reliability in each voxel; arrays of shape (n_voxels,), float32 but for the counts.

    ``n`` subjects have finite values in both scans; ``mean`` is the mean of both scans, ``bias``
    second - first, ``mad`` the mean absolute difference, all in the units of the maps;
    ``mad_percent`` is the mean over subjects of ``100 * |difference| / |mean|``,
    without the ``n_near_zero`` subjects whose mean is too near zero to divide by; ``sd_within``
    is the within-subject SD.
    """

    n: NDArray[np.int64]
    mean: Float32
    bias: Float32
    mad: Float32
    mad_percent: Float32
    n_near_zero: NDArray[np.int64]
    sd_within: Float32
    icc_2_1: Float32
    icc_3_1: Float32


def reliability(
    table: pd.DataFrame,
    sessions: Sequence[str] | None = None,
    *,
    value: str = "mean",
    session_column: str = "session_id",
    by: Sequence[str] | None = None,
    confidence: float = 0.95,
    least_mean: float | None = None,
) -> Reliability:
    r"""Compare repeated measurements of structures.

    With *d* the difference of two scans of a subject and *m* their mean:

    * ``mad`` is the mean of \|d\|, in units (over all pairs of more than two sessions);
    * ``mad_percent`` is the mean over subjects of 100 \|d\|/\|m\|, and ``mad_percent_of_mean``
      100 mean(\|d\|) over the absolute mean of all: the second is steady where single
      subjects are near zero, as susceptibility may be.  "5 % for R2*, 1 % for QSM" of the first
      study to be reproduced names no denominator; the first of these is the common one.
    * A percentage is NaN where the mean that it is taken of is too near zero: not above
      ``least_mean``, by default what measurement error alone gives to a mean of *k* scans
      (1.96 ``sd_within`` / sqrt(k)).  ``n_near_zero`` counts the subjects so left out.
    * ``sd_within`` is the within-subject standard deviation, a shift between sessions included;
      ``cv_percent`` is 100 times it over the absolute mean of all;
      ``smallest_detectable_change`` (the repeatability coefficient) is 1.96 sqrt(2) times it.

    Parameters
    ----------
    table : DataFrame
        The tidy table: ``participant_id``, a column of sessions, those of the structure, values.
    sessions : sequence of str, optional
        Two or more sessions, all if not given.
    value, session_column, by
        As in :func:`bids_qsm.statistics.pairs.repeats`.
    confidence : float
        Coverage of all intervals.
    least_mean : float, optional
        In the units of ``value``.

    Returns
    -------
    Reliability
        ``table``: the columns of the structure, ``sessions, n, n_left_out, mean, sd_between``
        (SD of the subjects' means), ``mad, mad_percent, mad_percent_of_mean, n_near_zero``,
        ``sd_within, cv_percent, smallest_detectable_change`` and ``icc_1_1, icc_2_1, icc_3_1``
        with their intervals, for two sessions those of
        :class:`~bids_qsm.statistics.bland_altman.BlandAltman`,
        and ``note``.

    Raises
    ------
    ValueError
        If a column or session is missing, a scan is there twice, or fewer than two subjects have
        all sessions; a sentence for the user.

    References
    ----------
    Bland & Altman 1996, 10.1136/bmj.313.7059.744 (within-subject SD); McGraw & Wong 1996,
    10.1037/1082-989X.1.1.30 (ICC).
    """
    checked_confidence(confidence)
    found = repeats(table, sessions, occasion=session_column, value=value, by=by)
    squares = mean_squares(found.values)
    if squares.n.max() < 2:
        raise ValueError(
            "reliability needs two subjects or more with a value in each of "
            f"{', '.join(found.occasions)}; there are {squares.n.max()}."
        )
    columns: dict[str, Any] = {
        "sessions": ", ".join(found.occasions),
        "n": squares.n,
        "n_left_out": len(found.participants) - squares.n,
        **_differences(found.values, squares, least_mean),
        **_within(squares, confidence),
    }
    for kind in KINDS:
        low, high = interval(squares, kind, confidence)
        columns[f"icc_{kind}"] = intraclass(squares, kind)
        columns |= {f"icc_{kind}_low": low, f"icc_{kind}_high": high}
    result = found.structures.assign(**columns)
    result["cv_percent"] = _percent(result["sd_within"], result["mean"], result.pop("least_mean"))
    if len(found.occasions) == 2:
        result = result.join(_bland_altman(found.values, squares.n, confidence))
    result["note"] = [_note(n, b, w) for n, b, w in _each(squares)]
    return Reliability(result, found.left_out)


def voxel_reliability(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    *,
    least_mean: float | None = None,
    block_mib: int = 16,
) -> VoxelReliability:
    """Compare two scans of the same subjects in each voxel.

    Parameters
    ----------
    first, second : ndarray or memmap, shape (n_subjects, n_voxels)
        Both scans, subjects in the same order.  A subject counts in the voxels in which both
        scans are finite.
    least_mean : float, optional
        Means of two scans up to this, in units of the maps, are too near zero for a percentage;
        by default 1.96 / sqrt(2) times the voxel's within-subject SD, what noise alone gives.
    block_mib : int
        Size of a block in float64; memory is some six blocks and the result.

    Raises
    ------
    ValueError
        If the shapes differ, or there are fewer than two subjects.
    """
    if first.ndim != 2 or first.shape != second.shape:
        raise ValueError(
            f"both scans must be (subjects, voxels) of one shape: {first.shape}, {second.shape}."
        )
    n_subjects, n_voxels = first.shape
    if n_subjects < 2:
        raise ValueError(f"reliability needs two subjects or more; there is {n_subjects}.")
    types = {f.name: np.int64 if f.name.startswith("n") else np.float32 for f in _VOXEL_FIELDS}
    maps: dict[str, Any] = {name: np.empty(n_voxels, kind) for name, kind in types.items()}
    width = max(1, block_mib * 2**20 // (16 * n_subjects))
    for start in range(0, n_voxels, width):
        part = slice(start, min(start + width, n_voxels))
        pair = np.stack([first[:, part], second[:, part]], axis=1)
        squares = mean_squares(pair)
        found = _differences(pair, squares, least_mean)
        found |= {f"icc_{kind}": intraclass(squares, kind) for kind in ("2_1", "3_1")}
        found |= {"n": squares.n, "sd_within": np.sqrt(squares.within)}
        complete = np.isfinite(pair).all(axis=1)
        change = np.where(complete, pair[:, 1].astype(np.float64) - pair[:, 0], 0)
        found["bias"] = change.sum(axis=0) / np.where(squares.n > 0, squares.n, np.nan)
        for name, target in maps.items():
            target[part] = found[name]
    return VoxelReliability(**maps)


def by_label(
    maps: VoxelReliability, labels: NDArray[np.integer], structures: pd.DataFrame
) -> pd.DataFrame:
    """Return the averages of voxels' reliability over each structure.

    Parameters
    ----------
    maps : VoxelReliability
    labels : ndarray of int, shape (n_voxels,)
        Label of each voxel.
    structures : DataFrame
        The rows wanted, with a column ``index`` of labels; its columns come first.

    Returns
    -------
    DataFrame
        ``n_voxels`` (in which two subjects or more were measured), ``mean``, ``bias``, ``mad``
        and ``mad_percent`` (means over voxels of the maps: "voxel-by-voxel absolute difference
        averages"), ``mad_percent_of_mean`` (``mad`` over the absolute mean of the structure:
        steady where voxels are near zero), ``n_near_zero`` (subjects in voxels without a
        percentage) with their ``share_near_zero``, ``sd_within`` (root mean square),
        ``smallest_detectable_change``, and mean and median of ICC.
    """
    if labels.shape != maps.mean.shape:
        raise ValueError(f"there are {labels.size} labels for {maps.mean.size} voxels.")
    rows = [_label_row(maps, np.flatnonzero(labels == label)) for label in structures["index"]]
    return structures.reset_index(drop=True).join(pd.DataFrame(rows))


_VOXEL_FIELDS = fields(VoxelReliability)


def _differences(
    values: NDArray[np.floating], squares: MeanSquares, least_mean: float | None
) -> dict[str, Float64 | NDArray[np.int64]]:
    """Return means and absolute differences over complete subjects, for values (n, k, ...)."""
    n, k = squares.n, values.shape[1]
    subjects = np.where(n > 1, n, np.nan)
    complete = np.isfinite(values).all(axis=1)
    filled = np.where(complete[:, None], values, 0).astype(np.float64)
    absolute = np.zeros(complete.shape)
    for a in range(k):
        for b in range(a + 1, k):
            absolute += np.abs(filled[:, b] - filled[:, a])
    absolute /= k * (k - 1) / 2
    centre = filled.mean(axis=1)
    noise = LIMIT * np.sqrt(squares.within / k)
    least = noise if least_mean is None else np.full_like(noise, least_mean)
    usable = complete & (np.abs(centre) > least)
    n_usable = usable.sum(axis=0)
    share = absolute / np.where(usable, np.abs(centre), np.inf)
    mean, mad = centre.sum(axis=0) / subjects, absolute.sum(axis=0) / subjects
    return {
        "mean": mean,
        "sd_between": np.sqrt(squares.between / k),
        "mad": mad,
        "mad_percent": 100 * share.sum(axis=0) / np.where(n_usable > 0, n_usable, np.nan),
        "mad_percent_of_mean": _percent(mad, mean, least),
        "n_near_zero": n - n_usable,
        "least_mean": least,
    }


def _percent(part: Any, mean: Any, least: Any) -> Any:
    return 100 * part / np.where(np.abs(mean) > least, np.abs(mean), np.nan)


def _within(squares: MeanSquares, confidence: float) -> dict[str, Float64]:
    sd = np.sqrt(squares.within)
    df = np.where(squares.n > 1, squares.n * (squares.k - 1), np.nan)
    low, high = deviation(sd, df, confidence)
    return {
        "sd_within": sd,
        "sd_within_low": low,
        "sd_within_high": high,
        "cv_percent": sd,
        "smallest_detectable_change": CHANGE * sd,
        "smallest_detectable_change_low": CHANGE * low,
        "smallest_detectable_change_high": CHANGE * high,
    }


def _bland_altman(values: Float64, n: NDArray[np.int64], confidence: float) -> pd.DataFrame:
    rows = []
    for where in range(values.shape[2]):
        pair = values[np.isfinite(values[:, :, where]).all(axis=1), :, where]
        enough = n[where] > 1
        rows.append(asdict(bland_altman(pair[:, 0], pair[:, 1], confidence)) if enough else {})
    return pd.DataFrame(rows).drop(columns="n")


def _each(squares: MeanSquares) -> Iterator[tuple[int, float, float]]:
    return zip(squares.n, squares.between, squares.within, strict=True)


def _note(n: int, between: float, within: float) -> str:
    if n < 2:
        return "fewer than two subjects with all sessions"
    if between == 0 and within == 0:
        return "all values are equal"
    return ""


def _label_row(maps: VoxelReliability, where: NDArray[np.intp]) -> dict[str, float]:
    used = where[maps.n[where] > 1]
    row: dict[str, float] = {"n_voxels": used.size}
    picked = {f.name: getattr(maps, f.name)[used].astype(np.float64) for f in _VOXEL_FIELDS}
    for name in ("mean", "bias", "mad"):
        row[name] = _mean(picked[name])
    row["mad_percent"] = _mean(picked["mad_percent"])
    row["mad_percent_of_mean"] = 100 * row["mad"] / abs(row["mean"]) if row["mean"] else np.nan
    near, total = float(picked["n_near_zero"].sum()), float(picked["n"].sum())
    row["n_near_zero"], row["share_near_zero"] = near, near / total if total else np.nan
    row["sd_within"] = float(np.sqrt(_mean(picked["sd_within"] ** 2)))
    row["smallest_detectable_change"] = CHANGE * row["sd_within"]
    for name in ("icc_2_1", "icc_3_1"):
        row[name] = _mean(picked[name])
        known = picked[name][np.isfinite(picked[name])]
        row[f"{name}_median"] = float(np.median(known)) if known.size else np.nan
    return row


def _mean(values: Float64) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else np.nan
