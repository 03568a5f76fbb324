"""How well lesions are followed, on simulated heads: bias, repeatability, false and missed flags.

Make a dataset, process it, and compare it with its truth::

    bids-qsm-phantom BIDS --sessions 8 --cavernomas 9 --growth 0 --voxel 1.5 1.5 1.5 --no-t1w
    bids-qsm BIDS OUT participant --with lesion-tracking
    python -m tests.benchmarks.tracking BIDS OUT
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

NEAR_MM = 5.0
MEASURES = ("chi_ppm_mean", "moment_ppm_mm3", "own_chi_ppm_mean", "own_volume_mm3", "chi_ppm_p99")


def compared(bids: Path, out: Path) -> pd.DataFrame:
    """Return the tables of tracking with the true cavernoma, and its true change, of each row."""
    tables = []
    for path in sorted(out.glob("sub-*/anat/sub-*_desc-tracking_stats.tsv")):
        table = pd.read_csv(path, sep="\t", na_values=["n/a"])
        subject = path.name.split("_")[0]
        truth = {}
        for series in table["series"].unique():
            (file,) = (bids / "derivatives" / "truth").rglob(f"{series}_cavernomas.tsv")
            truth[series] = pd.read_csv(file, sep="\t")
        found = [_nearest(truth[row.series], row) for row in table.itertuples()]
        table["true_chi_ppm"] = [np.nan if f is None else f["chi_ppm"] for f in found]
        table["cavernoma"] = [np.nan if f is None else f["index"] for f in found]
        table["lesion"] = subject + " lesion " + table["lesion"].astype(str)
        before = table.groupby("lesion")["true_chi_ppm"].shift()
        table["true_percent"] = 100 * (table["true_chi_ppm"] - before) / before
        n_true = len(truth[table["series"].iloc[0]])
        print(f"{subject}: {table['cavernoma'].nunique()} of {n_true} cavernomas, "
              f"{table.loc[table['cavernoma'].isna(), 'lesion'].nunique()} others")  # fmt: skip
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _nearest(truth: pd.DataFrame, row) -> pd.Series | None:
    away = np.sqrt(sum((truth[f"{a}_mm"] - getattr(row, f"{a}_mm")) ** 2 for a in "xyz"))
    return truth.loc[away.idxmin()] if away.min() < NEAR_MM else None


def main() -> None:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids", type=Path)
    parser.add_argument("out", type=Path)
    words = parser.parse_args()
    table = compared(words.bids, words.out)
    table = table[table["cavernoma"].notna()]
    for measure in MEASURES:
        before = table.groupby("lesion")[measure].shift()
        error = 100 * (table[measure] - before) / before - table["true_percent"]
        error = error[np.isfinite(error)]
        print(f"{measure}: error of the change {error.mean():+.2f} ± {error.std():.2f} %, at most "
              f"{error.abs().max():.2f} % ({error.size} changes)")  # fmt: skip
    changes = table[table["change_percent"].notna()]
    flags, steady = changes["exceeds_threshold"].astype(bool), changes["true_percent"].abs() < 1e-3
    print(f"flags: {flags[steady].sum()} of {steady.sum()} without a change, "
          f"{flags[~steady].sum()} of {(~steady).sum()} with one")  # fmt: skip


if __name__ == "__main__":
    main()
