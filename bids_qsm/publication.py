"""The last step of a series: its maps appear; labels, table, pictures and record follow."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bids_qsm import __version__
from bids_qsm.anatomy.atlases import Atlas
from bids_qsm.anatomy.itk import write_matrix
from bids_qsm.anatomy.segmentation import CERTAIN
from bids_qsm.bids.dataset import AtlasLabel, write_atlas
from bids_qsm.bids.derivatives import given_files
from bids_qsm.bids.naming import (
    figure_path,
    output_path,
    record_path,
    report_path,
    transform_path,
)
from bids_qsm.bids.publishing import Staging, encode_table, withdraw
from bids_qsm.bids.sidecars import TABLE_COLUMNS, raw_uri, sidecar_for
from bids_qsm.clinical.case import Finding
from bids_qsm.execution.local import peak_memory_mib
from bids_qsm.execution.steps import code_fingerprint
from bids_qsm.frames import pd
from bids_qsm.images import Image, voxel_sizes_mm
from bids_qsm.job import Job
from bids_qsm.labelling import Anatomy, Structures
from bids_qsm.maps import Maps
from bids_qsm.morphometry import Lesions, Morphometry, check_structures, with_values
from bids_qsm.numerics.geometry import hz_per_ppm
from bids_qsm.numerics.regions import region_statistics, statistics_without
from bids_qsm.numerics.relaxometry import t2star_s
from bids_qsm.numerics.segmentation_quality import failures
from bids_qsm.numerics.series_quality import (
    chi_values,
    field_values,
    judged,
    local_values,
    mask_values,
    metrics_table,
)
from bids_qsm.report.provenance import (
    command_words,
    input_records,
    settings_record,
    versions,
)
from bids_qsm.report.record import (
    FigureRecord,
    ReferenceRecord,
    RunRecord,
    SeriesRecord,
    TableRecord,
    record_to_json,
)
from bids_qsm.settings import TEMPLATE

if TYPE_CHECKING:
    from bids_qsm.report.picture import Picture

TISSUE_KEYS = ("gm_probseg", "wm_probseg", "csf_probseg")


@dataclass(frozen=True)
class Writer:
    """Writes one output after the other, each under its name and with its sidecar."""

    job: Job
    staging: Staging
    reference: ReferenceRecord | None

    def image(
        self,
        key: str,
        image: Image,
        *,
        space: str | None = None,
        atlas: str | None = None,
        slope: float = 1.0,
        **more: object,
    ) -> Path:
        """Write an image and return its path below the output folder.

        ``more`` are further fields of its sidecar; the true value is ``slope`` times the stored.
        """
        path = output_path(self.stem(key, space), key, space=space, atlas=atlas)
        self.staging.write_image(path, image, self.sidecar(key, space) | more, slope)
        return path

    def stem(self, key: str, space: str | None) -> str:
        """Return the stem of the output's name: the T1w image has its own."""
        t1w = self.job.series.t1w
        if key == "t1w" and space is None and t1w is not None:
            return t1w.name.removesuffix("_T1w" + "".join(t1w.suffixes))
        return self.job.series.name

    def sidecar(self, key: str, space: str | None) -> dict[str, object]:
        """Return the fields of an output's sidecar."""
        series = self.job.series
        files = (series.t1w,) if key == "t1w" else series.files
        grid = {"T1w": series.t1w, "orig": series.files[0]}.get(space or "")
        return sidecar_for(
            key,
            space=space,
            sources=[raw_uri(path, self.job.settings.bids_dir) for path in files if path],
            spatial_reference=None if grid is None else raw_uri(grid, self.job.settings.bids_dir),
            steps=self.job.journal.steps,
            reference=self.reference,
            warnings=self.job.journal.warnings,
        )


def publish(
    job: Job,
    maps: Maps,
    anatomy: Anatomy | None,
    structures: Sequence[Structures],
    lesions: Lesions | None,
    head: Morphometry | None,
    findings: Sequence[Finding],
    key: str,
    seconds_before: float,
) -> None:
    """Write all outputs of a series: the maps appear first, the record, which makes it done, last.

    Parameters
    ----------
    job : Job
    maps : Maps
    anatomy : Anatomy or None
    structures : sequence of Structures
        One for each atlas.
    lesions : Lesions or None
    head : Morphometry or None
    findings : sequence of Finding
        Of the clinical steps.
    key : str
        Fingerprint of all that decides the outputs.
    seconds_before : float
        How long the steps before this one took.
    """
    reference = reference_record(maps)
    with Staging(job.settings.output_dir, job.series.name) as staging:
        writer = Writer(job, staging, reference)
        write_susceptibility(writer, maps)
        earlier = record_path(job.series.name)
        subject = job.series.subject
        withdraw(job.settings.output_dir, earlier, f"sub-{subject}", report_path(subject))
        staging.release()
        write_maps(writer, maps)
        staging.release()
        tables = [write_quality(writer, maps)]
        checks = check_structures(job, maps, anatomy, structures, head)
        if anatomy is not None:
            write_anatomy(writer, maps, anatomy)
        for of_atlas, checked in zip(structures, checks, strict=True):
            write_atlas_tables(job, of_atlas.atlas)
            write_structures(writer, of_atlas)
            tables.append(write_regions(writer, maps, of_atlas))
            tables.append(write_table(writer, "quality", checked, atlas=of_atlas.atlas.name))
        if lesions is not None:
            tables.append(write_lesions(writer, lesions, with_values(lesions, maps)))
        if anatomy is not None and head is not None:
            tables.append(write_head(writer, anatomy, head))
        tables += [table for finding in findings for table in write_finding(writer, finding)]
        from bids_qsm.gallery import draw  # matplotlib takes long to import: the maps are out

        figures = write_figures(writer, draw(maps, anatomy, structures, lesions, head, findings))
        record = SeriesRecord(
            subject=job.series.subject,
            session=job.series.session,
            name=job.series.name,
            version=__version__,
            facts=facts(job, maps, head)
            | {name: text for finding in findings for name, text in finding.facts.items()},
            steps=job.journal.steps,
            warnings=job.journal.warnings,
            figures=figures,
            reference=reference,
            tables=tuple(tables),
            has_t1w=anatomy is not None,
            has_phase=maps.total is not None,
            seconds=round(seconds_before, 1),
            peak_mib=round(peak_memory_mib(), 1),
            key=key,
            outputs=tuple(path.as_posix() for path in staging.files()),
            run=run_record(job),
        )
        staging.write(record_path(job.series.name), record_to_json(record))


def reference_record(maps: Maps) -> ReferenceRecord | None:
    """Return what is said of the reference region."""
    if not maps.chi or maps.chi[0].region == "none":
        return None
    chosen = maps.chi[0]
    result = chosen.result
    return ReferenceRecord(chosen.region, result.mean_ppm, result.sd_ppm, result.n_voxels)


def write_susceptibility(writer: Writer, maps: Maps) -> None:
    """Write the map that is waited for, in the space of the series."""
    if maps.chi:
        writer.image("chi", maps.magnitude.like(maps.chi[0].result.chi_ppm))


def write_maps(writer: Writer, maps: Maps) -> None:
    """Write all other maps in the space of the series."""
    like = maps.magnitude.like
    writer.image("brain_mask", like(maps.brain))
    if maps.relaxation is not None:
        r2star_per_s, sd_per_s = maps.relaxation.r2star_per_s, maps.relaxation.r2star_sd_per_s
        writer.image("r2star", like(r2star_per_s))
        writer.image("r2star_sd", like(np.where(np.isfinite(sd_per_s), sd_per_s, 0)))
        writer.image("t2star", like(t2star_s(r2star_per_s)))
        writer.image("s0", like(maps.relaxation.s0))
    if maps.total is not None:
        known = maps.total.mask
        writer.image("total_field", like(np.where(known, maps.total.field_hz, 0)))
        writer.image("field_noise", like(np.where(known, maps.total.noise_hz, 0)))
        writer.image("phase_quality", like(maps.total.quality))
    if maps.local is not None:
        scale = np.float32(hz_per_ppm(maps.b0_t))
        writer.image("local_field", like(maps.local.field_ppm * scale))
        writer.image("qsm_mask", like(maps.local.mask))
    if maps.uncertainty is not None:
        writer.image("chi_sd", like(maps.uncertainty.sd_ppm))
    if maps.sources is not None:
        writer.image("paramagnetic", like(maps.sources.paramagnetic_ppm))
        writer.image("diamagnetic", like(maps.sources.diamagnetic_ppm))
    if maps.veins is not None:
        writer.image("vein_mask", like(maps.veins.mask))
    if maps.weighted is not None:
        writer.image("swi", like(maps.weighted.swi))
        writer.image("minip", like(maps.weighted.minip))


def write_quality(writer: Writer, maps: Maps) -> TableRecord:
    """Write the metrics of the series; what is out of its range is a warning."""
    job, values, ppm_hz = writer.job, list(maps.acquired), hz_per_ppm(maps.b0_t)
    if maps.total is not None:
        values += maps.total.fit.values()
        values += field_values(maps.total.field_hz, maps.total.noise_hz, maps.total.mask)
    if maps.local is not None:
        values += mask_values(maps.local, maps.brain)
        if job.settings.processing.background.name != "none":
            values += local_values(maps.local, ppm_hz)
        if maps.chi:
            chosen, geometry = maps.chi[0], maps.local.geometry
            # of the two regions the second is the whole brain; a structure by name is no fluid
            is_fluid = len(maps.chi) > 1 and job.settings.processing.reference == "auto"
            fluid = chosen.voxels if is_fluid else None
            values += chi_values(chosen.result.chi_ppm, maps.local.mask, fluid, geometry)
    checks = judged(values, ppm_hz)
    job.journal.warn(*failures(checks))
    return write_table(writer, "series_quality", metrics_table(checks))


def write_anatomy(writer: Writer, maps: Maps, anatomy: Anatomy) -> None:
    """Write the T1w image, and the maps in its space and in the template's."""
    writer.image("t1w", anatomy.t1w.image)
    for space in ("T1w", TEMPLATE):
        if space not in writer.job.settings.output_spaces:
            continue
        writer.image("brain_mask", anatomy.mask_in(space, maps.brain), space=space)
        if maps.relaxation is not None:
            r2star = maps.magnitude.like(maps.relaxation.r2star_per_s)
            writer.image("r2star", anatomy.map_in(space, r2star, maps.brain), space=space)
        if maps.chi and maps.local is not None:
            chi = maps.magnitude.like(maps.chi[0].result.chi_ppm)
            writer.image("chi", anatomy.map_in(space, chi, maps.local.mask), space=space)
    name = writer.job.series.name
    path = transform_path(name, "T1w", "orig", ".txt")
    write_matrix(anatomy.rigid.gre_to_t1w, writer.staging.path(path))


def write_structures(writer: Writer, structures: Structures) -> None:
    """Write the labels of an atlas, and how probable each is."""
    atlas = structures.atlas.name
    for space in ("orig", "T1w", TEMPLATE):
        if space == "orig" or space in writer.job.settings.output_spaces:
            writer.image("dseg", structures.labels_in(space), space=space, atlas=atlas)
    names = structures.atlas.table.set_index("index")["name"]
    writer.image(
        "probseg",
        structures.probabilities,
        space="orig",
        atlas=atlas,
        slope=1 / CERTAIN,
        LabelMap=[str(names[index]) for index in structures.segmentation.indices.tolist()],
    )


def write_atlas_tables(job: Job, atlas: Atlas) -> None:
    """Write what the labels' values mean and where the atlas comes from."""
    columns = (atlas.table[name] for name in ("index", "name", "hemisphere"))
    labels = [AtlasLabel(*row) for row in zip(*columns, strict=True)]
    description = {
        "Name": atlas.title,
        "License": atlas.license,
        "ReferencesAndLinks": list(atlas.references),
        "Space": atlas.space,
    }
    write_atlas(job.settings.output_dir, atlas.name, labels, description)


def write_lesions(writer: Writer, lesions: Lesions, table: pd.DataFrame) -> TableRecord:
    """Write the lesions in the spaces of the series and of the T1w image, and their table."""
    for space, labels in ((None, lesions.on_series), ("T1w", lesions.labels)):
        if space is None or space in writer.job.settings.output_spaces:
            writer.image("lesion_mask", labels.like(labels.data > 0), space=space)
            writer.image("lesion_dseg", labels, space=space)
    if lesions.flair is not None and "T1w" in writer.job.settings.output_spaces:
        writer.image("flair", lesions.flair, space="T1w")
    if lesions.enhancing is not None and "T1w" in writer.job.settings.output_spaces:
        enhancing = lesions.enhancing
        writer.image("enhancing_mask", enhancing.like(enhancing.data > 0), space="T1w")
    return write_table(writer, "lesion_table", table)


def write_head(writer: Writer, anatomy: Anatomy, head: Morphometry) -> TableRecord:
    """Write the tissues, and what was measured of the head."""
    if "T1w" in writer.job.settings.output_spaces:
        like, tissues = anatomy.t1w.image.like, head.tissues
        writer.image("tissue_dseg", like(tissues.labels), space="T1w")
        for key, share in zip(TISSUE_KEYS, tissues.shares, strict=True):
            writer.image(key, like(share), space="T1w", slope=0.01)
        if head.thickness is not None:
            writer.image("thickness", head.thickness, space="T1w")
    return write_table(writer, "morphometry", head.table)


def write_finding(writer: Writer, finding: Finding) -> list[TableRecord]:
    """Write the images and tables of a clinical step."""
    for image in finding.images:
        if image.space in (None, *writer.job.settings.output_spaces):
            writer.image(image.key, image.image, space=image.space, **image.fields)
    return [write_table(writer, table.key, table.table) for table in finding.tables]


def write_table(
    writer: Writer, key: str, table: pd.DataFrame, *, atlas: str | None = None
) -> TableRecord:
    """Write a table with the columns that its sidecar describes, and return its record."""
    path = output_path(writer.job.series.name, key, atlas=atlas)
    content = encode_table(table.reindex(columns=list(TABLE_COLUMNS[key])))
    writer.staging.write(path, content, writer.sidecar(key, None))
    return TableRecord(key, path.as_posix(), atlas)


def write_regions(writer: Writer, maps: Maps, structures: Structures) -> TableRecord:
    """Write the tidy table: a row for each structure, measure and reference."""
    parts = []
    if maps.relaxation is not None:
        measure = ("R2starmap", "1/s", "n/a")
        parts.append(rows(maps, structures, maps.relaxation.r2star_per_s, maps.brain, measure))
    if maps.local is not None:
        for chi in maps.chi:
            measure = ("Chimap", "ppm", chi.region)
            values = chi.result.chi_ppm
            parts.append(rows(maps, structures, values, maps.local.mask, measure))
    if maps.local is not None and maps.sources is not None:
        for name, values in (
            ("ParamagneticChimap", maps.sources.paramagnetic_ppm),
            ("DiamagneticChimap", maps.sources.diamagnetic_ppm),
        ):
            measure = (name, "ppm", maps.chi[0].region)
            parts.append(rows(maps, structures, values, maps.local.mask, measure))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return write_table(writer, "stats", table, atlas=structures.atlas.name)


def rows(
    maps: Maps,
    structures: Structures,
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    measure: tuple[str, str, str],
) -> pd.DataFrame:
    """Return the table's rows of one measure: its name, units and reference."""
    names = structures.atlas.table
    voxel_mm3 = float(np.prod(voxel_sizes_mm(maps.magnitude.affine)))
    statistics = region_statistics(
        values, structures.labels.data, names["index"].tolist(), voxel_mm3, valid
    )
    if maps.veins is not None:
        veins = maps.veins.mask
        statistics = statistics_without(
            statistics, values, structures.labels.data, voxel_mm3, valid, veins
        )
    name, units, reference = measure
    return (
        names[["index", "name", "hemisphere"]]
        .merge(statistics, on="index")
        .merge(structures.segmentation.table(), on="index", how="left")
        .assign(measure=name, units=units, reference=reference)
    )


def write_figures(writer: Writer, pictures: Sequence[Picture]) -> tuple[FigureRecord, ...]:
    """Write the pictures and return what the page needs to show them."""
    records = []
    for picture in pictures:
        paths = []
        for suffix, content in picture.images:
            path = figure_path(writer.job.series.name, picture.what + suffix)
            writer.staging.write(path, content)
            paths.append(path.as_posix())
        records.append(FigureRecord(picture.section, picture.title, picture.caption, tuple(paths)))
    return tuple(records)


def facts(job: Job, maps: Maps, head: Morphometry | None) -> dict[str, str]:
    """Return what the report's summary says of a series."""
    series = job.series
    measured = {} if head is None else _head_facts(head.table)
    voxel_mm = voxel_sizes_mm(series.affine)
    return {
        "Field strength": f"{series.b0_t:.4g} T",
        "Echo times": ", ".join(f"{1000 * te:.4g}" for te in series.te_s) + " ms",
        "Matrix": " x ".join(str(n) for n in series.shape),
        "Voxel size": " x ".join(f"{v:.3g}" for v in voxel_mm) + " mm",
        "B0 direction in voxel axes": ", ".join(f"{b:.3f}" for b in series.b0_direction),
        "Manufacturer": series.manufacturer or "not stated",
        "Input form": series.form,
        "Series": _names(series.files),
        "T1w": series.t1w.name if series.t1w else "none",
        "FLAIR": series.flair.name if series.flair else "none",
        "Brain volume": f"{maps.brain.sum() * np.prod(voxel_mm) / 1000:.0f} mL",
        **measured,
        "Software": f"bids_qsm {__version__}, "
        + ", ".join(f"{name} {number}" for name, number in versions().items()),
    }


def run_record(job: Job) -> RunRecord:
    """Return what the run was given and what it ran with."""
    series, bids_dir = job.series, job.settings.bids_dir
    own = (*series.files, *series.anatomical_files)
    files = {raw_uri(path, bids_dir): path for path in own}
    files |= {path.name: path for path in given_files(job.settings, series) if path not in own}
    return RunRecord(
        command=command_words(sys.argv, job.settings),
        settings=settings_record(job.settings),
        versions=versions(),
        code=code_fingerprint(),
        inputs=input_records(files),
        reused=tuple(timing.name for timing in job.steps.timings if timing.reused),
    )


def _names(files: Sequence[Path]) -> str:
    """Return the names of files; of many the first and the last."""
    if len(files) <= 2:
        return ", ".join(path.name for path in files)
    return f"{files[0].name} ... {files[-1].name} ({len(files)} files)"


def _head_facts(table: pd.DataFrame) -> dict[str, str]:
    """Return what the summary says of tissues and lesions."""
    own = table[(table["source"] == "bids-qsm") & (table["hemisphere"] == "B")]
    values = own.set_index(["name", "measure"])["value"].to_dict()
    said = {
        "Tissue volumes": ", ".join(
            f"{name} {values[name, 'volume']:.0f} mL"
            for name in ("grey matter", "white matter", "cerebrospinal fluid")
        )
    }
    for name in ("T2 lesions", "enhancing lesions"):
        if (name, "number") in values:
            number, volume_ml = values[name, "number"], values[name, "volume"]
            said[name[0].upper() + name[1:]] = f"{number:.0f}, {volume_ml:.2f} mL"
    return said
