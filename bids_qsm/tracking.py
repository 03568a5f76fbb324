"""Lesions of a subject followed over the sessions, from what the series have published."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from bids_qsm import __version__
from bids_qsm.anatomy.sessions import SessionTransform, register_session
from bids_qsm.bids.naming import (
    OUTPUTS,
    entities_of,
    figure_path,
    output_path,
    record_path,
    stem_from,
    tracking_record_path,
)
from bids_qsm.bids.publishing import Staging, encode_table, withdraw
from bids_qsm.bids.session_times import DATES, series_times
from bids_qsm.bids.sidecars import TABLE_COLUMNS, output_uri, sidecar_for
from bids_qsm.choices import method
from bids_qsm.errors import UnreadableInputError
from bids_qsm.execution.steps import Steps
from bids_qsm.images import Image, load_image
from bids_qsm.job import Journal, digest, work_dir
from bids_qsm.numerics.lesion_regions import LesionScan
from bids_qsm.numerics.lesion_tracking import Tracked
from bids_qsm.report.record import (
    FigureRecord,
    SeriesRecord,
    SubjectRecord,
    TableRecord,
    record_from_json,
    record_to_json,
)
from bids_qsm.settings import Settings
from bids_qsm.statistics.longitudinal import DAYS_A_YEAR, time_in_years

HEADING = "Lesion tracking"
POOR_OVERLAP = 0.85
NO_DATES = (
    "There are no dates of all sessions (column acq_time of sub-{0}_sessions.tsv or of "
    "..._scans.tsv): changes are from session to session, and not for a year."
)


@dataclass(frozen=True)
class Scan:
    """A finished series, and what is read of it."""

    record: SeriesRecord
    lesions: LesionScan
    contrast: Image
    brain: Image
    acq_time: str | None
    years: float

    @property
    def label(self) -> str:
        """Return how its session is called."""
        return "n/a" if self.record.session is None else f"ses-{self.record.session}"


def track_subject(
    subject: str, names: Sequence[str], settings: Settings, key: str, tell: Callable[[str], None]
) -> None:
    """Follow the lesions of a subject and publish their table, labels, pictures and record.

    Series that differ in more than the session, as those of two acquisitions, are followed
    apart.  All scans of one kind are held at once: some 13 bytes for each voxel of each.

    Parameters
    ----------
    subject : str
    names : sequence of str
        Of the series whose lesions are followed.
    settings : Settings
    key : str
        Fingerprint of all that decides the outputs.
    tell : callable
        Is told each step's name when it starts.
    """
    journal = Journal()
    started = time.perf_counter()
    unit = f"sub-{subject}_tracking"
    steps = Steps(work_dir(settings) / unit, key, tell)
    figures: list[FigureRecord] = []
    tables: list[TableRecord] = []
    _, options = method(settings.processing, "tracking")
    with Staging(settings.output_dir, unit) as staging:
        for stem, of_kind in _kinds(names).items():
            scans = _scans(subject, of_kind, settings, journal)
            if not scans:
                continue
            scans, transforms = _aligned(scans, steps, stem, journal)
            tracked = _tracked(scans, settings, journal, tell)
            journal.step(
                "tracking",
                settings.processing.tracking.name,
                options,
                time.perf_counter() - started,
            )
            tables.append(_write_table(staging, stem, scans, transforms, tracked, journal))
            _write_labels(staging, scans, tracked, journal)
            threshold = options["threshold_percent"]
            figures += _write_figures(staging, stem, scans, tracked, threshold)
        record = SubjectRecord(
            subject=subject,
            heading=HEADING,
            version=__version__,
            steps=journal.steps,
            warnings=journal.warnings,
            figures=tuple(figures),
            tables=tuple(tables),
            key=key,
            outputs=tuple(path.as_posix() for path in staging.files()),
        )
        staging.write(tracking_record_path(subject), record_to_json(record))
        withdraw(settings.output_dir, tracking_record_path(subject), f"sub-{subject}")
    if settings.work_dir is None:
        shutil.rmtree(steps.folder, ignore_errors=True)


def _kinds(names: Sequence[str]) -> Mapping[str, list[str]]:
    """Return the series by what their names are without the session."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        entities = entities_of(name)
        entities.pop("ses", None)
        kinds.setdefault(stem_from(entities), []).append(name)
    return kinds


def _scans(subject: str, names: Sequence[str], settings: Settings, journal: Journal) -> list[Scan]:
    """Return the scans of one kind in the order of time; those without a map are left out."""
    times = _times(settings.bids_dir, subject, names, journal)
    records = []
    for name in names:
        record = _finished(settings.output_dir, name)
        if record is None:
            journal.warn(f"{name}: it was not processed, so no lesion is followed in it.")
        elif output_path(name, "chi").as_posix() not in record.outputs:
            journal.warn(f"{name}: it has no susceptibility map, so no lesion is followed in it.")
        else:
            records.append(record)
    scans = [_read(record, settings.output_dir, times) for record in records]
    if all(np.isfinite(scan.years) for scan in scans):
        scans.sort(key=lambda scan: scan.years)
    elif len(scans) > 1:
        journal.warn(NO_DATES.format(subject))
    return _on_one_reference(scans, journal)


def _finished(output_dir: Path, name: str) -> SeriesRecord | None:
    try:
        return record_from_json((output_dir / record_path(name)).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(
    record: SeriesRecord, output_dir: Path, times: Mapping[str, tuple[str | None, float]]
) -> Scan:
    """Read what is published of a series."""

    def there(key: str) -> Path | None:
        path = output_path(record.name, key)
        return output_dir / path if path.as_posix() in record.outputs else None

    chi = load_image(output_dir / output_path(record.name, "chi"))
    mask = load_image(output_dir / output_path(record.name, "qsm_mask"), np.int16).data > 0
    brain = load_image(output_dir / output_path(record.name, "brain_mask"), np.int16)
    own, r2star, s0 = there("tracked_dseg"), there("r2star"), there("s0")
    labels = np.zeros(chi.shape, np.int16) if own is None else load_image(own, np.int16).data
    rates = None if r2star is None else load_image(r2star).data
    acq_time, years = times[record.name]
    scan = LesionScan(labels, chi.data, rates, mask, chi.affine, np.eye(4))
    contrast = chi if s0 is None else load_image(s0)
    return Scan(record, scan, contrast, brain.like(brain.data > 0), acq_time, years)


def _on_one_reference(scans: list[Scan], journal: Journal) -> list[Scan]:
    """Return the scans relative to one region: to the whole brain, where their own differ."""
    regions = {_reference(scan.record) for scan in scans}
    if len(regions) < 2:
        return scans
    journal.warn(
        "The susceptibility of the sessions is relative to different regions "
        f"({', '.join(sorted(regions))}): lesions are measured relative to the whole brain."
    )
    return [_to_whole_brain(scan) for scan in scans]


def _to_whole_brain(scan: Scan) -> Scan:
    chi, mask = scan.lesions.chi_ppm, scan.lesions.mask
    mean = chi[mask].mean(dtype=np.float64) if mask.any() else 0.0
    own = replace(scan.lesions, chi_ppm=chi - np.float32(mean))
    record = scan.record
    if record.reference is not None:
        record = replace(record, reference=replace(record.reference, region="whole brain"))
    return replace(scan, lesions=own, record=record)


def _reference(record: SeriesRecord) -> str:
    return "n/a" if record.reference is None else record.reference.region


def _times(
    bids_dir: Path, subject: str, names: Sequence[str], journal: Journal
) -> dict[str, tuple[str | None, float]]:
    """Return when each series was made: as the dataset writes it, and in years."""
    try:
        column, said = series_times(bids_dir, subject, names)
        texts = [said.get(name) for name in names]
        years = time_in_years(pd.DataFrame({"time": texts}, dtype=object), "time")
    except (UnreadableInputError, ValueError) as error:
        journal.warn(f"The dates of the sessions of sub-{subject} are not used: {error}")
        return {name: (None, float("nan")) for name in names}
    scale = 1 / DAYS_A_YEAR if column == "days" else 1.0
    return {
        name: (text if column == DATES else None, scale * float(year))
        for name, text, year in zip(names, texts, years, strict=True)
    }


def _aligned(
    scans: list[Scan], steps: Steps, stem: str, journal: Journal
) -> tuple[list[Scan], list[SessionTransform]]:
    """Register each scan to the first one."""
    first = scans[0]
    aligned, transforms = [first], [SessionTransform(np.eye(4), 1.0)]
    same = all(OUTPUTS["s0"].suffix in " ".join(s.record.outputs) for s in scans)
    for scan in scans[1:]:
        pair = [
            (s.contrast if same else s.brain.like(s.lesions.chi_ppm), s.brain)
            for s in (first, scan)
        ]

        def register(_: Path, images: tuple[Image, ...] = (*pair[0], *pair[1])) -> SessionTransform:
            return register_session(*images)

        found = steps.run(
            f"registration-{scan.record.name}",
            SessionTransform,
            register,
            {"images": [digest(image.data) for of in pair for image in of], "stem": stem},
        )
        if found.overlap < POOR_OVERLAP:
            journal.warn(
                f"{scan.record.name}: only {100 * found.overlap:.0f} % of its brain lies on that "
                f"of {first.record.name} after registration: look at the slices of its lesions."
            )
        own = replace(scan.lesions, to_common=found.to_first)
        aligned.append(replace(scan, lesions=own))
        transforms.append(found)
    return aligned, transforms


def _tracked(
    scans: Sequence[Scan], settings: Settings, journal: Journal, tell: Callable[[str], None]
) -> Tracked:
    tell("measure")
    function, options = method(settings.processing, "tracking")
    years = np.array([scan.years for scan in scans])
    years = years - years[0] if np.isfinite(years).all() else np.full(len(scans), np.nan)
    tracked: Tracked = function([scan.lesions for scan in scans], years.tolist(), **options)
    if not tracked.regions:
        journal.warn("No lesion was found or given in any session: there is nothing to follow.")
    if len(scans) == 1:
        journal.warn("There is one session alone: lesions have values, and no change.")
    lost = tracked.table[tracked.table["state"] == "outside"] if tracked.regions else ()
    for row in lost.itertuples() if len(lost) else ():
        journal.warn(
            f"Lesion {row.lesion} is not measured in {scans[row.scan].record.name}: "
            f"susceptibility is known in {100 * row.coverage:.0f} % of its region."
        )
    return tracked


def _write_table(
    staging: Staging,
    stem: str,
    scans: Sequence[Scan],
    transforms: Sequence[SessionTransform],
    tracked: Tracked,
    journal: Journal,
) -> TableRecord:
    of_scan = pd.DataFrame(
        {
            "session_id": [scan.label for scan in scans],
            "series": [scan.record.name for scan in scans],
            "acq_time": [scan.acq_time for scan in scans],
            "reference": [_reference(scan.record) for scan in scans],
            "brain_overlap": [transform.overlap for transform in transforms],
        }
    )
    place = tracked.table["scan"].to_numpy(int)
    table = pd.concat(
        [tracked.table.reset_index(drop=True), of_scan.iloc[place].reset_index(drop=True)], axis=1
    )
    path = output_path(stem, "tracking")
    content = encode_table(table.reindex(columns=list(TABLE_COLUMNS["tracking"])))
    staging.write(path, content, _sidecar("tracking", scans, journal))
    return TableRecord("tracking", path.as_posix())


def _write_labels(
    staging: Staging, scans: Sequence[Scan], tracked: Tracked, journal: Journal
) -> None:
    for scan, labels in zip(scans, tracked.labels, strict=True):
        path = output_path(scan.record.name, "tracking_dseg")
        image = Image(labels, scan.lesions.affine)
        staging.write_image(path, image, _sidecar("tracking_dseg", scans, journal))


def _sidecar(key: str, scans: Sequence[Scan], journal: Journal) -> dict[str, object]:
    return sidecar_for(
        key,
        sources=[output_uri(output_path(scan.record.name, "chi")) for scan in scans],
        steps=journal.steps,
        warnings=journal.warnings,
    )


def _write_figures(
    staging: Staging,
    stem: str,
    scans: Sequence[Scan],
    tracked: Tracked,
    threshold_percent: float,
) -> list[FigureRecord]:
    from bids_qsm.tracking_pictures import tracking_pictures  # matplotlib takes long to import

    drawn = tracking_pictures(
        [scan.lesions for scan in scans],
        [scan.label for scan in scans],
        tracked,
        threshold_percent,
        HEADING,
    )
    kind = "" if len(entities_of(stem)) == 1 else f" ({stem})"
    records = []
    for picture in drawn:
        path = figure_path(stem, picture.what)
        staging.write(path, picture.images[0][1])
        title = picture.title + kind
        records.append(FigureRecord(HEADING, title, picture.caption, (path.as_posix(),)))
    return records
