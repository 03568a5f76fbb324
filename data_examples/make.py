"""Make the example dataset, byte for byte: ``python data_examples/make.py [OUT_DIR]``.

Without a folder it replaces ``data_examples/bids``.  Takes about a minute.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from bids_qsm.phantom.anatomy import default_labels
from bids_qsm.phantom.dataset import write_dataset
from bids_qsm.phantom.options import DatasetOptions

COMMON = DatasetOptions(
    voxel_mm=(3.0, 3.0, 4.0),
    anatomy_voxel_mm=2.5,
    te_s=(0.004, 0.010, 0.016, 0.022),
    snr=100.0,
    mask_air=True,
    stored_bits=8,
    seed=2024,
)
PARTICIPANTS = (
    replace(COMMON, first=1, sessions=2, vendor="siemens", lesions=8, group="patient"),
    replace(COMMON, first=2, tilt_deg=18.0, vendor="philips", has_flair=False),
)


def make(out_dir: Path) -> None:
    """Write the dataset into a folder; the truth is not kept."""
    labels = default_labels()
    for options in PARTICIPANTS:
        write_dataset(out_dir, labels, options)
    shutil.rmtree(out_dir / "derivatives")


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "bids"
    if target == Path(__file__).parent / "bids" and target.exists():
        shutil.rmtree(target)
    make(target)
