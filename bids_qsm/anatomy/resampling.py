"""Images carried from one space to another by one interpolation."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_qsm.anatomy.itk import RAS_TO_LPS, from_itk, load_ants, to_itk, write_matrix
from bids_qsm.frames import pd
from bids_qsm.images import Image

INTERPOLATORS = {
    "nearest": "nearestNeighbor",
    "label": "genericLabel",
    "linear": "linear",
    "sinc": "lanczosWindowedSinc",
}

PointMapping = Path | NDArray[np.float64]


def apply_transforms(
    image: Image,
    reference: Image,
    mappings: Sequence[PointMapping],
    interpolation: str = "linear",
) -> Image:
    """Return ``image`` on the grid of ``reference``; zero where it does not reach.

    Parameters
    ----------
    image : Image, shape (x, y, z)
        NaN and infinity are taken as zero.
    reference : Image
        Gives the grid.
    mappings : sequence of Path or ndarray (4, 4)
        Point mappings in turn from the reference's world to the image's: matrices (RAS, mm) or
        files of ITK displacement fields.  For labels from template to gradient echo:
        ``(rigid.gre_to_t1w, *warp.t1w_to_template)``.
    interpolation : {"linear", "nearest", "label", "sinc"}
        ``label`` takes the label with most of the linear weights: smoother than ``nearest``.

    Returns
    -------
    Image
        Of the type of ``image``.
    """
    ants = load_ants()
    data = image.data
    if np.issubdtype(data.dtype, np.floating):
        data = np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0)
    with tempfile.TemporaryDirectory() as folder:
        files = [_as_file(m, Path(folder) / f"{i}.txt") for i, m in enumerate(mappings)]
        moved = ants.apply_transforms(
            to_itk(reference.like(np.zeros(reference.shape, np.float32))),
            to_itk(image.like(data)),
            files,
            interpolator=INTERPOLATORS[interpolation],
            whichtoinvert=[False] * len(files),
            singleprecision=False,
        )
    return reference.like(_as_type(from_itk(moved).data, image.data.dtype))


def resample_map(
    values: Image,
    mask: Image,
    reference: Image,
    mappings: Sequence[PointMapping],
    interpolation: str = "linear",
) -> Image:
    """Return a masked map on another grid, its edge not darkened by the zeros outside the mask.

    Values and mask are interpolated alike and divided; voxels of which less than half lies in
    the mask are zero.
    """
    weight = mask.like(mask.data.astype(np.float32))
    inside = values.like(np.where(mask.data, values.data, 0).astype(np.float32))
    total = apply_transforms(inside, reference, mappings, interpolation).data
    share = apply_transforms(weight, reference, mappings, interpolation).data
    kept = share >= 0.5
    return reference.like(np.where(kept, total / np.where(kept, share, 1), 0).astype(np.float32))


def map_points(
    points_mm: NDArray[np.floating], mappings: Sequence[PointMapping]
) -> NDArray[np.float64]:
    """Return points (RAS, mm), shape (n, 3), after point mappings in turn.

    With the mappings that bring an image B onto the grid of an image A (see
    :func:`apply_transforms`), points of A's world become points of B's.
    """
    if not len(points_mm):
        return np.zeros((0, 3))
    lps = np.asarray(points_mm, np.float64) * RAS_TO_LPS.diagonal()[:3]
    with tempfile.TemporaryDirectory() as folder:
        files = [_as_file(m, Path(folder) / f"{i}.txt") for i, m in enumerate(mappings)]
        moved = load_ants().apply_transforms_to_points(
            3, pd.DataFrame(lps, columns=list("xyz")), files, whichtoinvert=[False] * len(files)
        )
    return moved[list("xyz")].to_numpy(np.float64) * RAS_TO_LPS.diagonal()[:3]


def _as_file(mapping: PointMapping, path: Path) -> str:
    if isinstance(mapping, Path):
        return str(mapping)
    write_matrix(mapping, path)
    return str(path)


def _as_type(data: NDArray, dtype: np.dtype) -> NDArray:
    if dtype == np.bool_:
        return data > 0.5
    return np.rint(data).astype(dtype) if np.issubdtype(dtype, np.integer) else data.astype(dtype)
