"""Time and memory of the main job, step by step, and its accuracy on a simulated head.

    python tests/benchmarks/main_job.py [--bids DIR] [--no-t1w]

Without ``--bids`` a head of 1 x 1 x 2 mm with five echoes is simulated first.  Nothing is asserted:
the figures are those of the machine, and are to be read beside its load.  Kernels are compiled by
a first run on the example dataset, which is not counted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from bids_qsm.images import load_image, voxel_sizes_mm
from bids_qsm.report.record import SeriesRecord, record_from_json

EXAMPLES = Path(__file__).resolve().parents[2] / "data_examples" / "bids"


def process(bids: Path, out: Path, *words: str) -> float:
    """Run the main job and return its wall time in seconds, start-up included."""
    started = time.perf_counter()
    subprocess.run(["bids-qsm", bids, out, "participant", *words], check=True)
    return time.perf_counter() - started


def print_steps(record: SeriesRecord, wall_s: float) -> None:
    print(f"\n{record.name}: {record.facts['Matrix']}, {record.facts['Echo times']}")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for step in record.steps:
        print(f"  {step.name:14s} {step.method:18s} {step.seconds:8.2f} s")
    chain = ("offset", "unwrapping", "field", "mask", "background", "inversion", "relaxometry")
    total = sum(step.seconds for step in record.steps if step.name in chain)
    print(f"  phase to chi and R2*: {total:.1f} s")
    print(f"  process start to report: {wall_s:.1f} s, peak memory {record.peak_mib:.0f} MiB")


def print_accuracy(out: Path, truth: Path, name: str) -> None:
    """Print the error of chi within 6 mm of the brain's edge and for the deep nuclei."""
    anat = truth / name / "anat"
    true = load_image(anat / f"{name}_Chimap.nii.gz")
    brain = load_image(anat / f"{name}_label-brain_mask.nii.gz").data > 0
    labels = load_image(anat / f"{name}_dseg.nii.gz", np.int16).data
    found = load_image(out / name / "anat" / f"{name}_Chimap.nii.gz").data
    depth_mm = ndimage.distance_transform_edt(brain, sampling=voxel_sizes_mm(true.affine))
    core = depth_mm > 6
    a, b = found[core] - found[core].mean(), true.data[core] - true.data[core].mean()
    print(f"  NRMSE 6 mm inside the brain: {100 * np.linalg.norm(a - b) / np.linalg.norm(b):.1f} %")
    nuclei = [label for label in (10, 49, 11, 50, 12, 51, 13, 52) if (labels == label).any()]
    means = [
        [m[labels == label].mean() - m[core].mean() for label in nuclei] for m in (true.data, found)
    ]
    slope = np.polyfit(*means, 1)[0]
    error_ppb = 1000 * np.abs(np.subtract(*means)).mean()
    print(f"  deep nuclei: slope {slope:.3f}, mean error {error_ppb:.1f} ppb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bids", type=Path, help="dataset to process instead of a simulated head")
    parser.add_argument("--no-t1w", action="store_true", help="of the simulated head")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out, bids = Path(folder) / "out", options.bids
        process(EXAMPLES, Path(folder) / "warm", "--participant-label", "02")
        if bids is None:
            bids = Path(folder) / "bids"
            words = ["--no-flair", *(["--no-t1w"] if options.no_t1w else [])]
            subprocess.run(["bids-qsm-phantom", bids, *words], check=True)
        wall_s = process(bids, out)
        for path in sorted((out / "logs").glob("*_record.json")):
            record = record_from_json(path.read_text(encoding="utf-8"))
            print_steps(record, wall_s)
            truth = bids / "derivatives" / "truth"
            if options.bids is None:
                print_accuracy(out, truth, record.name)


if __name__ == "__main__":
    main()
