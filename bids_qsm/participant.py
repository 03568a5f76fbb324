"""The participant level: from the files of one series to its maps, labels and table.

:func:`process_series` is the order of the steps; the steps stand below it in that order.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from scipy import ndimage

from bids_qsm.anatomy.reference_region import csf_reference_region
from bids_qsm.bids.derivatives import find_mask, find_r2map
from bids_qsm.bids.echoes import Echoes
from bids_qsm.bids.inputs import Series
from bids_qsm.choices import method, note, preset_step
from bids_qsm.clinical.case import Case
from bids_qsm.clinical.steps import clinical_findings
from bids_qsm.errors import UnreadableInputError
from bids_qsm.execution.steps import Steps
from bids_qsm.images import Image, load_image, voxel_sizes_mm
from bids_qsm.job import Job, Journal, check_inputs, digest, work_dir
from bids_qsm.labelling import (
    Anatomy,
    Structures,
    align_anatomy,
    label_structures,
    load_atlases,
    refine_anatomy,
    series_chi,
    ventricles,
)
from bids_qsm.maps import (
    Brain,
    Maps,
    ReferencedMap,
    Susceptibility,
    TotalField,
    Uncertainty,
    Veins,
    Weighted,
)
from bids_qsm.morphometry import find_lesions, measure_head
from bids_qsm.numerics import (
    coils,
    masking,
    separation,
    swi,
    two_pass,
    unwrapping,
    veins,
)
from bids_qsm.numerics.coil_combination import combine_coils
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Bool, Float32, Geometry, hz_per_ppm
from bids_qsm.numerics.layout import root_sum_of_squares
from bids_qsm.numerics.referencing import reference_to
from bids_qsm.numerics.registry import options_of
from bids_qsm.numerics.relaxometry import Relaxation
from bids_qsm.numerics.separation import Sources
from bids_qsm.numerics.series_quality import Value, echo_values, measure_fit
from bids_qsm.numerics.veins import COARSEST_MM
from bids_qsm.publication import publish
from bids_qsm.settings import Processing, Settings

FIELD_STEPS = ("offset", "unwrapping", "field", "mask")
GIVEN = "given"
BRAIN_RIM_MM = 5.0
WHOLE_BRAIN = "whole brain"


def process_series(
    series: Series,
    settings: Settings,
    key: str,
    threads: int,
    read: Callable[[], Echoes],
    tell: Callable[[str], None],
) -> None:
    """Process one series from its files to its published outputs.

    Parameters
    ----------
    series : Series
    settings : Settings
    key : str
        Fingerprint of all that decides the outputs.
    threads : int
    read : callable
        Gives the echoes of the series.
    tell : callable
        Is told each step's name when it starts.
    """
    started = time.perf_counter()
    job = Job(series, settings, Steps(work_dir(settings) / series.name, key, tell), Journal())
    with scipy.fft.set_workers(threads):
        step = preset_step(settings.processing)
        job.journal.step(step.name, step.method, step.parameters, step.seconds)
        check_inputs(series, settings, key)
        tell("load")
        echoes = read()
        job.journal.warn(*echoes.warnings)
        if series.n_coils > 1:
            took_s = time.perf_counter() - started
            job.journal.step("coils", "mcpc3ds", options_of(combine_coils), took_s)
        magnitude = root_sum_of_squares(echoes.magnitude, threads)
        first_phase = None if echoes.phase is None else echoes.phase[..., 0].copy()

        signal_brain = find_signal_brain(job, echoes, magnitude)
        anatomy = align_anatomy(job, Image(magnitude, series.affine), signal_brain.mask)
        brain = choose_brain(job, signal_brain, anatomy)
        weighted = weight_by_susceptibility(job, echoes, brain)
        acquired = measure_images(echoes, brain)
        total = map_field(job, echoes, magnitude, brain)
        relaxation = map_relaxation(job, echoes, brain, total)
        geometry = echoes.geometry
        del echoes  # the largest arrays: what follows has three dimensions only

        total_ppm = None if total is None else in_ppm(job, total, magnitude, geometry)
        local = None if total_ppm is None else remove_background(job, total_ppm)
        chi = None if local is None else map_susceptibility(job, local, relaxation)
        if total is not None and total_ppm is not None and chi is not None:
            chi = reduce_artefacts(job, total_ppm, total.quality, chi, relaxation)
        series_map = series_chi(anatomy, chi, local)
        atlases = load_atlases(job, anatomy)
        anatomy = refine_anatomy(job, anatomy, series_map, atlases)
        structures = label_structures(job, anatomy, series_map, atlases)
        found_veins = find_veins(job, chi, local, structures, relaxation)
        region = choose_reference(job, chi, local, anatomy, structures, relaxation, found_veins)
        referenced = reference_susceptibility(job, chi, local, region)

        spread = (
            None
            if total is None or total_ppm is None or not referenced
            else map_uncertainty(job, total_ppm, total.quality, relaxation, referenced[0])
        )
        lesions = find_lesions(job, anatomy)
        head = measure_head(job, anatomy, structures, lesions)
        sources = separate_sources(job, local, referenced, relaxation)

        grid = Image(magnitude, series.affine)
        maps = Maps(
            magnitude=grid,
            first_phase=first_phase,
            b0_t=series.b0_t,
            brain=brain,
            relaxation=relaxation,
            total=total,
            local=local,
            chi=referenced,
            weighted=weighted,
            sources=sources,
            uncertainty=spread,
            veins=found_veins,
            acquired=acquired,
        )
        findings = clinical_findings(job, Case(maps, anatomy, structures, lesions))

        check_inputs(series, settings, key)
        tell("publish")
        seconds = time.perf_counter() - started
        publish(job, maps, anatomy, structures, lesions, head, findings, key, seconds)
    if settings.work_dir is None:
        shutil.rmtree(job.steps.folder, ignore_errors=True)


def find_signal_brain(job: Job, echoes: Echoes, magnitude: Float32) -> Brain:
    """Find the brain in the gradient echo itself, or take the user's mask."""
    given = find_mask(job.settings, job.series)
    if given is not None:
        mask = load_image(given, np.int16).data > 0
        if mask.shape != magnitude.shape:
            raise UnreadableInputError(
                f"{given}: the mask has the shape {mask.shape}, the series {magnitude.shape}; "
                "give a mask on the grid of the series."
            )
        return Brain(mask, GIVEN)
    return job.steps.run(
        "brain",
        Brain,
        lambda folder: Brain(masking.brain_mask(magnitude, echoes.geometry.voxel_mm), "magnitude"),
        {},
    )


def choose_brain(job: Job, signal_brain: Brain, anatomy: Anatomy | None) -> Bool:
    """Return the brain mask: the user's, else the T1w image's with its rim, else the signal's.

    The T1w image's mask has no scalp in it but ends early; what the signal's mask adds close by
    is the brain's own edge, whose field helps to tell background from tissue.
    """
    if anatomy is None or signal_brain.source == GIVEN:
        brain = signal_brain
    else:
        inner, voxel_mm = anatomy.brain_on_grid(), voxel_sizes_mm(job.series.affine)
        near = ndimage.distance_transform_edt(~inner, sampling=voxel_mm) <= BRAIN_RIM_MM
        brain = Brain(inner | (signal_brain.mask & near), "T1w")
    job.journal.step("brain", brain.source, {}, 0.0)
    return brain.mask


def weight_by_susceptibility(job: Job, echoes: Echoes, brain: Bool) -> Weighted | None:
    """Make the susceptibility-weighted image, where it is asked for; the phase stays as it is."""
    if "swi" not in job.settings.extra_steps:
        return None
    if echoes.phase is None:
        job.journal.warn("There is no phase: no susceptibility-weighted image can be made.")
        return None
    function, options = method(job.settings.processing, "swi")

    def weight(_: Path) -> Weighted:
        image = function(echoes.phase, echoes.magnitude, echoes.te_s, echoes.geometry, **options)
        return Weighted(image, swi.minimum_intensity_projection(image, brain, echoes.geometry))

    weighted = job.steps.run(
        "swi", Weighted, weight, {"method": function.__name__, "brain": digest(brain), **options}
    )
    slab = options_of(swi.minimum_intensity_projection)
    note(job, "swi", {**options, **slab}, job.steps.seconds("swi"))
    return weighted


def measure_images(echoes: Echoes, brain: Bool) -> tuple[Value, ...]:
    """Measure the quality of the images themselves, before the phase is overwritten."""
    voxel_mm = echoes.geometry.voxel_mm
    return tuple(echo_values(echoes.magnitude, echoes.phase, echoes.te_s, brain, voxel_mm))


def map_field(job: Job, echoes: Echoes, magnitude: Float32, brain: Bool) -> TotalField | None:
    """Map the total field: phase offset removed, unwrapped, fitted over the echoes, masked."""
    if echoes.phase is None:
        return None
    chosen = {step: method(job.settings.processing, step) for step in FIELD_STEPS}
    parameters = {step: (chosen[step][0].__name__, chosen[step][1]) for step in FIELD_STEPS}
    total = job.steps.run(
        "field",
        TotalField,
        lambda folder: fit_total_field(echoes, magnitude, brain, chosen),
        {"brain": digest(brain), **parameters},
    )
    job.journal.warn(*total.warnings)
    for step, seconds in zip(FIELD_STEPS, total.seconds, strict=True):
        note(job, step, chosen[step][1], seconds)
    return total


def fit_total_field(
    echoes: Echoes, magnitude: Float32, brain: Bool, chosen: Mapping[str, Any]
) -> TotalField:
    """Run the four parts of the field map one after the other; the phase is overwritten."""
    (offset, offset_options), (unwrap, unwrap_options), (fit, fit_options), (cut, cut_options) = (
        chosen[step] for step in FIELD_STEPS
    )
    te_s, geometry = echoes.te_s, echoes.geometry
    times = [time.perf_counter()]
    # before the offset is removed: that stops at the brain's edge, which would look like noise
    quality = unwrapping.quality_map(echoes.phase, echoes.magnitude, te_s)
    corrected = offset(echoes.phase, echoes.magnitude, te_s, brain, geometry, **offset_options)
    times.append(time.perf_counter())
    unwrapped = unwrap(corrected.phase, echoes.magnitude, te_s, brain, **unwrap_options)
    times.append(time.perf_counter())
    fitted = fit(unwrapped, echoes.magnitude, te_s, brain, geometry, **fit_options)
    times.append(time.perf_counter())
    mask = cut(brain, quality, magnitude, geometry, **cut_options)
    measured = measure_fit(unwrapped, fitted, te_s, mask)
    times.append(time.perf_counter())
    seconds = tuple(later - earlier for earlier, later in pairwise(times))
    warnings = corrected.warnings
    if offset is coils.off:
        warnings += coils.left_in(fitted.phase0_rad, mask)
    return TotalField(fitted.field_hz, fitted.noise_hz, quality, mask, measured, seconds, warnings)


def map_relaxation(
    job: Job, echoes: Echoes, brain: Bool, total: TotalField | None
) -> Relaxation | None:
    """Map R2* and S0, with the field's gradients in mind; a single echo has none."""
    if len(echoes.te_s) < 2:
        job.journal.warn("There is a single echo: no R2*, T2* and S0 maps can be made.")
        return None
    function, options = method(job.settings.processing, "relaxometry")
    field_hz = None
    if total is not None:
        field_hz = np.where(np.isfinite(total.noise_hz), total.field_hz, np.float32(np.nan))
    elif "gradient_correction" in options:
        options["gradient_correction"] = False  # nothing is known of the field
    sliced = job.series.sliced
    relaxation = job.steps.run(
        "relaxometry",
        Relaxation,
        lambda _: function(echoes.magnitude, echoes.te_s, brain, field_hz, sliced, **options),
        {"method": function.__name__, "brain": digest(brain), "sliced": sliced, **options},
        after=[] if total is None else ["field"],
    )
    note(job, "relaxometry", options, job.steps.seconds("relaxometry"))
    return relaxation


def in_ppm(job: Job, total: TotalField, magnitude: Float32, geometry: Geometry) -> FieldMap:
    """Return the total field as background removal takes it."""
    scale = np.float32(1 / hz_per_ppm(job.series.b0_t))
    field_ppm = np.where(total.mask, total.field_hz * scale, 0)
    noise_ppm = np.where(total.mask, total.noise_hz * scale, np.inf)
    return FieldMap(field_ppm, noise_ppm, magnitude, total.mask, geometry)


def remove_background(job: Job, total_ppm: FieldMap) -> FieldMap:
    """Remove the field of what lies outside the brain."""
    function, options = method(job.settings.processing, "background")
    local = job.steps.run(
        "background",
        FieldMap,
        lambda _: function(total_ppm, **options),
        {"method": function.__name__, **options},
        after=["field"],
    )
    note(job, "background", options, job.steps.seconds("background"))
    return local


def map_susceptibility(job: Job, local: FieldMap, relaxation: Relaxation | None) -> Susceptibility:
    """Invert the local field."""
    function, options = method(job.settings.processing, "inversion")
    after = ["background"]
    if relaxation is not None:
        local = replace(local, r2star_per_s=relaxation.r2star_per_s)
        after.append("relaxometry")
    chi = job.steps.run(
        "inversion",
        Susceptibility,
        lambda _: Susceptibility(function(local, **options)),
        {"method": function.__name__, **options},
        after=after,
    )
    note(job, "inversion", options, job.steps.seconds("inversion"))
    return chi


def reduce_artefacts(
    job: Job,
    total: FieldMap,
    quality: Float32,
    chi: Susceptibility,
    relaxation: Relaxation | None,
) -> Susceptibility:
    """Take what unreliable voxels do to the others off the map, where the settings ask for it."""
    function, options = method(job.settings.processing, "artefact_reduction")
    if function is two_pass.off:
        note(job, "artefact_reduction", options, 0.0)
        return chi
    again = reconstruction(job, relaxation)
    reduced = job.steps.run(
        "artefact_reduction",
        Susceptibility,
        lambda _: Susceptibility(function(total, quality, chi.chi_ppm, again, **options)),
        {"method": function.__name__, **options},
        after=["inversion"],
    )
    note(job, "artefact_reduction", options, job.steps.seconds("artefact_reduction"))
    return reduced


def reconstruction(
    job: Job, relaxation: Relaxation | None
) -> Callable[[FieldMap], tuple[Float32, Bool]]:
    """Return what makes a total field into susceptibility, not yet referenced, and its mask."""
    remove, background_options = method(job.settings.processing, "background")
    invert, inversion_options = method(job.settings.processing, "inversion")
    r2star_per_s = None if relaxation is None else relaxation.r2star_per_s

    def reconstruct(total: FieldMap) -> tuple[Float32, Bool]:
        local = replace(remove(total, **background_options), r2star_per_s=r2star_per_s)
        return invert(local, **inversion_options), local.mask

    return reconstruct


def find_veins(
    job: Job,
    chi: Susceptibility | None,
    local: FieldMap | None,
    structures: tuple[Structures, ...],
    relaxation: Relaxation | None,
) -> Veins | None:
    """Find the veins, where there are structures: they are no part of their tissue or fluid."""
    if chi is None or local is None or not structures:
        return None
    function, options = method(job.settings.processing, "veins")
    if local.geometry.voxel_mm3 > COARSEST_MM**3 and function is not veins.off:
        job.journal.warn(
            f"The voxels of {local.geometry.voxel_mm3:.0f} mm³ are too large to tell veins from "
            "small nuclei: no veins are left out of the values without veins."
        )
    r2star_per_s = None if relaxation is None else relaxation.r2star_per_s
    found = job.steps.run(
        "veins",
        Veins,
        lambda _: Veins(function(chi.chi_ppm, r2star_per_s, local.mask, local.geometry, **options)),
        {"method": function.__name__, "chi": digest(chi.chi_ppm), **options},
        after=[] if relaxation is None else ["relaxometry"],
    )
    note(job, "veins", options, job.steps.seconds("veins"))
    return found


def choose_reference(
    job: Job,
    chi: Susceptibility | None,
    local: FieldMap | None,
    anatomy: Anatomy | None,
    structures: tuple[Structures, ...],
    relaxation: Relaxation | None,
    found_veins: Veins | None,
) -> tuple[str, Bool] | None:
    """Return the name and the voxels of the region that susceptibility is relative to.

    It is None where that is the whole brain, or nothing.
    """
    wanted = job.settings.processing.reference
    if chi is None or local is None or wanted in ("whole-brain", "none"):
        return None
    if anatomy is None:
        if wanted != "auto":
            job.journal.warn(f"The reference {wanted!r} needs a T1w image; it is the whole brain.")
        return None
    if wanted != "auto":
        regions = [of_atlas.region(wanted) for of_atlas in structures]
        return wanted, next((region for region in regions if region.any()), regions[0])
    labels, table = ventricles(anatomy, structures)
    found = csf_reference_region(
        labels,
        table,
        local.mask,
        None if relaxation is None else relaxation.r2star_per_s,
        atria=anatomy.atria_on_grid(),
        veins=None if found_veins is None else found_veins.mask,
        contrasts=[chi.chi_ppm, anatomy.t1w_on_grid().data],
    )
    job.journal.warn(*found.warnings)
    return found.name, found.mask


def reference_susceptibility(
    job: Job,
    chi: Susceptibility | None,
    local: FieldMap | None,
    region: tuple[str, Bool] | None,
) -> tuple[ReferencedMap, ...]:
    """Give susceptibility its zero.

    Returns
    -------
    tuple of ReferencedMap
        The map as it is published; then, where that is another one, relative to the whole brain.
    """
    if chi is None or local is None:
        return ()
    started, mask = time.perf_counter(), local.mask
    whole = ReferencedMap(WHOLE_BRAIN, reference_to(chi.chi_ppm, mask, mask), mask)
    maps: tuple[ReferencedMap, ...] = (whole,)
    if job.settings.processing.reference == "none":
        maps = (ReferencedMap("none", replace(whole.result, chi_ppm=chi.chi_ppm), None), whole)
    elif region is not None:
        name, voxels = region
        try:
            maps = (ReferencedMap(name, reference_to(chi.chi_ppm, voxels, mask), voxels), whole)
        except ValueError as error:
            job.journal.warn(f"Reference region {name}: {error} The whole brain is taken instead.")
    job.journal.step("reference", maps[0].region, {}, time.perf_counter() - started)
    return maps


def map_uncertainty(
    job: Job,
    total: FieldMap,
    quality: Float32,
    relaxation: Relaxation | None,
    chi: ReferencedMap,
) -> Uncertainty | None:
    """Map how well susceptibility is known, where it is asked for, by making it anew."""
    if "uncertainty" not in job.settings.extra_steps:
        return None
    if not np.isfinite(total.noise_ppm).any():
        job.journal.warn("The noise of the field is not known: uncertainty cannot be mapped.")
        return None
    processing, seed = job.settings.processing, job.settings.random_seed
    reduce, reduction_options = method(processing, "artefact_reduction")
    first = reconstruction(job, relaxation)

    def again(noisy: FieldMap) -> tuple[Float32, Bool]:
        chi_ppm, mask = first(noisy)
        chi_ppm = reduce(noisy, quality, chi_ppm, first, **reduction_options)
        if chi.voxels is not None:
            chi_ppm = reference_to(chi_ppm, chi.voxels, mask).chi_ppm
        return chi_ppm, mask

    function, options = method(processing, "uncertainty")
    reference = None if chi.voxels is None else digest(chi.voxels)
    spread = job.steps.run(
        "uncertainty",
        Uncertainty,
        lambda _: Uncertainty(function(total, again, seed, **options)),
        {
            "method": function.__name__,
            "seed": seed,
            "reference": reference,
            "reduction": (reduce.__name__, reduction_options),
            **options,
        },
        after=["inversion"],
    )
    note(job, "uncertainty", options, job.steps.seconds("uncertainty"))
    return spread


def separate_sources(
    job: Job,
    local: FieldMap | None,
    chi: tuple[ReferencedMap, ...],
    relaxation: Relaxation | None,
) -> Sources | None:
    """Separate paramagnetic from diamagnetic sources, where it is asked for."""
    if "separation" not in job.settings.extra_steps:
        return None
    if local is None or not chi or relaxation is None:
        job.journal.warn("Sources cannot be separated without both susceptibility and R2*.")
        return None
    r2_per_s = load_r2map(job)
    name, function, options = separation_method(job.settings.processing, r2_per_s is not None)
    if name != job.settings.processing.separation.name and r2_per_s is None:
        job.journal.warn("There is no R2 map: sources are separated by the gradient echo alone.")
    maps = (local, chi[0].result.chi_ppm, relaxation.r2star_per_s, job.series.b0_t)
    given = () if r2_per_s is None else (r2_per_s,)
    sources = job.steps.run(
        "separation",
        Sources,
        lambda _: function(*maps, *given, **options),
        {
            "method": name,
            "inputs": [digest(values) for values in (*maps[1:3], *given)],
            **options,
        },
        after=["background"],
    )
    job.journal.step("separation", name, options, job.steps.seconds("separation"))
    return sources


def separation_method(
    processing: Processing, has_r2: bool
) -> tuple[str, Callable[..., Any], dict[str, Any]]:
    """Return the method by which sources are separated: a measured R2 is used where there is one.

    Options that the settings give are passed on as far as the method has them.
    """
    name = "r2prime" if has_r2 else "gre"
    function = separation.METHODS[name]
    _, chosen = method(processing, "separation")
    known = options_of(function)
    return name, function, known | {key: chosen[key] for key in chosen if key in known}


def load_r2map(job: Job) -> Float32 | None:
    """Return the user's R2 map of the series, None where there is none.

    Raises
    ------
    UnreadableInputError
        If it does not lie on the grid of the series.
    """
    path = find_r2map(job.settings, job.series)
    if path is None:
        return None
    image = load_image(path)
    affine = job.series.affine
    if image.data.shape != job.series.shape or not np.allclose(image.affine, affine, atol=0.01):
        raise UnreadableInputError(
            f"{path}: the R2 map is not on the grid of the series; resample it to that."
        )
    return image.data
