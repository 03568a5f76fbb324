"""Which scans stand out among comparable ones by their metrics of quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_qsm.statistics.collection import KEYS
from bids_qsm.statistics.mcd import robust_distances
from bids_qsm.statistics.robust import robust_z, tail_cutoff

Float64 = NDArray[np.float64]
Rows = NDArray[np.intp]

METRIC = ["atlas", "check", "name", "hemisphere"]
"""Columns that tell a metric from others; ``atlas`` is n/a for metrics of the images."""
FEWEST = 8
"""Comparable scans; fewer are judged by the reference ranges alone."""
METRIC_ALPHA = 0.01
"""Chance that a usual scan has an outlier among the metrics of the images, or of an atlas."""
DISTANCE_ALPHA = 0.0005
"""Chance that a usual scan is beyond the cutoff of one of the two distances."""
SCORE = "robust distance in all metrics"
ORTHOGONAL = "distance from what the scans have in common"
MOST_REASONS = 3
FAILED_LABELS = 3
"""Checks of labels that a scan fails, unlike others, before it is proposed for exclusion."""


@dataclass(frozen=True, eq=False)
class Judged:
    """All metrics, and what follows for the scans; see :func:`judge_scans`."""

    metrics: pd.DataFrame
    scans: pd.DataFrame
    notes: tuple[str, ...]


def judge_scans(table: pd.DataFrame) -> Judged:
    """Compare each scan with those of its kind, metric by metric and in all metrics at once.

    Parameters
    ----------
    table : DataFrame
        A row for each scan and metric: ``participant_id, session_id, series, comparable`` (scans
        with the same text are compared), ``atlas, check, name, hemisphere, value, low, high,
        units, direction`` (which values are bad: ``high``, ``low``, ``both``) and ``passed``
        (object; None where it could not be measured).

    Returns
    -------
    Judged
        ``metrics``: the table, in its order, with ``n_comparable`` (scans with a value), their
        ``median``, ``robust_z`` (see :func:`bids_qsm.statistics.robust.robust_z`; NaN where there
        are fewer than eight, or half have one value), ``z_cutoff`` and ``is_outlier`` (beyond it,
        on the bad side); the two robust distances of the images' metrics are rows of it.
        ``scans``: a row for each scan in the order of the table: ``comparable, n_comparable,
        n_out_of_range, n_outliers`` (of the images), ``n_failed_labels`` (out of range and unlike
        the other scans), ``distance, distance_cutoff``, ``is_flagged``, ``is_proposed`` (for
        exclusion) and ``reasons``.
        ``notes``: sentences on metrics that most scans fail, and scans that are not compared.
    """
    scans = table.drop_duplicates(KEYS)[[*KEYS, "comparable"]].reset_index(drop=True)
    place = pd.MultiIndex.from_frame(scans[KEYS])
    row = place.get_indexer(pd.MultiIndex.from_frame(table[KEYS]))
    metrics = table.drop_duplicates(METRIC).reset_index(drop=True)
    names = pd.MultiIndex.from_frame(metrics[METRIC])
    column = names.get_indexer(pd.MultiIndex.from_frame(table[METRIC]))
    grid = _Grid(table, row, column, (len(scans), len(metrics)))
    judged = table.assign(n_comparable=0, median=np.nan, robust_z=np.nan, z_cutoff=np.nan)
    judged["is_outlier"] = False
    distances, notes = [], []
    for kind, members in scans.groupby("comparable", sort=False).groups.items():
        rows = members.to_numpy(np.intp)
        if len(rows) < FEWEST:
            notes.append(_too_few(str(kind), len(rows)))
            continue
        found = grid.compared(rows, metrics)
        for name, values in found.items():
            of_rows = np.isin(row, rows)
            spread = np.zeros((len(scans), len(metrics)), values.dtype)
            spread[rows] = values
            judged.loc[of_rows, name] = spread[row[of_rows], column[of_rows]]
        distances += _distance_rows(scans.iloc[rows], found["robust_z"], metrics)
    if distances:
        judged = pd.concat([judged, *distances], ignore_index=True)
    judged, said = _with_failures(judged)
    return Judged(judged, _verdicts(scans, judged), (*said, *notes))


class _Grid:
    """Values and bounds of all metrics in a row for each scan."""

    def __init__(
        self, table: pd.DataFrame, row: Rows, column: Rows, shape: tuple[int, int]
    ) -> None:
        self._parts = {}
        for name in ("value", "low", "high"):
            self._parts[name] = np.full(shape, np.nan)
            self._parts[name][row, column] = table[name].to_numpy(np.float64)

    def compared(self, rows: Rows, metrics: pd.DataFrame) -> dict[str, NDArray]:
        """Return what :func:`judge_scans` adds to the metrics of some comparable scans."""
        values = self._parts["value"][rows]
        low, high = (_first_known(self._parts[name][rows]) for name in ("low", "high"))
        scores = robust_z(values, low, high)
        n = np.isfinite(values).sum(axis=0)
        z = np.where(n >= FEWEST, scores.z, np.nan)
        is_bad_high = metrics["direction"].isin(("high", "both")).to_numpy()
        is_bad_low = metrics["direction"].isin(("low", "both")).to_numpy()
        sides = (is_bad_high.astype(int) + is_bad_low) * np.isfinite(z).any(axis=0)
        of_family = pd.Series(sides).groupby(metrics["atlas"].to_numpy()).transform("sum")
        tests = np.maximum(1, of_family.to_numpy())
        pairs = zip(n, tests, strict=True)
        cutoff = np.array([tail_cutoff(int(k), METRIC_ALPHA / int(t)) for k, t in pairs])
        is_outlier = ((z > cutoff) & is_bad_high) | ((z < -cutoff) & is_bad_low)
        whole = np.ones((len(rows), 1))
        return {
            "n_comparable": (whole * n).astype(int),
            "median": whole * scores.median,
            "robust_z": z,
            "z_cutoff": np.where(np.isfinite(z).any(axis=0), whole * cutoff, np.nan),
            "is_outlier": is_outlier,
        }


def _first_known(bounds: Float64) -> Float64:
    """Return the first bound of each column that is known; they are equal among comparable."""
    first = np.isfinite(bounds).argmax(axis=0)
    return bounds[first, np.arange(bounds.shape[1])]


def _distance_rows(scans: pd.DataFrame, z: Float64, metrics: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the robust distances of comparable scans as rows of the table of metrics."""
    of_images = (metrics["atlas"] == "n/a").to_numpy() & np.isfinite(z).any(axis=0)
    known = z[:, of_images]
    found = robust_distances(np.where(np.isfinite(known), known, 0.0), alpha=DISTANCE_ALPHA)
    if found is None:
        return []
    tables = []
    for check, values, cutoff in (
        (SCORE, found.score, found.score_cutoff),
        (ORTHOGONAL, found.orthogonal, found.orthogonal_cutoff),
    ):
        if not np.isfinite(cutoff):
            continue
        table = scans.assign(atlas="n/a", check=check, name="all metrics", hemisphere="n/a")
        table = table.assign(value=values, low=np.nan, high=cutoff, units="", direction="high")
        table = table.assign(passed=pd.Series(values <= cutoff, scans.index, dtype=object))
        table = table.assign(n_comparable=len(scans), median=float(np.median(values)))
        table = table.assign(robust_z=np.nan, z_cutoff=np.nan, is_outlier=values > cutoff)
        tables.append(table)
    return tables


def _with_failures(judged: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Mark what is out of range, and what most comparable scans fail: none stands out by that."""
    failed = judged["passed"].map(lambda passed: passed is False or passed == 0).astype(bool)
    failed &= ~judged["check"].isin((SCORE, ORTHOGONAL))
    judged = judged.assign(is_out_of_range=failed)
    by = [judged[name] for name in ("comparable", *METRIC)]
    judged["share"] = judged["is_out_of_range"].groupby(by).transform("mean")
    is_common = (judged["share"] > 0.5) & (judged["n_comparable"] >= FEWEST)
    judged["is_common_failure"] = is_common & judged["is_out_of_range"]
    notes = []
    for _, row in judged[is_common].drop_duplicates(["comparable", *METRIC]).iterrows():
        what = f"{row['check']} ({row['name']})"
        what = what if row["atlas"] == "n/a" else f"{row['atlas']}: {what}"
        notes.append(
            f"{what} is out of the expected range in {row['share']:.0%} of the "
            f"{row['n_comparable']} scans of one kind ({row['comparable']}): that is the way they "
            "were measured or processed, so no scan is flagged for it alone."
        )
    return judged.drop(columns="share"), notes


def _too_few(kind: str, n: int) -> str:
    scans = "scan is" if n == 1 else "scans are"
    return (
        f"{n} {scans} not compared, since fewer than {FEWEST} are of their kind ({kind}): the "
        "reference ranges alone judge them."
    )


def _verdicts(scans: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each scan: what was found, whether it is flagged, and why."""
    is_label = judged["atlas"] != "n/a"
    is_distance = judged["check"].isin((SCORE, ORTHOGONAL))
    out = judged["is_out_of_range"] & ~judged["is_common_failure"]
    unlike = judged["is_outlier"] | judged["robust_z"].isna()
    of_image = ~is_label & ~is_distance
    marks = judged[KEYS].assign(
        n_out_of_range=of_image & judged["is_out_of_range"],
        n_outliers=of_image & judged["is_outlier"],
        n_failed_labels=is_label & out & unlike,
        n_grave=of_image & out & unlike,
        n_reasons=(of_image & (out | judged["is_outlier"])) | (is_label & out & unlike),
        n_far=is_distance & judged["is_outlier"],
    )
    counts = marks.groupby(KEYS, sort=False).sum().reset_index()
    verdicts = scans.merge(counts, on=KEYS, how="left")
    distance = judged[judged["check"] == SCORE].set_index(KEYS)[["value", "high"]]
    distance.columns = pd.Index(["distance", "distance_cutoff"])
    verdicts = verdicts.join(distance, on=KEYS)
    verdicts["is_flagged"] = (verdicts["n_reasons"] > 0) | (verdicts["n_far"] > 0)
    verdicts["is_proposed"] = (verdicts["n_grave"] > 0) | (
        verdicts["n_failed_labels"] >= FAILED_LABELS
    )
    reasons = judged[marks["n_reasons"] | marks["n_far"]]
    worst = [~reasons["is_out_of_range"], -reasons["robust_z"].abs().fillna(0)]
    reasons = reasons.iloc[np.lexsort([worst[1], worst[0]])]
    texts: dict[tuple[str, ...], list[str]] = {}
    for _, row in reasons.iterrows():
        texts.setdefault(tuple(row[KEYS]), []).append(_reason(row))
    verdicts["n_comparable"] = verdicts.groupby("comparable")["series"].transform("size")
    keys = verdicts[KEYS].itertuples(index=False, name=None)
    verdicts["reasons"] = [_joined(texts.get(key, [])) for key in keys]
    return verdicts.drop(columns=["n_grave", "n_reasons", "n_far"])


def _joined(texts: Sequence[str]) -> str:
    more = len(texts) - MOST_REASONS
    return "; ".join(texts[:MOST_REASONS]) + (f"; and {more} more" if more > 0 else "")


def _reason(row: pd.Series) -> str:
    """Return why a value is a reason, without a full stop."""
    side = {"L": "left ", "R": "right "}.get(row["hemisphere"], "")
    atlas = "" if row["atlas"] == "n/a" else f"{row['atlas']} "
    low, high, value = row["low"], row["high"], f"{row['value']:.3g} {row['units']}".rstrip()
    if row["check"] in (SCORE, ORTHOGONAL):
        return f"{row['check']} {value}, cutoff {high:.3g}"
    said = [f"{row['check']} ({atlas}{side}{row['name']}) {value}"]
    if not row["is_out_of_range"]:
        said.append(f"median {row['median']:.3g}")
    elif np.isfinite(low) and np.isfinite(high):
        said.append(f"expected {low:.3g} to {high:.3g}")
    else:
        said.append(f"expected at {f'least {low:.3g}' if np.isfinite(low) else f'most {high:.3g}'}")
    if row["is_outlier"]:
        said.append(f"robust z {row['robust_z']:.1f}")
    return ", ".join(said)
