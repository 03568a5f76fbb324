"""Microbleeds, calcifications and rims against the truth of simulated heads.

    bids-qsm-phantom HEADS --participants 4 --microbleeds 20 --calcifications 8 [--labels FILE]
    bids-qsm HEADS OUT participant --with microbleeds
    python -m tests.benchmarks.microbleeds HEADS OUT [HEADS OUT ...]

A bleed counts as found if one of the table lies within its radius and 1 mm (2.5 mm at least) of
its place.  Diameters are those of the ball of susceptibility, not of the larger void around it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

LEAST_MM = 3.0
REACH_MM, BEYOND_MM = 2.5, 1.0
KINDS = ("microbleed", "calcification")
CHANCE = ((0.35, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.01))
PLACE = ["x_mm", "y_mm", "z_mm"]


def matched(truth: pd.DataFrame, found: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Return the row found of each true one, and the true one of each found (-1 is none)."""
    of_truth = pd.Series(-1, truth.index)
    of_found = pd.Series(-1, found.index)
    for index, row in truth.iterrows():
        away = np.sqrt(((found[PLACE] - row[PLACE].astype(float)) ** 2).sum(axis=1))
        reach = max(REACH_MM, row["diameter_mm"] / 2 + BEYOND_MM)
        near = found.index[(away < reach) & (found["kind"] == row["kind"])]
        of_found[near] = index
        if len(near):
            of_truth[index] = found.loc[near, "confidence"].idxmax()
    return of_truth, of_found


def pairs(dataset: Path, outputs: Path) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Yield name, truth and result of each series that has a table of microbleeds."""
    for path in sorted(outputs.rglob("*_desc-microbleeds_stats.tsv")):
        name = path.name.removesuffix("_desc-microbleeds_stats.tsv")
        truth = dataset / "derivatives" / "truth" / path.parent.relative_to(outputs)
        planted = truth / f"{name}_inclusions.tsv"
        columns = ["kind", *PLACE, "diameter_mm", "chi_ppm", "moment_ppm_mm3"]
        wanted = pd.DataFrame(columns=columns)
        if planted.exists():
            wanted = pd.read_csv(planted, sep="\t")
        found = pd.read_csv(path, sep="\t", na_values="n/a")
        if len(found) and (found["space"] == "T1w").all():
            wanted = in_t1w(wanted, truth, name)
        yield f"{dataset.name}/{name}", wanted, found


def in_t1w(truth: pd.DataFrame, folder: Path, name: str) -> pd.DataFrame:
    """Return the truth with places in the world of the T1w image, for which the head has moved."""
    poses = [
        np.array(json.loads((folder / f"{name}_{end}.json").read_text())["HeadPose"])
        for end in ("truth", "space-T1w_dseg")
    ]
    move = poses[1] @ np.linalg.inv(poses[0])
    places = truth[PLACE].to_numpy(float) @ move[:3, :3].T + move[:3, 3]
    return truth.assign(**dict(zip(PLACE, places.T, strict=True)))


def row_of(truth: pd.DataFrame, found: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
    """Return the printed values of a head, and the found ones with their truth."""
    of_truth, of_found = matched(truth, found)
    bleeds = truth["kind"] == KINDS[0]
    large = truth["diameter_mm"] >= LEAST_MM
    values = [
        f"{int((of_truth[chosen] >= 0).sum())}/{int(chosen.sum())}"
        for chosen in (bleeds & large, bleeds & ~large, ~bleeds)
    ]
    false = found[of_found < 0]
    values += [str(int((false["kind"] == kind).sum())) for kind in KINDS]
    hits = of_truth[of_truth >= 0]
    for column in ("moment_ppm_mm3", "dipole_ppm_mm3"):
        true = truth.loc[hits.index, "moment_ppm_mm3"].to_numpy(float)
        ratio = found.loc[hits, column].to_numpy(float) / true
        low, middle, high = np.nanpercentile(ratio, (25, 50, 75)) if ratio.size else (np.nan,) * 3
        values.append(f"{middle:.2f} ({low:.2f}-{high:.2f})")
    return values, found.assign(is_true=of_found >= 0)


def main(words: list[str]) -> None:
    """Print a line for each head, and how often each confidence was right."""
    names = ("head", f">= {LEAST_MM:g} mm", "smaller", "calcifications")
    print(*names, "false_bleeds", "false_calcifications", "moment", "dipole", sep="\t")
    everything = []
    for dataset, outputs in zip(map(Path, words[::2]), map(Path, words[1::2]), strict=True):
        for name, truth, found in pairs(dataset, outputs):
            values, judged = row_of(truth, found)
            print(name, *values, sep="\t")
            everything.append(judged)
    judged = pd.concat(everything)
    for low, high in CHANCE:
        here = judged[(judged["confidence"] >= low) & (judged["confidence"] < high)]
        print(
            f"confidence {low:g} to {min(high, 1):g}: {here['is_true'].mean():.2f} of {len(here)}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
