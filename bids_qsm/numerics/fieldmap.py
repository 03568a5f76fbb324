"""The one thing that field fit, background removal and inversion hand to each other."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from bids_qsm.numerics.geometry import Bool, Float32, Geometry, bounding_box


@dataclass(frozen=True)
class FieldMap:
    """A field map with what is known about its quality.

    Attributes
    ----------
    field_ppm : ndarray of float32, shape (x, y, z)
        Total or local field, relative to B0; zero outside the mask.
    noise_ppm : ndarray of float32, shape (x, y, z)
        Standard deviation of the field in each voxel; inf where the field is unknown.
    magnitude : ndarray of float32, shape (x, y, z)
        Combined magnitude, any unit, for methods that use its edges.
    mask : ndarray of bool, shape (x, y, z)
        Where the field is known.
    geometry : Geometry
    r2star_per_s : ndarray of float32, shape (x, y, z), optional
        Transverse relaxation rate, for methods that find fluid by it.
    chi_start_ppm : ndarray of float32, shape (x, y, z), optional
        Susceptibility that background removal fitted beside its own sources: where an inversion
        may start.
    """

    field_ppm: Float32
    noise_ppm: Float32
    magnitude: Float32
    mask: Bool
    geometry: Geometry
    r2star_per_s: Float32 | None = None
    chi_start_ppm: Float32 | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            volume = getattr(self, item.name)
            if isinstance(volume, np.ndarray) and volume.shape != self.geometry.shape:
                raise ValueError(
                    f"{item.name} has shape {volume.shape}, expected {self.geometry.shape}"
                )

    def with_values(self, field_ppm: Float32) -> FieldMap:
        """Return the map with another field: its values in the voxels of the mask, in order."""
        field = np.zeros(self.geometry.shape, np.float32)
        field[self.mask] = field_ppm
        return replace(self, field_ppm=field)

    def weights(self) -> Float32:
        """Return 1/noise, scaled to a mean of one in the mask; zero outside.

        Weights above three times the median are cut there: a few very bright voxels must not
        rule the fit (as in the MEDI toolbox's papers, de Rochefort 2010, 10.1002/mrm.22187).
        """
        weights = np.zeros(self.geometry.shape, np.float32)
        noise = self.noise_ppm[self.mask]
        known = np.isfinite(noise) & (noise > 0)
        if not known.any():
            weights[self.mask] = 1.0
            return weights
        inside = np.zeros(noise.shape, np.float32)
        inside[known] = 1.0 / noise[known]
        np.minimum(inside, 3 * np.median(inside[known]), out=inside)
        weights[self.mask] = inside / inside.mean(dtype=np.float64)
        return weights

    def boxed(self) -> tuple[FieldMap, tuple[slice, slice, slice]]:
        """Return the maps within the mask's bounding box, made safe to compute with.

        The field is zero outside the mask and where it is not finite; there the noise is inf.

        Returns
        -------
        FieldMap
            Memory: two volumes of the box.
        tuple of slice
            Where the box lies.

        Raises
        ------
        ValueError
            If the mask is empty.
        """
        box = bounding_box(self.mask)
        mask, field, noise = self.mask[box], self.field_ppm[box], self.noise_ppm[box]
        known = mask & np.isfinite(field)
        brain = FieldMap(
            np.where(known, field, np.float32(0)),
            np.where(known, noise, np.float32(np.inf)),
            self.magnitude[box],
            mask,
            self.geometry.with_shape(mask.shape),
            None if self.r2star_per_s is None else self.r2star_per_s[box],
            None if self.chi_start_ppm is None else self.chi_start_ppm[box],
        )
        return brain, box
