"""Label and probability volumes of other programs."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.filebasedimages import ImageFileError

from bids_qsm.anatomy.atlas_checks import whole_numbers_problem
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, load_image


def read_volume(path: Path) -> Image:
    """Read a NIfTI or FreeSurfer (``.mgz``, ``.mgh``) image as float32."""
    if path.suffix not in (".mgz", ".mgh"):
        return load_image(path, np.float32)
    try:
        volume = nib.load(path)
        data = np.asarray(volume.dataobj, np.float32)
    except (ImageFileError, OSError, EOFError, ValueError) as error:
        raise UnreadableInputError(
            f"{path}: the image cannot be read ({error}); copy or convert it again."
        ) from None
    return Image(np.ascontiguousarray(data), np.asarray(volume.affine, np.float64))


def as_labels(image: Image, file: Path) -> Image:
    """Return whole numbers as int16; ``file`` is where they come from.

    Raises
    ------
    UnreadableInputError
        If the image is not 3D or was interpolated.
    """
    if image.data.ndim != 3:
        raise UnreadableInputError(f"{file}: expected a 3D label image, got {image.data.shape}.")
    if problem := whole_numbers_problem(image, file):
        raise UnreadableInputError(problem)
    return image.like(image.data.astype(np.int16))


def likeliest(probabilities: Image, table: pd.DataFrame) -> Image:
    """Return the likeliest structure where some structure is likelier than none.

    Thresholding each structure by itself would leave a gap between neighbours that share a voxel.
    """
    some = probabilities.data.sum(axis=3) >= 0.5
    index = table["index"].to_numpy(np.int16)[probabilities.data.argmax(axis=3)]
    return probabilities.like(np.where(some, index, np.int16(0)))


def as_probabilities(image: Image) -> Image:
    """Return probabilities as 0 to 1, whether they are stored so, in percent, or as bytes."""
    top = float(image.data.max())
    scale = 1.0 if top <= 1 else 100.0 if top <= 100 else 255.0
    return image.like((image.data / scale).astype(np.float32))


def two_sided(image: Image, n_labels: int, file: Path) -> Image:
    """Return an image whose labels tell the sides, which the original distribution does not."""
    n = image.data.shape[3] if image.data.ndim == 4 else int(image.data.max())
    if n == n_labels:
        return image
    if 2 * n != n_labels:
        raise UnreadableInputError(
            f"{file}: expected {n_labels} labels (left and right) or {n_labels // 2}, got {n}."
        )
    i, j, k = np.indices(image.shape, sparse=True)
    row = image.affine[0]
    left = row[0] * i + row[1] * j + row[2] * k + row[3] < 0
    if image.data.ndim == 3:
        return image.like(np.where(image.data > 0, 2 * image.data - left, 0).astype(np.float32))
    sides = [image.data * left[..., None], image.data * ~left[..., None]]
    return image.like(np.stack(sides, axis=-1).reshape(*image.shape, n_labels))
