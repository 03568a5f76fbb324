"""T2 lesions against masks drawn by readers, or simulated: prints overlap and volume.

    python -m tests.benchmarks.lesions [--choose] T1W FLAIR TRUTH [T1W FLAIR TRUTH ...]

The truth lies on the T1w's grid; ``0`` in its place says that there is no lesion.  With
``--choose`` the thresholds that overlap best on all other images are also measured on each image
(some minutes for each).
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_qsm.anatomy.brain import PreparedT1w, prepare_t1w
from bids_qsm.anatomy.lesions import (
    LesionRegions,
    align_to_t1w,
    find_lesions,
    regions_from_template,
)
from bids_qsm.anatomy.warp import register_to_template
from bids_qsm.images import Image, load_image
from bids_qsm.numerics.geometry import Bool
from bids_qsm.numerics.lesion_tables import label_lesions

HEADER = "T1w\tdice\tvolume_ml\ttruth_ml\tfalse_lesions\tfalse_ml\tmissed\tprepare_s\tdetect_s"
CHOICES = {
    "core_sd": (3.0, 3.5, 4.0, 4.5, 5.0),
    "rim_sd": (2.0, 2.5, 2.75, 3.0, 3.5),
    "edge_fraction": (0.3, 0.4, 0.5),
}


@dataclass(frozen=True)
class Case:
    """All that lesions are found in, and the truth."""

    name: str
    t1w: PreparedT1w
    flair: Image
    regions: LesionRegions
    truth: Bool

    def measured(self, **options: float) -> tuple[float, ...]:
        """Return the agreement with the truth."""
        found = find_lesions(self.t1w, self.flair, self.regions, **options).mask
        return agreement(found, self.truth, self.t1w.image.geometry.voxel_mm3)


def agreement(found: Bool, truth: Bool, voxel_mm3: float) -> tuple[float, ...]:
    """Return Dice, the volumes, lesions that are none with their volume, and missed ones."""
    total = int(found.sum() + truth.sum())
    dice = 2 * int((found & truth).sum()) / total if total else 1.0
    pieces, wanted = label_lesions(found, voxel_mm3), label_lesions(truth, voxel_mm3)
    false = np.setdiff1d(np.unique(pieces), [0, *np.unique(pieces[truth])])
    missed = np.setdiff1d(np.unique(wanted), [0, *np.unique(wanted[found])])
    false_ml = int(np.isin(pieces, false).sum()) * voxel_mm3 / 1000
    volumes = (int(mask.sum()) * voxel_mm3 / 1000 for mask in (found, truth))
    return (dice, *volumes, len(false), false_ml, len(missed))


def prepared(t1w_path: Path, flair_path: Path, truth_path: Path) -> Case:
    """Do what comes before lesions are found."""
    t1w = prepare_t1w(load_image(t1w_path))
    with tempfile.TemporaryDirectory() as folder:
        warp = register_to_template(t1w, Path(folder) / "warp")
        regions = regions_from_template(t1w.image, warp.t1w_to_template)
    flair = align_to_t1w(t1w, load_image(flair_path))
    none = str(truth_path) == "0"
    truth = np.zeros(t1w.image.shape, bool) if none else load_image(truth_path).data > 0.5
    return Case(str(t1w_path), t1w, flair, regions, truth)


def print_left_out(cases: Sequence[Case]) -> None:
    """Print what the thresholds reach that are best on all other cases."""
    grid = [
        dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())
    ]
    measured = np.array([[case.measured(**options)[:3] for options in grid] for case in cases])
    for place, case in enumerate(cases):
        best = int(np.delete(measured, place, axis=0)[..., 0].mean(axis=0).argmax())
        dice, found_ml, truth_ml = measured[place, best]
        chosen = " ".join(f"{name}={value:g}" for name, value in grid[best].items())
        print(case.name, f"{dice:.3g}\t{found_ml:.3g}\t{truth_ml:.3g}", chosen, sep="\t")


def main(arguments: list[str]) -> None:
    """Print one line for each three files."""
    paths = [Path(argument) for argument in arguments if argument != "--choose"]
    print(HEADER)
    cases = []
    for three in zip(paths[::3], paths[1::3], paths[2::3], strict=True):
        start = time.perf_counter()
        case = prepared(*three)
        ready = time.perf_counter()
        numbers = (*case.measured(), ready - start, time.perf_counter() - ready)
        print(case.name, *(f"{v:.3g}" for v in numbers), sep="\t")
        cases.append(case)
    if "--choose" in arguments:
        print_left_out(cases)


if __name__ == "__main__":
    main(sys.argv[1:])
