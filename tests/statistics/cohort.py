"""A small cohort as a tidy table, for the tests of the group level."""

from __future__ import annotations

import numpy as np
import pandas as pd


def cohort(
    n: int = 40, groups: tuple[str, ...] = ("patient", "control"), seed: int = 0
) -> pd.DataFrame:
    """Return two measures of three structures on both sides, with age, sex and group."""
    rng = np.random.default_rng(seed)
    people = pd.DataFrame(
        {
            "participant_id": [f"sub-{i:02d}" for i in range(n)],
            "group": [groups[i % len(groups)] for i in range(n)],
            "age": rng.normal(45, 9, n),
            "sex": rng.choice(["F", "M"], n),
            "edss": rng.integers(0, 12, n) / 2,
        }
    )
    rows = [
        (who, "n/a", who, 10 * s + side, f"{word} {name}", word[0], measure, units, reference)
        for who in people["participant_id"]
        for s, name in enumerate(["thalamus", "caudate", "putamen"])
        for side, word in enumerate(["Left", "Right"])
        for measure, units, reference in [("Chimap", "ppm", "csf"), ("R2starmap", "1/s", "n/a")]
    ]
    keys = ["participant_id", "session_id", "series", "index", "name", "hemisphere"]
    table = pd.DataFrame(rows, columns=[*keys, "measure", "units", "reference"])
    table["n_voxels"] = rng.integers(100, 1000, len(table))
    table["volume_mm3"] = table["n_voxels"] * 2.0
    table = table.merge(people, on="participant_id")
    effect = (table["group"] == groups[0]) * 0.3 + 0.02 * table["age"]
    table.insert(9, "mean", effect + table["index"] * 0.1 + rng.normal(size=len(table)))
    return table
