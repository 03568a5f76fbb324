"""A simulated cohort as the participant level would leave it, to try the group level on.

python tests/benchmarks/cohort.py OUT_BIDS OUT_DERIVATIVES [--groups 37 37] [--sessions 2]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bids_qsm import __version__
from bids_qsm.anatomy.tissues import Measure, measures_table
from bids_qsm.bids.dataset import AtlasLabel, prepare_output_dir, write_atlas
from bids_qsm.bids.naming import output_path, record_path, sidecar_path, stem_from
from bids_qsm.bids.publishing import encode_json, encode_table, write_bytes, write_text
from bids_qsm.bids.sidecars import sidecar_for
from bids_qsm.images import Image, encode_image
from bids_qsm.numerics.regions import region_statistics, statistics_without
from bids_qsm.report.record import ReferenceRecord, SeriesRecord, TableRecord, record_to_json
from bids_qsm.settings import TEMPLATE, Settings

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # run as a script: `tests` is not a package that is installed
    sys.path.insert(0, str(ROOT))

from tests.benchmarks.cohort_images import MEASURES, PATIENTS, Cohort, Painter, plan  # noqa: E402

ATLAS = "HarvardOxford"
KEYS = {"R2starmap": "r2star", "Chimap": "chi"}
UNITS = {"R2starmap": "1/s", "Chimap": "ppm"}
REFERENCES = {
    "R2starmap": {"n/a": 0.0},
    "Chimap": {"CSF of the ventricles' atria": 0.0, "whole brain": 0.03},
}
"""What the values are relative to, and what that adds to them."""
REFERENCE = ReferenceRecord("CSF of the ventricles' atria", 0.03, 0.006, 500)


Paint = Callable[[str, int, int | None], NDArray[np.float32]]


def write(
    cohort: Cohort,
    bids_dir: Path,
    output_dir: Path,
    *,
    n_sessions: int = 1,
    paint: Paint | None = None,
    atlas: str = ATLAS,
) -> None:
    """Write maps in the template's space, tables and records, and the input's tables.

    With more than one session all subjects have as many scans of the same brain.  ``paint`` gives
    the map of a measure, subject and session, where it is not to be the painter's.
    """
    sessions = [None] if n_sessions == 1 else [*range(1, n_sessions + 1)]
    _write_input(cohort, bids_dir, sessions)
    prepare_output_dir(Settings(bids_dir, output_dir))
    rows = cohort.table[["index", "name", "hemisphere"]].itertuples(index=False)
    labels = [AtlasLabel(*row) for row in rows]
    write_atlas(output_dir, atlas, labels, {"Name": "Subcortical structures"})
    paint, volumes = paint or Painter(cohort).image, _volumes(cohort)
    morphometry = [_morphometry(cohort, subject) for subject in range(len(cohort.participants))]
    for subject, participant in enumerate(cohort.participants["participant_id"]):
        for session in sessions:
            entities = {"sub": participant.removeprefix("sub-")}
            name = stem_from(entities if session is None else {**entities, "ses": str(session)})
            maps = {m: paint(m, subject, session) for m in MEASURES}
            table = _regions(cohort, maps, volumes[subject])
            _write_series(cohort, output_dir, name, maps, table, morphometry[subject], atlas)


def _write_input(cohort: Cohort, bids_dir: Path, sessions: Sequence[int | None]) -> None:
    fields = {"Name": "Simulated cohort", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    write_text(bids_dir / "dataset_description.json", encode_json(fields))
    write_text(bids_dir / "participants.tsv", encode_table(cohort.participants))
    for participant in cohort.participants["participant_id"]:
        folder = bids_dir / participant
        folder.mkdir(parents=True, exist_ok=True)
        if sessions != [None]:
            ids = [f"ses-{session}" for session in sessions]
            table = pd.DataFrame({"session_id": ids, "acq_time": "2024-01-15T09:00:00"})
            write_text(folder / f"{participant}_sessions.tsv", encode_table(table))


def _write_series(
    cohort: Cohort,
    output_dir: Path,
    name: str,
    maps: dict[str, NDArray[np.float32]],
    table: pd.DataFrame,
    morphometry: pd.DataFrame,
    atlas: str,
) -> None:
    written = []
    for measure, values in maps.items():
        path = output_path(name, KEYS[measure], space=TEMPLATE)
        volume = np.zeros(cohort.mask.shape, np.float32)
        volume[cohort.mask] = values
        write_bytes(output_dir / path, encode_image(Image(volume, cohort.affine)))
        sidecar = sidecar_for(KEYS[measure], space=TEMPLATE, reference=REFERENCE)
        write_text(output_dir / sidecar_path(path), encode_json(sidecar))
        written.append(path.as_posix())
    tables = []
    for key, of, rows in (("stats", atlas, table), ("morphometry", None, morphometry)):
        path = output_path(name, key, atlas=of)
        write_text(output_dir / path, encode_table(rows))
        write_text(output_dir / sidecar_path(path), encode_json(sidecar_for(key)))
        tables.append(TableRecord(key, path.as_posix(), of))
    entities = dict(part.split("-") for part in name.split("_"))
    record = SeriesRecord(
        subject=entities["sub"],
        session=entities.get("ses"),
        name=name,
        version=__version__,
        facts={"Series": "simulated"},
        steps=(),
        warnings=(),
        figures=(),
        reference=REFERENCE,
        tables=tuple(tables),
        has_t1w=True,
        outputs=(*written, *(table.path for table in tables)),
    )
    write_text(output_dir / record_path(name), record_to_json(record))


def _regions(
    cohort: Cohort, maps: dict[str, NDArray[np.float32]], volumes_mm3: NDArray
) -> pd.DataFrame:
    """Return the per-structure table of a series."""
    index, everywhere = cohort.table["index"].tolist(), np.ones(cohort.labels.shape, np.bool_)
    nowhere, tables = ~everywhere, []
    for measure, values in maps.items():
        for reference, added in REFERENCES[measure].items():
            found = region_statistics(values + added, cohort.labels, index, 1.0, everywhere)
            found = statistics_without(
                found, values + added, cohort.labels, 1.0, everywhere, nowhere
            )
            found["volume_mm3"] = volumes_mm3
            words = {"measure": measure, "units": UNITS[measure], "reference": reference}
            for place, (column, value) in enumerate(
                {**cohort.table[["name", "hemisphere"]], **words}.items(), start=1
            ):
                found.insert(place, column, value)
            tables.append(found.assign(confidence=np.nan, agreement=np.nan))
    return pd.concat(tables, ignore_index=True)


def _volumes(cohort: Cohort) -> NDArray[np.float64]:
    """Return the volume of each structure in each subject, the smaller the more iron it has."""
    rng = np.random.default_rng([cohort.seed, 1])
    n = len(cohort.participants)
    size = rng.normal(0, 0.06, (n, 1)) + rng.normal(0, 0.05, (n, len(cohort.table)))
    usual = [(cohort.labels == index).sum() for index in cohort.table["index"]]
    iron = [_score(cohort, nucleus) for nucleus in cohort.table["nucleus"]]
    return np.array(usual) * np.exp(size - 0.03 * np.transpose(iron))


def _score(cohort: Cohort, nucleus: str) -> NDArray[np.float64]:
    chi = cohort.means["Chimap", nucleus][:, 0]
    return (chi - chi.mean()) / chi.std()


def _morphometry(cohort: Cohort, subject: int) -> pd.DataFrame:
    """Return volumes of tissues and lesions, and thickness, that go with thalamic χ a little."""
    rng = np.random.default_rng([cohort.seed, 2, subject])
    iron = _score(cohort, "thalamus")[subject]
    patient = cohort.participants["group"].iloc[subject] == PATIENTS
    scale = float(np.exp(rng.normal(0, 0.08)))
    load = float(np.exp(1.2 + 0.3 * iron + rng.normal(0, 1.0))) if patient else 0.0
    thickness = 2.55 - 0.03 * iron - 0.08 * patient + rng.normal(0, 0.1)
    grey = 660 - 12 * iron - 15 * patient + rng.normal(0, 35)
    white = 560 - 8 * iron - 10 * patient + rng.normal(0, 35)
    fluid = 260 + 8 * iron + 20 * patient + rng.normal(0, 40)
    measures = [
        Measure("grey matter", "B", "volume", grey / scale),
        Measure("white matter", "B", "volume", white / scale),
        Measure("cerebrospinal fluid", "B", "volume", fluid / scale),
        Measure("grey and white matter", "B", "volume", (grey + white) / scale),
        Measure("brain with fluid", "B", "volume", (grey + white + fluid) / scale),
        Measure("cortex", "B", "thickness", float(thickness)),
        Measure("T2 lesions", "B", "volume", load / scale),
        Measure("T2 lesions", "B", "number", float(np.ceil(3 * load))),
    ]
    return measures_table(measures, 1 / scale)


def main(words: Sequence[str] | None = None) -> int:
    """Write a cohort and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--groups", type=int, nargs=2, default=(37, 37), metavar="N")
    parser.add_argument("--sessions", type=int, default=1, help="scans of each subject")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--effect", type=float, default=1.0, help="0 makes equal groups")
    given = parser.parse_args(words)
    cohort = plan(*given.groups, seed=given.seed, size=given.effect)
    write(cohort, given.bids_dir, given.output_dir, n_sessions=given.sessions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
