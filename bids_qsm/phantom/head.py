"""From a label map to a head: what every voxel is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.images import Image, voxel_sizes_mm
from bids_qsm.phantom.anatomy import canonical
from bids_qsm.phantom.bleeds import Inclusion, plant
from bids_qsm.phantom.grids import displacement, resample_labels, simulation_grid, trimmed
from bids_qsm.phantom.noise import smooth_noise
from bids_qsm.phantom.options import HeadOptions
from bids_qsm.phantom.rims import Lesion, choose_rims, paint_rims
from bids_qsm.phantom.tissues import (
    DEEP_NUCLEI,
    LATERAL_VENTRICLES,
    LESION_LABEL,
    PATIENT_EFFECTS,
    TISSUES,
    VEIN_LABEL,
    WHITE_MATTER,
    Effect,
    Tissue,
    is_brain,
    tissues_of,
)

Float32 = NDArray[np.float32]
TEXTURE_PPM, TEXTURE_R2STAR, TEXTURE_MM = 0.006, 0.05, 2.5
NO_EFFECT = Effect(0.0, 0.0)


@dataclass(frozen=True)
class Nucleus:
    """One deep nucleus of one head, with its own mean values."""

    label: int
    name: str
    chi_ppm: float
    r2star_per_s: float


@dataclass(frozen=True)
class Phantom:
    """A head on the grid of the simulation.

    Attributes
    ----------
    labels : ndarray of int16, shape (x, y, z)
        With veins and lesions; 0 is air.
    affine : ndarray, shape (4, 4)
        Voxel index to scanner position (mm): B0 is along the third axis of the scanner.
    chi_ppm, r2star_per_s : ndarray of float32, shape (x, y, z)
    tissues : tuple of Tissue
        The tissue of each label, in the order of ``label_values``.
    label_values : tuple of int
    nuclei : tuple of Nucleus
    warnings : tuple of str
    inclusions : tuple of Inclusion
        Microbleeds and calcifications.
    lesions : tuple of Lesion
    """

    labels: NDArray[np.int16]
    affine: NDArray[np.float64]
    chi_ppm: Float32
    r2star_per_s: Float32
    tissues: tuple[Tissue, ...]
    label_values: tuple[int, ...]
    nuclei: tuple[Nucleus, ...]
    warnings: tuple[str, ...] = ()
    inclusions: tuple[Inclusion, ...] = ()
    lesions: tuple[Lesion, ...] = ()

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """Voxel size of the simulation."""
        return voxel_sizes_mm(self.affine)

    def table(self, values: Sequence[float]) -> Float32:
        """Return values, one for each tissue, as a table that is indexed with labels."""
        return _table(self.label_values, values)

    def first_plane(self, below_brain_mm: float) -> int:
        """Return the index along z of the plane that lies so far below the brain, or of the first.

        Raises
        ------
        ValueError
            If the head has no brain.
        """
        planes = np.flatnonzero(is_brain(self.labels).any(axis=(0, 1)))
        if not planes.size:
            raise ValueError("the label map has no brain (labels other than 0 and 500 to 599).")
        return max(int(planes[0]) - round(below_brain_mm / self.voxel_mm[2]), 0)

    def centre_mm(self) -> NDArray[np.float64]:
        """Return the scanner position of the grid's centre."""
        return self.affine[:3, :3] @ (np.array(self.labels.shape) / 2) + self.affine[:3, 3]


def simulate_head(
    labels: Image, options: HeadOptions, tissues: Sequence[Tissue] = TISSUES
) -> Phantom:
    """Make a subject's head from a label map.

    Parameters
    ----------
    labels : Image
        Integer labels (0 to 32767; 0 is air) as in the table of tissues; any voxel size.
    options : HeadOptions
    tissues : sequence of Tissue
        What the labels are made of.

    Returns
    -------
    Phantom
    """
    source = canonical(labels)
    rng = np.random.default_rng(options.seed)
    margin_mm = 2 + 3 * options.deformation_mm
    shape, affine = simulation_grid(source, options.sampling_mm, options.tilt_deg, margin_mm)
    field = displacement(rng, source, options.deformation_mm)
    volume = resample_labels(source, shape, affine, field if options.deformation_mm else None)
    volume, affine = trimmed(volume, affine)
    _add_veins(volume, affine, rng, options.veins)
    lesions = _add_lesions(volume, affine, rng, options)
    values = _values_in(volume)
    found, warnings = tissues_of(values, tissues)
    nuclei = _draw_nuclei(rng, values, found, options)
    chi, r2star = _maps(volume, affine, rng, values, found, nuclei, options)
    paint_rims(volume, chi, r2star, affine, lesions)
    numbers = (options.microbleeds, options.calcifications)
    inclusions = plant(volume, chi, r2star, affine, options.seed, *numbers)
    values = _values_in(volume)
    found, _ = tissues_of(values, tissues)
    return Phantom(
        volume,
        affine,
        chi,
        r2star,
        tuple(found),
        values,
        nuclei,
        warnings,
        inclusions,
        lesions,
    )


def _values_in(volume: NDArray[np.int16]) -> tuple[int, ...]:
    return tuple(int(v) for v in np.flatnonzero(np.bincount(volume.reshape(-1))))


def _draw_nuclei(
    rng: np.random.Generator, values: Sequence[int], tissues: Sequence[Tissue], options: HeadOptions
) -> tuple[Nucleus, ...]:
    nuclei = []
    # all nuclei are drawn, found or not: the same seed gives the same values on every label map
    for tissue in DEEP_NUCLEI:
        for label in tissue.labels:
            share = options.nuclei_spread * rng.standard_normal()
            effect = PATIENT_EFFECTS.get(tissue.name, NO_EFFECT)
            effect = effect if options.group == "patient" else NO_EFFECT
            if label in values and tissues[values.index(label)].name == tissue.name:
                own = tissues[values.index(label)]
                chi = own.chi_ppm * (1 + share) + effect.chi_ppm
                r2star = own.r2star_per_s * (1 + share / 2) + effect.r2star_per_s
                nuclei.append(Nucleus(label, tissue.name, float(chi), float(r2star)))
    return tuple(nuclei)


def _maps(
    labels: NDArray[np.int16],
    affine: NDArray,
    rng: np.random.Generator,
    values: Sequence[int],
    tissues: Sequence[Tissue],
    nuclei: Sequence[Nucleus],
    options: HeadOptions,
) -> tuple[Float32, Float32]:
    """Return susceptibility (ppm) and R2* (1/s)."""
    own = {nucleus.label: nucleus for nucleus in nuclei}
    sources = [own.get(v, t) for v, t in zip(values, tissues, strict=True)]
    chi = _table(values, [s.chi_ppm for s in sources])[labels]
    r2star = _table(values, [s.r2star_per_s for s in sources])[labels]
    if options.texture:
        shape = labels.shape
        texture = smooth_noise(rng, shape, voxel_sizes_mm(affine), TEXTURE_MM)
        texture *= np.float32(options.texture) * is_brain(labels)
        chi += np.float32(TEXTURE_PPM) * texture
        texture *= np.float32(TEXTURE_R2STAR)
        texture += 1
        r2star *= np.maximum(texture, np.float32(0.2), out=texture)
    return chi, r2star


def _table(labels: Sequence[int], values: Sequence[float]) -> Float32:
    table = np.zeros(max(labels) + 1, np.float32)
    table[np.asarray(labels)] = np.asarray(values, np.float32)
    return table


def _add_veins(
    labels: NDArray[np.int16], affine: NDArray, rng: np.random.Generator, number: int
) -> None:
    """Paint curved tubes, 1.2 to 2.8 mm wide and some 50 mm long, into the brain."""
    seeds = np.flatnonzero(np.isin(labels, WHITE_MATTER))
    if not seeds.size:
        return
    step_mm, steps, bend = 0.8, 60, 0.2
    voxel_mm = np.array(voxel_sizes_mm(affine))
    spared = np.isin(np.arange(labels.max() + 1), [t for d in DEEP_NUCLEI for t in d.labels])
    allowed = is_brain(np.arange(labels.max() + 1)) & ~spared
    for _ in range(number):
        start = np.unravel_index(seeds[rng.integers(seeds.size)], labels.shape)
        point = np.array(start, float) * voxel_mm
        direction = _unit(rng.standard_normal(3))
        radius_mm = rng.uniform(0.6, 1.4)
        for turn in rng.standard_normal((steps, 3)):
            _paint(labels, voxel_mm, point, np.full(3, radius_mm), VEIN_LABEL, allowed)
            direction = _unit(direction + bend * turn)
            point = point + step_mm * direction


def _unit(vector: NDArray) -> NDArray:
    return vector / np.sqrt((vector**2).sum())


def _add_lesions(
    labels: NDArray[np.int16], affine: NDArray, rng: np.random.Generator, options: HeadOptions
) -> tuple[Lesion, ...]:
    """Paint ellipsoids of 3 to 10 mm into white matter within 14 mm of the lateral ventricles."""
    if not options.lesions:
        return ()
    voxel_mm = np.array(voxel_sizes_mm(affine))
    stride = tuple(max(round(2.0 / v), 1) for v in voxel_mm)
    coarse = labels[tuple(slice(None, None, s) for s in stride)]
    spacing = voxel_mm * stride
    distance = ndimage.distance_transform_edt(
        ~np.isin(coarse, LATERAL_VENTRICLES), sampling=spacing
    )
    seeds = np.argwhere(np.isin(coarse, WHITE_MATTER) & (distance > 3) & (distance < 14))
    allowed = np.isin(np.arange(labels.max() + 1), WHITE_MATTER)
    drawn = []
    for _ in range(options.lesions if len(seeds) else 0):
        centre = (seeds[rng.integers(len(seeds))] * spacing).tolist()
        drawn.append(Lesion(tuple(centre), tuple(rng.uniform(1.5, 5.0, 3).tolist())))
    lesions = choose_rims(drawn, options.seed, options.rims)
    for lesion in lesions:
        centre, radii = np.array(lesion.centre_mm), np.array(lesion.radii_mm)
        _paint(labels, voxel_mm, centre, radii, LESION_LABEL, allowed)
    return lesions


def _paint(
    labels: NDArray[np.int16],
    voxel_mm: NDArray,
    centre_mm: NDArray,
    radii_mm: NDArray,
    label: int,
    allowed: NDArray[np.bool_],
) -> None:
    """Give an ellipsoid a label where the table ``allowed`` holds for the label that is there."""
    low = np.floor((centre_mm - radii_mm) / voxel_mm).astype(int)
    high = np.ceil((centre_mm + radii_mm) / voxel_mm).astype(int) + 1
    part = tuple(
        slice(min(max(a, 0), n), min(max(b, 0), n))
        for a, b, n in zip(low, high, labels.shape, strict=True)
    )
    lines = [
        (np.arange(p.start, p.stop) * v - c) / r
        for p, v, c, r in zip(part, voxel_mm, centre_mm, radii_mm, strict=True)
    ]
    x, y, z = np.ix_(*lines)
    there = labels[part]
    there[(x**2 + y**2 + z**2 < 1) & allowed[np.minimum(there, allowed.size - 1)]] = label
