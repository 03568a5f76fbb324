"""Images: an array with its affine; NIfTI in and out; what an affine says."""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import DTypeLike, NDArray

from bids_qsm.errors import UnreadableInputError
from bids_qsm.numerics.geometry import Geometry
from bids_qsm.reading import check_claim, check_file

DAMAGED = (
    ImageFileError,
    HeaderDataError,
    isal_zlib.error,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
)
"""What reading a damaged image raises."""

_KINDS = {"c": "complex numbers", "V": "colours"}

_LONGEST_HEADER = 540
_DENSEST = 1040
"""How many times smaller gzip makes a file at most."""

_LARGEST_OFFSET = 2**26
"""Bytes before the first voxel: texts that programs keep there are short."""

_MOST_AFTER = 2**20
"""Bytes that a file may have after its voxels: some programs leave some there."""

_PART = 2**17
"""Bytes that are unpacked at once: they are copied while they are in the processor's cache."""

_GZIP = 31
"""zlib's window bits for its largest window in a gzip file, which then has no name and no date."""


@dataclass(frozen=True)
class Image:
    """An array and where it lies.

    Attributes
    ----------
    data : ndarray, shape (x, y, z) or (x, y, z, n)
    affine : ndarray of float64, shape (4, 4)
        Voxel index to scanner position in mm, axes to the right, front and top.
    """

    data: NDArray
    affine: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The three spatial sizes."""
        return self.data.shape[:3]  # type: ignore[return-value]

    @property
    def geometry(self) -> Geometry:
        """Voxel size and B0 direction as the affine has them."""
        return Geometry(self.shape, voxel_sizes_mm(self.affine), b0_direction(self.affine))

    def like(self, data: NDArray) -> Image:
        """Return other data on the same grid."""
        return Image(data, self.affine)


def voxel_sizes_mm(affine: NDArray) -> tuple[float, float, float]:
    """Return the lengths of the affine's three columns."""
    x, y, z = np.sqrt((np.asarray(affine)[:3, :3] ** 2).sum(axis=0))
    return float(x), float(y), float(z)


def b0_direction(affine: NDArray) -> tuple[float, float, float]:
    """Return the unit vector of B0 (the scanner's z axis) in voxel axes.

    This is ``R^T [0, 0, 1]``, R being the affine's columns at unit length.
    """
    third_row = np.asarray(affine)[2, :3] / np.array(voxel_sizes_mm(affine))
    x, y, z = third_row / np.linalg.norm(third_row)
    return float(x), float(y), float(z)


def load_image(
    path: Path,
    dtype: DTypeLike = np.float32,
    volumes: Sequence[int] | None = None,
    *,
    order: Literal["C", "K"] = "C",
) -> Image:
    """Read a NIfTI file with its slope and intercept applied.

    Parameters
    ----------
    path : Path
    dtype : dtype
        Of the returned array.  Integers are rounded, not cut.
    volumes : sequence of int, optional
        Of a 4D image: which volumes to read, in this order; all of them if not given.
    order : {"C", "K"}
        Of the array in memory: rows of z, or as the file has it, which is quicker for who needs
        but a few voxels.

    Raises
    ------
    UnreadableInputError
        If the file is missing, damaged or cut short.
    """
    try:
        read_header(path)
        if path.suffix == ".gz":
            header, stored = _unpacked(path)
            _check_kind(path, stored.dtype.kind)
            scaled = _scaled(stored if volumes is None else stored[..., volumes], header)
            affine = header.get_best_affine()
        else:
            nifti = nib.load(path)
            _check_kind(path, nifti.get_data_dtype().kind)
            parts = None if volumes is None else [nifti.dataobj[..., v] for v in volumes]
            scaled = np.asanyarray(nifti.dataobj) if parts is None else np.stack(parts, axis=-1)
            affine = nifti.affine
    except FileNotFoundError:
        raise UnreadableInputError(f"{path}: there is no such file.") from None
    except DAMAGED as error:
        raise UnreadableInputError(
            f"{path}: the image cannot be read ({_first_line(error)}); "
            "the file seems damaged or cut short: copy or convert it again."
        ) from error
    if np.issubdtype(np.dtype(dtype), np.integer) and np.issubdtype(scaled.dtype, np.floating):
        scaled = np.rint(scaled)
    data = np.asarray(scaled, dtype=dtype, order=order)
    return Image(data, np.asarray(affine, np.float64))


def read_ahead(paths: Iterable[Path], threads: int) -> dict[Path, Future[Image]]:
    """Begin to read images in this order, in threads of their own, as their files have them.

    Returns
    -------
    dict of Path to Future
        Give the images, or raise what reading them did.  Whoever takes one should take it out.
    """
    pool = ThreadPoolExecutor(threads)
    images = {path: pool.submit(load_image, path, order="K") for path in paths}
    pool.shutdown(wait=False)
    return images


def _check_kind(path: Path, kind: str) -> None:
    if kind not in "buif":
        raise UnreadableInputError(
            f"{path}: the image holds {_KINDS.get(kind, 'no numbers')}; one real number for each "
            "voxel is needed: convert it again."
        )


def _unpacked(path: Path) -> tuple[nib.Nifti1Header, NDArray]:
    """Return the header and the voxels as stored, without the copies that nibabel makes of them.

    The file is read to its end, so that its checksum is tested.
    """
    with igzip.open(path, "rb") as stream:
        _, header, n_bytes = _claim(stream.read(_LONGEST_HEADER))
        stream.seek(0)
        content, filled = np.empty(n_bytes, np.uint8), 0
        while filled < n_bytes and (part := stream.read(min(_PART, n_bytes - filled))):
            content[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
            filled += len(part)
        if filled < n_bytes:
            raise EOFError("it ends within its voxels")
        if len(stream.read(_MOST_AFTER)) == _MOST_AFTER:  # at the end, checksums are tested
            raise ImageFileError("it unpacks to much more than its header says")
    shape, offset = header.get_data_shape(), int(header.get_data_offset())
    stored = np.frombuffer(content, header.get_data_dtype(), math.prod(shape), offset)
    return header, stored.reshape(shape, order="F")


def _scaled(stored: NDArray, header: nib.Nifti1Header) -> NDArray:
    """Return voxels with slope and intercept applied, in double precision as nibabel does it."""
    slope, intercept = header.get_slope_inter()
    if slope is None:
        return stored
    scaled: NDArray = apply_read_scaling(stored, np.asarray(slope), np.asarray(intercept))
    return scaled


def read_header(path: Path) -> nib.Nifti1Header:
    """Read an image's header alone, and refuse one that claims more than there can be.

    Raises
    ------
    OSError, EOFError, ValueError, ImageFileError, HeaderDataError, isal_zlib.error
    """
    check_file(path, sys.maxsize)
    is_packed = path.suffix == ".gz"
    with igzip.open(path, "rb") if is_packed else path.open("rb") as stream:
        _, header, n_bytes = _claim(stream.read(_LONGEST_HEADER))
    # zeros are packed by this factor, nothing by more
    if n_bytes > path.stat().st_size * (_DENSEST if is_packed else 1):
        raise ImageFileError("the file is too short for the voxels that its header claims")
    return header


def _claim(start: bytes) -> tuple[type[nib.Nifti1Image], nib.Nifti1Header, int]:
    """Return what an image is, its header, which is checked, and by that how long its file is."""
    header_sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")}
    if not header_sizes & {348, 540}:
        raise ImageFileError("it has no NIfTI header")
    kind = nib.Nifti1Image if header_sizes & {348} else nib.Nifti2Image
    length = kind.header_class.sizeof_hdr
    if len(start) < length:
        raise ImageFileError("it ends within its header")
    header = kind.header_class(start[:length])
    shape, offset = [int(n) for n in header.get_data_shape()], header.get_data_offset()
    if not shape or min(shape) < 1 or not 0 <= offset <= _LARGEST_OFFSET:
        raise ImageFileError(f"the header claims the shape {shape} and voxels from byte {offset}")
    n_voxels = math.prod(shape)
    n_bytes = int(offset) + n_voxels * header.get_data_dtype().itemsize
    check_claim(max(n_bytes, 4 * n_voxels))
    return kind, header, n_bytes


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def encode_image(
    image: Image, slope: float = 1.0, intercept: float = 0.0, compresslevel: int | None = None
) -> bytes:
    """Return the bytes of a ``.nii.gz`` file; the same image always gives the same bytes.

    Without a level the file is packed by ISA-L, eight times as fast as by zlib at its level 1,
    and not larger.

    Masks are stored as uint8.  The header says scanner coordinates (sform and qform code 1), mm,
    and that the true value is ``slope * stored + intercept``; the data are stored as they are.
    """
    data = image.data.astype(np.uint8) if image.data.dtype == np.bool_ else image.data
    nifti = nib.Nifti1Image(np.asfortranarray(data), image.affine)  # the file's order
    # a fourth axis of other things has no unit in NIfTI; like most programs we write seconds
    nifti.header.set_xyzt_units("mm", "sec" if data.ndim == 4 else None)
    nifti.set_sform(image.affine, 1)
    nifti.set_qform(image.affine, 1)
    for name in ("quatern_b", "quatern_c", "quatern_d"):
        # found by linear algebra whose last digit depends on the processor; the sform is exact
        nifti.header[name] = np.round(float(nifti.header[name]), 6)
    nifti.header.set_slope_inter(slope, intercept)
    if compresslevel is None:
        return isal_zlib.compress(nifti.to_bytes(), 1, _GZIP)
    packer = zlib.compressobj(compresslevel, zlib.DEFLATED, _GZIP)
    return packer.compress(nifti.to_bytes()) + packer.flush()
