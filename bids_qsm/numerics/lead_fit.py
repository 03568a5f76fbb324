"""Where the metal of a lead ends in a CT: a row of blurred contacts is fitted to the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import erf

from bids_qsm.numerics.lead_models import LeadModel

Float = NDArray[np.floating]

FITTED_MM = 22.0
BELOW_MM = 6.0
REACH_MM = 2.6
MOST_VOXELS = 2000
SOFT_HU = 150.0
TISSUE_HU = 35.0
LONGEST_MM = 400.0
"""Lead above the part that is fitted: as good as without end."""


@dataclass(frozen=True)
class Crop:
    """A part of a CT as floats, with its affine."""

    data: NDArray[np.float32]
    affine: Float
    clip_hu: float

    @classmethod
    def around(cls, hu: NDArray, affine: Float, points_mm: Float, margin_mm: float) -> Crop:
        """Return the box that holds points and a margin."""
        inverse = np.linalg.inv(affine)
        places = np.einsum("ij,nj->ni", inverse[:3, :3], points_mm) + inverse[:3, 3]
        margin = margin_mm / np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
        low = np.clip(np.floor(places.min(axis=0) - margin), 0, np.array(hu.shape) - 2).astype(int)
        high = np.minimum(np.ceil(places.max(axis=0) + margin) + 1, hu.shape).astype(int)
        high = np.maximum(high, low + 2)
        part = hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].astype(np.float32)
        moved = affine.copy()
        moved[:3, 3] += affine[:3, :3] @ low
        return cls(part, moved, float(part.max()))

    def values(self, points_mm: Float) -> Float:
        """Return values between voxels (linear); the nearest one outside."""
        inverse = np.linalg.inv(self.affine)
        places = np.einsum("ij,nj->in", inverse[:3, :3], points_mm) + inverse[:3, 3:]
        return np.asarray(
            ndimage.map_coordinates(self.data, places, np.float64, order=1, mode="nearest")
        )

    @property
    def slice_covariance(self) -> Float:
        """The blur (mm2) of a slice that is thicker than the voxels are wide."""
        voxel_mm = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        direction = self.affine[:3, :3] / voxel_mm
        thick = np.where(voxel_mm > 1.2 * voxel_mm.min(), voxel_mm**2 / 12, 0)
        return np.einsum("ik,k,jk->ij", direction, thick, direction)


@dataclass(frozen=True)
class EndFit:
    """Where metal begins, from the first point of the path that was given (mm upwards).

    ``misfit`` is the mean robust squared difference of image and model (HU2), ``width_mm`` the
    artefact's full width at half of its height.
    """

    start_mm: float
    misfit: float
    width_mm: float


def fit_end(
    crop: Crop,
    path_mm: Float,
    axis: Float,
    model: LeadModel,
    starts_mm: tuple[float, ...] = (-0.3, 0.9),
) -> EndFit:
    """Fit contacts and wires, blurred and cut at the scale's end, to the lower part of a lead.

    Each contact is a segment of a line, blurred by a Gaussian that holds the lead's own thickness,
    the scanner's blur (fitted) and the slice's; the sum is cut where the scale ends.  Where metal
    begins, the brightness of contacts and wires, the blur and a shift across are fitted by robust
    least squares.

    Parameters
    ----------
    crop : Crop
    path_mm : ndarray, shape (n, 3)
        The lead's middle line from about its end upwards.
    axis : ndarray, shape (3,)
        Unit vector upwards.
    model : LeadModel
    starts_mm : tuple of float
        First guesses of where metal begins.
    """
    voxels = np.argwhere(np.ones(crop.data.shape, bool))
    points = np.einsum("ij,nj->ni", crop.affine[:3, :3], voxels) + crop.affine[:3, 3]
    along, across = _beside(points, path_mm, axis)
    near = (along > -BELOW_MM) & (along < FITTED_MM) & ((across**2).sum(axis=1) < REACH_MM**2)
    # some thousand voxels are enough
    chosen = np.flatnonzero(near)
    chosen = chosen[:: 1 + len(chosen) // MOST_VOXELS]
    along, across = along[chosen], across[chosen]
    values = crop.data.reshape(-1)[chosen].astype(np.float64)
    frame = np.linalg.svd(axis[None])[2][1:]
    clip = crop.clip_hu

    def residuals(p: Float) -> Float:
        lateral = across - p[1] * frame[0] - p[2] * frame[1]
        covariance = np.exp(2 * p[5]) * np.eye(3) + crop.slice_covariance
        covariance += (np.eye(3) - np.outer(axis, axis)) * model.diameter_mm**2 / 16
        wires, contacts = _blurred(along, lateral, axis, covariance, p[0], model)
        bright = TISSUE_HU + np.exp(p[3]) * wires + np.exp(p[4]) * contacts
        return np.minimum(bright, clip) - values

    results = []
    for start in starts_mm:
        guess = np.array([start, 0.0, 0.0, np.log(0.8 * clip), np.log(0.8 * clip), np.log(0.45)])
        result = scipy.optimize.least_squares(
            residuals,
            guess,
            loss="soft_l1",
            f_scale=SOFT_HU,
            bounds=(
                [-BELOW_MM, -1.0, -1.0, 4.0, 2.0, np.log(0.2)],
                [8.0, 1.0, 1.0, 12.0, 12.0, np.log(1.5)],
            ),
            max_nfev=30,
        )
        results.append(result)
    best = min(results, key=lambda result: float(result.cost))
    width = _width(crop, path_mm, frame)
    return EndFit(float(best.x[0]), float(2 * best.cost / max(len(values), 1)), width)


def _beside(points: Float, path_mm: Float, axis: Float) -> tuple[Float, Float]:
    """Return the length along a nearly straight path, and the offset from it, of points."""
    run = np.einsum("nc,c->n", path_mm - path_mm[0], axis)
    along = np.einsum("nc,c->n", points - path_mm[0], axis)
    order = 2 if len(path_mm) > 3 else 1
    deviation = path_mm - path_mm[0] - run[:, None] * axis
    bow = np.polynomial.polynomial.polyfit(run, deviation, order)
    on_path = path_mm[0] + along[:, None] * axis
    bowed = np.polynomial.polynomial.polyval(np.clip(along, run[0], run[-1]), bow).T
    return along, points - on_path - bowed


def _blurred(
    along: Float,
    lateral: Float,
    axis: Float,
    covariance: Float,
    start: float,
    model: LeadModel,
) -> tuple[Float, Float]:
    """Return the wires' and the contacts' part of unit brightness: Gaussians over segments."""
    precision = np.linalg.inv(covariance)
    along_along = float(axis @ precision @ axis)
    mixed = np.einsum("nc,c->n", lateral, precision @ axis)
    squared = np.einsum("nc,cd,nd->n", lateral, precision, lateral) - mixed**2 / along_along
    place = along + mixed / along_along
    scale = np.sqrt(along_along / 2)
    round_about = 0.5 * np.exp(-squared / 2)

    def segment(first: float, last: float) -> Float:
        return np.asarray(erf((last - place) * scale) - erf((first - place) * scale))

    wires = segment(start, start + LONGEST_MM)
    contacts = np.zeros_like(wires)
    for centre in model.centres_mm - model.tip_mm + start:
        contacts += segment(centre - model.contact_mm / 2, centre + model.contact_mm / 2)
    return round_about * wires, round_about * contacts


def _width(crop: Crop, path_mm: Float, frame: Float) -> float:
    """Return the artefact's mean full width at half of its height."""
    places = np.arange(-5, 5.01, 0.1)
    middle = path_mm[len(path_mm) // 4 :]
    widths = []
    for across in frame:
        points = middle[:, None] + places[:, None] * across
        profile = crop.values(points.reshape(-1, 3)).reshape(len(middle), -1).mean(axis=0)
        widths.append(0.1 * np.count_nonzero(profile > profile.max() / 2))
    return float(np.mean(widths))
