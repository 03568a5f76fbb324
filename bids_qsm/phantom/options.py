"""What can be asked of the phantom: frozen dataclasses with defaults; nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass

GROUPS = ("control", "patient")
LEAD_SIDES = ("LR", "L", "R", "none")
LEAD_TARGETS = ("stn", "gpi")
VENDORS = ("radians", "siemens", "siemens-signed", "philips", "ge")
BREAKAGES = (
    "missing-phase-echo",
    "te-in-ms",
    "no-echo-times",
    "no-field-strength",
    "nan",
    "constant",
    "swi-filtered",
    "truncated",
    "shape-mismatch",
    "affine-mismatch",
    "unknown-phase-scale",
    "two-slices",
)


@dataclass(frozen=True)
class HeadOptions:
    """One subject's head.

    Attributes
    ----------
    seed : int
        Decides everything that is random in this head.
    sampling_mm : tuple of float
        Voxel size of the simulation.
    tilt_deg : float
        Angle between the simulation's slices and the scanner's transverse plane, about x.
    deformation_mm : float
        Standard deviation of the smooth random displacement of the label map; a quarter of it
        is also the standard deviation (per cent) of the head's size.  0 keeps the label map.
    group : str
        ``control`` or ``patient`` (more iron in the deep nuclei).
    nuclei_spread : float
        Relative standard deviation, between subjects, of a deep nucleus' susceptibility; R2*
        varies by half of it.
    lesions : int
        Number of white-matter lesions.
    rims : float
        Share of the lesions that have a paramagnetic rim.
    microbleeds, calcifications : int
        Number of each; as many as there is room for.
    veins : int
        Number of veins.
    texture : float
        Strength of the smooth variation within tissues; 1 is 6 ppb and 5 % of R2*.
    """

    seed: int = 1
    sampling_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    tilt_deg: float = 0.0
    deformation_mm: float = 2.5
    group: str = "control"
    nuclei_spread: float = 0.12
    lesions: int = 0
    rims: float = 0.0
    microbleeds: int = 0
    calcifications: int = 0
    veins: int = 40
    texture: float = 1.0


@dataclass(frozen=True)
class Acquisition:
    """How the multi-echo gradient-echo series is acquired.

    Attributes
    ----------
    seed : int
        Decides noise, coil and head position.
    subvoxels : tuple of int
        Simulation voxels along each axis that make one voxel of the series.
    te_s : tuple of float
    b0_t : float
    snr : float
        Mean brain magnitude at the first echo over the standard deviation of the noise in the
        real and in the imaginary part; infinity gives no noise.
    repetition_time_s, flip_angle_deg : float
    shim_order : int
        Highest order (0 to 2) of the field that the shim removes; -1 for no shim at all.
    coil_phase : bool
        Whether there is a smooth phase offset, and a smooth receive sensitivity.
    repositioned : bool
        Whether the head lies elsewhere: up to 3 degrees and 4 mm, and voxels that start elsewhere.
    below_brain_mm : float
        How far the slab reaches below the brain.
    """

    seed: int = 1
    subvoxels: tuple[int, int, int] = (1, 1, 1)
    te_s: tuple[float, ...] = (0.004, 0.009, 0.014, 0.019, 0.024)
    b0_t: float = 3.0
    snr: float = 80.0
    repetition_time_s: float = 0.045
    flip_angle_deg: float = 15.0
    shim_order: int = 2
    coil_phase: bool = True
    repositioned: bool = False
    below_brain_mm: float = 6.0


@dataclass(frozen=True)
class CtOptions:
    """A CT after leads for deep brain stimulation were put in.

    Attributes
    ----------
    voxel_mm : tuple of float
        Voxel size; the last one is the slices' thickness, too.
    model : str
        The leads' model, one of :data:`bids_qsm.numerics.lead_models.LEAD_MODELS`.
    sides : str
        Which hemispheres have a lead: ``LR``, ``L``, ``R``, or an empty text for none.
    target : str
        ``stn`` or ``gpi``: where the second contact lies.
    bend_mm : float
        How far the leads bow out between skull and target.
    brain_shift_mm : float
        How far the forehead's brain has sunk back, with air before it.
    noise_hu : float
        Standard deviation of the noise.
    streaks : float
        Strength of the metal's rays; 1 is usual.
    fillings : bool
        Whether there are dental fillings.
    below_brain_mm : float
        How far the image reaches below the brain.
    """

    voxel_mm: tuple[float, float, float] = (0.5, 0.5, 1.0)
    model: str = "3389"
    sides: str = "LR"
    target: str = "stn"
    bend_mm: float = 0.0
    brain_shift_mm: float = 0.0
    noise_hu: float = 12.0
    streaks: float = 1.0
    fillings: bool = True
    below_brain_mm: float = 30.0


@dataclass(frozen=True)
class DatasetOptions:
    """A whole dataset.

    Attributes
    ----------
    participants, sessions : int
    first : int
        Number of the first participant.
    voxel_mm : tuple of float
        Voxel size of the multi-echo series.
    anatomy_voxel_mm : float
        Voxel size of T1w and FLAIR.
    te_s, b0_t, snr
        As in :class:`Acquisition`.
    tilt_deg, group, lesions, rims, microbleeds, calcifications, deformation_mm
        As in :class:`HeadOptions`.
    cavernomas : int
        Number of cavernous malformations, 9 at most.
    growth_percent : float
        What every second one of them, the first included, gains in susceptibility from session to
        session, of its first value; sessions are a year apart.
    vendor : str
        How phase is stored, one of ``VENDORS``.
    stacked : bool
        Whether all echoes are in one 4D file.
    has_t1w, has_flair : bool
    ct : CtOptions or None
        The CT that each session has; None for none.
    mask_air : bool
        Whether images are zero where there is hardly any signal, as some scanners do.
    stored_bits : int
        Precision (8 to 12 bits) of the stored integers: fewer make smaller files.
    breakage : str or None
        What is wrong with the last participant's files, one of ``BREAKAGES``.
    seed : int
    """

    participants: int = 1
    sessions: int = 1
    first: int = 1
    voxel_mm: tuple[float, float, float] = (1.0, 1.0, 2.0)
    anatomy_voxel_mm: float = 1.0
    te_s: tuple[float, ...] = (0.004, 0.009, 0.014, 0.019, 0.024)
    b0_t: float = 3.0
    snr: float = 80.0
    tilt_deg: float = 0.0
    group: str = "control"
    lesions: int = 0
    rims: float = 0.0
    microbleeds: int = 0
    calcifications: int = 0
    deformation_mm: float = 2.5
    cavernomas: int = 0
    growth_percent: float = 0.0
    vendor: str = "radians"
    stacked: bool = False
    has_t1w: bool = True
    has_flair: bool = True
    ct: CtOptions | None = None
    mask_air: bool = False
    stored_bits: int = 12
    breakage: str | None = None
    seed: int = 1
