"""What the live viewer of a series' report shows: its maps, labels and lesions, packed to be small.

The volumes lie in the page itself, as NIfTI files of small integers on one grid, cut to the head's
brain.  Nothing of them is decoded before the viewer is opened.
"""

from __future__ import annotations

import base64
import colorsys
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, encode_image, load_image, voxel_sizes_mm
from bids_qsm.report.record import SeriesRecord
from bids_qsm.report.tables import SIDE, read_rows

MARGIN_MM = 6.0
COARSEST_MM = 4.0
"""Where the volumes do not fit with voxels of this size there is no viewer."""
GROWTH = 1.08
UNKNOWN = -32768
"""Stored where a map has no value: below any window, so that it is black."""
LIBRARY = "niivue/niivue.umd.js.gz"
FIRST_HUE = 0.52  # lesions are red
HUE_STEP = 0.381966  # of the golden section: neighbours in a table differ the most

Grid = tuple[slice, slice, slice]


@dataclass(frozen=True)
class _Map:
    """A map that is shown, and how it is stored.

    Attributes
    ----------
    title, unit : str
    suffix, desc : str
        Of the published file.
    factor : float
        From the file's unit to ``unit``.
    step : float or None
        What one unit of the stored integers is; None takes a 255th of the brightest.
    window : tuple of float or None
        Shown first; None is from 0 to nearly the highest value.
    colours : str
    """

    title: str
    unit: str
    suffix: str
    desc: str | None = None
    factor: float = 1.0
    step: float | None = None
    window: tuple[float, float] | None = None
    colours: str = "gray"


MAPS = (
    _Map("χ", "ppb", "Chimap", factor=1000.0, step=1.0, window=(-100.0, 200.0)),
    _Map("R2*", "1/s", "R2starmap", step=0.5, colours="inferno"),
    _Map("T1w", "", "T1w", "preproc"),
    _Map("FLAIR", "", "FLAIR", "preproc"),
)


@dataclass(frozen=True)
class Viewer:
    """The viewer of one series.

    Attributes
    ----------
    titles : tuple of str
        What can be looked at.
    voxel_mm : tuple of float
    n_bytes : int
        Of the volumes, as they lie in the page.
    data : mapping
        All that the script of the page needs; JSON can hold it.
    """

    titles: tuple[str, ...]
    voxel_mm: tuple[float, float, float]
    n_bytes: int
    data: Mapping[str, Any]


@dataclass(frozen=True)
class _Volumes:
    """The volumes of a series on one grid, cut to the brain."""

    maps: tuple[tuple[_Map, Image], ...]
    labels: tuple[tuple[str, Image], ...]
    lesions: Image | None

    @property
    def affine(self) -> NDArray[np.float64]:
        return self.maps[0][1].affine


def viewer(record: SeriesRecord, output_dir: Path, room_bytes: float) -> Viewer | None:
    """Return the viewer of a series, or None where none of its maps can be read.

    Parameters
    ----------
    record : SeriesRecord
    output_dir : Path
        Folder that the record's paths start from.
    room_bytes : float
        What the volumes may take of the page.  If they need more, they are made coarser.

    Notes
    -----
    With a T1w image all lies on its grid, else on the grid of the series.  Needs the memory of the
    volumes in float32, some 0.4 GiB for a head at 1 mm.
    """
    volumes = _load(record, output_dir)
    if volumes is None:
        return None
    names = _structure_names(record, output_dir)
    labels = [(atlas, *_structures(image, names.get(atlas, {}))) for atlas, image in volumes.labels]
    sizes = np.array(voxel_sizes_mm(volumes.affine))
    spacing_mm = float(sizes.min())
    coarsest_mm = max(COARSEST_MM, spacing_mm)
    while spacing_mm <= coarsest_mm:
        factors = np.maximum(1.0, spacing_mm / sizes)
        data = _packed(volumes, labels, factors)
        n_bytes = sum(len(text) for text in _texts(data))
        if n_bytes <= room_bytes:
            titles = [shown.title for shown, _ in volumes.maps]
            titles += ["structures"] if labels else []
            titles += ["lesions"] if data["lesions"] else []
            x, y, z = (float(size) for size in np.round(sizes * factors, 2))
            return Viewer(tuple(titles), (x, y, z), n_bytes, data)
        needed = float(np.prod(sizes * factors)) * n_bytes / max(room_bytes, 1.0)
        spacing_mm = max(GROWTH * spacing_mm, needed ** (1 / 3))
    return None


@cache
def library() -> str:
    """Return NiiVue as the page holds it: packed, in letters that HTML has no meaning for."""
    path = resources.files("bids_qsm") / "resources" / "report" / LIBRARY
    return _letters(path.read_bytes())


def _letters(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _texts(data: Mapping[str, Any]) -> Iterable[str]:
    lesions = [data["lesions"]] if data["lesions"] else []
    return (item["nifti"] for item in (*data["maps"], *data["labels"], *lesions))


def _load(record: SeriesRecord, output_dir: Path) -> _Volumes | None:
    """Read what was published on the T1w's grid, or on the series' own where there is no T1w."""
    space = "T1w" if _published(record, "T1w", {"desc": "preproc"}) else None
    maps = []
    for shown in MAPS:
        is_own = space is None or shown.suffix == "T1w"
        entities = {"space": None if is_own else space, "desc": shown.desc}
        if image := _read(_published(record, shown.suffix, entities), output_dir):
            maps.append((shown, image))
    if not maps:
        return None
    grid = maps[0][1]
    maps = [(shown, image) for shown, image in maps if _same_grid(image, grid)]
    labels = []
    for atlas in [table.atlas for table in record.tables_of("stats") if table.atlas]:
        path = _published(record, "dseg", {"space": space or "orig", "atlas": atlas})
        image = _read(path, output_dir, np.int32)
        if image is not None and _same_grid(image, grid):
            labels.append((atlas, image))
    path = _published(record, "dseg", {"space": space, "desc": "lesions"})
    lesions = _read(path, output_dir, np.int32)
    if lesions is not None and not (_same_grid(lesions, grid) and lesions.data.any()):
        lesions = None
    brain = _read(_published(record, "mask", {"space": space, "label": "brain"}), output_dir)
    known = brain if brain is not None and _same_grid(brain, grid) else grid
    box = _box(known)
    return _Volumes(
        tuple((shown, _cut(image, box)) for shown, image in maps),
        tuple((atlas, _cut(image, box)) for atlas, image in labels),
        None if lesions is None else _cut(lesions, box),
    )


def _published(record: SeriesRecord, suffix: str, entities: Mapping[str, str | None]) -> str | None:
    """Return the record's image of that suffix and those entities, among the ones that matter."""
    wanted = {key: value for key, value in entities.items() if value is not None}
    for path in record.outputs:
        parts = Path(path).name.removesuffix(".nii.gz").split("_")
        pairs = (part.partition("-") for part in parts[:-1])
        found = {
            key: value for key, _, value in pairs if key in ("space", "atlas", "desc", "label")
        }
        if path.endswith(".nii.gz") and parts[-1] == suffix and found == wanted:
            return path
    return None


def _read(path: str | None, output_dir: Path, dtype: type = np.float32) -> Image | None:
    """Return a volume with its axes to the right, front and top; None if it cannot be read."""
    if path is None:
        return None
    try:
        image = load_image(output_dir / path, dtype)
    except UnreadableInputError:
        return None
    if image.data.ndim != 3:
        return None
    turn = io_orientation(image.affine)
    affine = image.affine @ inv_ornt_aff(turn, image.shape)
    return Image(np.ascontiguousarray(apply_orientation(image.data, turn)), affine)


def _same_grid(one: Image, other: Image) -> bool:
    return one.shape == other.shape and np.allclose(one.affine, other.affine, atol=1e-3)


def _box(known: Image) -> Grid:
    """Return the box of the voxels that are not zero, with a margin."""
    margins = np.ceil(MARGIN_MM / np.array(voxel_sizes_mm(known.affine))).astype(int)
    found = ndimage.find_objects((known.data != 0).astype(np.uint8))
    whole = tuple(slice(0, n) for n in known.shape)
    x, y, z = (
        slice(max(0, part.start - margin), min(n, part.stop + margin))
        for part, margin, n in zip(found[0] if found else whole, margins, known.shape, strict=True)
    )
    return x, y, z


def _cut(image: Image, box: Grid) -> Image:
    shift = np.eye(4)
    shift[:3, 3] = [part.start for part in box]
    return Image(np.ascontiguousarray(image.data[box]), image.affine @ shift)


def _structure_names(
    record: SeriesRecord, output_dir: Path
) -> dict[str, dict[int, tuple[str, str]]]:
    """Return name and side of each label of each atlas, as its table of values has them."""
    names: dict[str, dict[int, tuple[str, str]]] = {}
    for table in record.tables_of("stats"):
        try:
            rows = read_rows(output_dir / table.path, ("index", "name", "hemisphere"))
            found = {
                int(row["index"]): (row["name"], row["hemisphere"][:1].upper()) for row in rows
            }
        except (OSError, ValueError):
            continue  # the table's own section says so
        names[table.atlas or ""] = found
    return names


def _structures(
    image: Image, names: Mapping[int, tuple[str, str]]
) -> tuple[Image, list[dict[str, Any]]]:
    """Return the labels counted from 1 without gaps, and what is known of each."""
    indices = [int(index) for index in np.unique(image.data) if index > 0]
    counted = np.searchsorted([0, *indices], np.maximum(image.data, 0)).astype(np.int16)
    places = _places(image.like(counted))
    rows = list(
        dict.fromkeys(re.sub(SIDE, "", name, flags=re.IGNORECASE) for name, _ in names.values())
    )
    structures = []
    for place, index in enumerate(indices, start=1):
        name, side = names.get(index, (f"label {index}", "B"))
        row = re.sub(SIDE, "", name, flags=re.IGNORECASE)
        hue = rows.index(row) if row in rows else place
        sided = {"L": f"Left {row}", "R": f"Right {row}"}.get(side, name)
        structures.append(
            {"name": sided, "row": row, "side": side, "colour": _colour(hue), "mm": places[place]}
        )
    return image.like(counted), structures


def _colour(place: int) -> list[int]:
    """Return the colour of a structure, the same left and right."""
    light = 0.95 if place % 2 else 0.75
    rgb = colorsys.hsv_to_rgb((FIRST_HUE + place * HUE_STEP) % 1.0, 0.75, light)
    return [round(255 * part) for part in rgb]


def _places(labels: Image) -> dict[int, list[float]]:
    """Return, for each label, the scanner coordinates of its voxel that is nearest to its centre.

    A structure may be bent around its centre, and the crosshair is to lie within it.
    """
    places = {}
    for index, box in enumerate(ndimage.find_objects(labels.data), start=1):
        if box is not None:
            corner = [part.start for part in box]
            voxels = np.argwhere(labels.data[box] == index) + corner
            offset_mm = (voxels - voxels.mean(axis=0)) * voxel_sizes_mm(labels.affine)
            nearest = voxels[(offset_mm**2).sum(axis=1).argmin()]
            places[index] = [round(float(mm), 1) for mm in apply_affine(labels.affine, nearest)]
    return places


def _packed(
    volumes: _Volumes,
    labels: Sequence[tuple[str, Image, list[dict[str, Any]]]],
    factors: NDArray[np.float64],
) -> dict[str, Any]:
    """Return what the script needs, with voxels larger by the factors."""
    lesions = None
    if volumes.lesions is not None:
        nifti = _labels_nifti(_coarser(volumes.lesions, factors, 0))
        lesions = {"nifti": nifti, "places": _places(volumes.lesions)}
    return {
        "maps": [_map_item(shown, image, factors) for shown, image in volumes.maps],
        "labels": [
            {
                "atlas": atlas,
                "nifti": _labels_nifti(_coarser(image, factors, 0)),
                "structures": structures,
            }
            for atlas, image, structures in labels
        ],
        "lesions": lesions,
        "unknown": UNKNOWN,
    }


def _map_item(shown: _Map, original: Image, factors: NDArray[np.float64]) -> dict[str, Any]:
    image = _coarser(original, factors, 1)
    values = shown.factor * np.nan_to_num(image.data, posinf=0.0, neginf=0.0)
    positive = values[values > 0]
    top = float(np.percentile(positive, 99.0)) if positive.size else 1.0
    if shown.step is None:
        brightest = float(np.percentile(positive, 99.9)) if positive.size else 1.0
        step = float(f"{brightest / 255:.4g}")
        stored = np.rint(values / step).clip(0, 255).astype(np.uint8)
    else:
        step = shown.step
        stored = np.rint(values / step).clip(UNKNOWN + 1, 32767).astype(np.int16)
        is_unknown = original.like((np.nan_to_num(original.data) == 0).astype(np.uint8))
        stored[_coarser(is_unknown, factors, 0).data > 0] = UNKNOWN
    return {
        "title": shown.title,
        "unit": shown.unit,
        "step": step,
        "window": list(shown.window or (0.0, float(f"{top:.2g}"))),
        "colours": shown.colours,
        "nifti": _letters(encode_image(image.like(stored), step)),
    }


def _labels_nifti(image: Image) -> str:
    small = np.uint8 if image.data.max() < 256 else np.int16
    return _letters(encode_image(image.like(image.data.astype(small))))


def _coarser(image: Image, factors: NDArray[np.float64], order: int) -> Image:
    """Return the image with voxels larger by the factors, covering the same box."""
    if np.all(factors == 1.0):
        return image
    shape = tuple(int(np.ceil(n / factor)) for n, factor in zip(image.shape, factors, strict=True))
    offset = (factors - 1) / 2
    data = image.data
    if order:  # what the larger voxels average over
        data = ndimage.gaussian_filter(np.nan_to_num(data), 0.5 * np.sqrt(factors**2 - 1))
    data = ndimage.affine_transform(
        data, np.diag(factors), offset, output_shape=shape, order=order, mode="nearest"
    )
    grown = nib.affines.from_matvec(np.diag(factors), offset)
    return Image(data, image.affine @ grown)
