"""T2 lesions against masks drawn by readers, or simulated: prints overlap and volume.

    python -m tests.benchmarks.lesions T1W FLAIR TRUTH [T1W FLAIR TRUTH ...]

The truth lies on the T1w's grid.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bids_qsm.anatomy.brain import prepare_t1w
from bids_qsm.anatomy.lesions import align_to_t1w, find_lesions, regions_from_template
from bids_qsm.anatomy.warp import register_to_template
from bids_qsm.images import load_image
from bids_qsm.numerics.geometry import Bool
from bids_qsm.numerics.lesion_tables import label_lesions

HEADER = "T1w\tdice\tvolume_ml\ttruth_ml\tfalse_lesions\tfalse_ml\tmissed\tprepare_s\tdetect_s"


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


def main(paths: list[Path]) -> None:
    """Print one line for each three files."""
    print(HEADER)
    for t1w_path, flair_path, truth_path in zip(paths[::3], paths[1::3], paths[2::3], strict=True):
        start = time.perf_counter()
        t1w = prepare_t1w(load_image(t1w_path))
        with tempfile.TemporaryDirectory() as folder:
            warp = register_to_template(t1w, Path(folder) / "warp")
            regions = regions_from_template(t1w.image, warp.t1w_to_template)
        flair = align_to_t1w(t1w, load_image(flair_path))
        prepared = time.perf_counter()
        found = find_lesions(t1w, flair, regions).mask
        end = time.perf_counter()
        truth = load_image(truth_path).data > 0.5
        numbers = (*agreement(found, truth, t1w.image.geometry.voxel_mm3), prepared - start)
        print(t1w_path.name, *(f"{v:.3g}" for v in (*numbers, end - prepared)), sep="\t")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
