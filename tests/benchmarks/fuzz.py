"""Fuzz what reads files of a dataset: sidecars, headers, tables, TOML, records, kept results.

``python -m tests.benchmarks.fuzz TARGET [-max_total_time=60] [FOLDER_OF_EXAMPLES]`` needs atheris,
which is no dependency; TARGET is one of those below, the rest are libFuzzer's words.  A target
fails by any exception but the one sentence that a user is told.  Bytes alone seldom make a record
or an array: of ``record`` and ``kept`` the content says what is changed in a whole one.
"""

from __future__ import annotations

import copy
import gzip
import json
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["bids_qsm", "nibabel", "tomllib", "json"]):
    import numpy as np
    from numpy.typing import NDArray

    from bids_qsm.anatomy.atlas_files import read_description
    from bids_qsm.anatomy.atlas_files import read_table as read_atlas_table
    from bids_qsm.anatomy.freesurfer import read_freesurfer
    from bids_qsm.anatomy.lesions import read_points
    from bids_qsm.bids.acquisition import echo_time_s, field_strength_t, read_grid
    from bids_qsm.bids.inheritance import sidecar_reader
    from bids_qsm.bids.session_times import series_times
    from bids_qsm.clinical.leads import read_targets
    from bids_qsm.clinical.trajectories import read_trajectories
    from bids_qsm.errors import BidsQsmError
    from bids_qsm.exclusions import read_exclusions
    from bids_qsm.execution.steps import Steps
    from bids_qsm.gathering import read_table
    from bids_qsm.images import Image, encode_image, load_image
    from bids_qsm.models import read_models
    from bids_qsm.report import pages
    from bids_qsm.report.record import (
        FigureRecord,
        InputRecord,
        ReferenceRecord,
        RunRecord,
        SeriesRecord,
        StepRecord,
        TableRecord,
        record_from_json,
        record_to_json,
    )
    from bids_qsm.settings import read_processing

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
WHOLE = gzip.decompress(encode_image(Image(np.ones((4, 4, 4), np.float32), np.eye(4))))


def sidecar(content: bytes) -> None:
    """Read a sidecar and what is asked of it."""
    path = FOLDER / "sub-01_MEGRE.json"
    path.write_bytes(content)
    image = path.with_suffix(".nii.gz")
    fields = sidecar_reader(FOLDER)(image)
    field_strength_t(image, fields)
    echo_time_s({image: fields})


def header(content: bytes) -> None:
    """Read an image whose header begins with the content."""
    path = FOLDER / "x.nii"
    path.write_bytes(content + WHOLE[len(content) :])
    read_grid(path)
    load_image(path)


def packed(content: bytes) -> None:
    """Read a packed image that is the content itself."""
    path = FOLDER / "x.nii.gz"
    path.write_bytes(content)
    read_grid(path)
    load_image(path)


def table(content: bytes) -> None:
    """Read a table."""
    path = FOLDER / "participants.tsv"
    path.write_bytes(content)
    read_table(path)


def toml(content: bytes) -> None:
    """Read settings."""
    path = FOLDER / "settings.toml"
    path.write_bytes(content)
    read_processing(path, None)


def models(content: bytes) -> None:
    """Read models."""
    path = FOLDER / "models.toml"
    path.write_bytes(content)
    read_models(path)


def given(content: bytes) -> None:
    """Read tables that come with derivatives, atlases and lists."""
    path = FOLDER / "given.tsv"
    path.write_bytes(content)
    stats = FOLDER / "stats"
    stats.mkdir(exist_ok=True)
    for name in ("aseg", "lh.aparc", "rh.aparc"):
        (stats / f"{name}.stats").write_bytes(content)
    times = FOLDER / "sub-01" / "sub-01_sessions.tsv"
    times.parent.mkdir(exist_ok=True)
    times.write_bytes(content)
    for read in (
        lambda: read_points(path),
        lambda: read_targets(path),
        lambda: read_trajectories(path),
        lambda: read_exclusions(path),
        lambda: read_atlas_table(path),
        lambda: read_description(path),
        lambda: read_freesurfer(FOLDER),
        lambda: series_times(FOLDER, "01", ["sub-01_ses-1"]),
    ):
        _told(read)


def record(content: bytes) -> None:
    """Read a record, which says what is wrong by three kinds of errors, and make its page."""
    changed = json.loads(RECORD)
    data = atheris.FuzzedDataProvider(content)
    for _ in range(data.ConsumeIntInRange(0, 3)):
        within: Any = changed
        while True:
            key = data.PickValueInList(
                list(within) if isinstance(within, dict) else [*range(len(within))]
            )
            if data.ConsumeBool() or not isinstance(within[key], (dict, list)) or not within[key]:
                break
            within = within[key]
        within[key] = copy.deepcopy(data.PickValueInList(VALUES))
        if data.ConsumeBool():
            within[key] = data.ConsumeUnicode(20)
    for text in (json.dumps(changed), content.decode(errors="replace")):
        try:
            read = record_from_json(text)
        except (ValueError, KeyError, TypeError):
            continue
        pages.subject_page("01", [read], FOLDER)


def kept(content: bytes) -> None:
    """Read back a step's result of which some bytes are others; it is made again, or as it was."""
    folder = FOLDER / "work"
    steps = Steps(folder, "inputs", lambda _: None, 0)
    made = steps.run("one", Kept, lambda _: Kept(np.arange(9.0)), {})
    path = steps.folder_of("one") / "result.npz"
    whole = path.read_bytes()
    data = atheris.FuzzedDataProvider(content)
    place = data.ConsumeIntInRange(0, len(whole))
    other = data.ConsumeBytes(40)
    path.write_bytes(whole[:place] + other + whole[place + len(other) :])
    back = Steps(folder, "inputs", lambda _: None, 0).run("one", Kept, lambda _: made, {})
    assert isinstance(back, Kept)
    path.write_bytes(whole)


@dataclass(frozen=True)
class Kept:
    """A result of a step."""

    values: NDArray


def _told(read: Any) -> None:
    try:
        read()
    except BidsQsmError as error:
        assert str(error)


# they are large, take long, and are of no record
pages.library = str
pages.page_environment = cache(pages.page_environment)
VALUES = [None, True, 7, -1.5, "", "<b>", "../x", [], {}, [1], ["a"], {"a": 1}, float("nan"), 1e308]
RECORD = record_to_json(
    SeriesRecord(
        "01",
        "1",
        "sub-01_ses-1",
        "1.0",
        {"Echoes": "3"},
        (StepRecord("inversion", "tv", {"weight": 1.0}, 1.0, 2.0), StepRecord("swi", "swi")),
        ("It was guessed.",),
        (FigureRecord("Maps", "A", "B", ("sub-01/a.png",)),),
        ReferenceRecord("CSF", 0.1, 0.2, 30),
        (TableRecord("stats", "sub-01/a.tsv", "x"), TableRecord("quality", "sub-01/q.tsv")),
        outputs=("sub-01/a.nii.gz",),
        run=RunRecord(("bids-qsm",), {"a": 1}, {"numpy": "1"}, "", (InputRecord("a", 1, "b"),)),
    )
)
TARGETS = {
    t.__name__: t for t in (sidecar, header, packed, table, toml, models, given, record, kept)
}


def main() -> None:
    """Fuzz the target that is named."""
    target = TARGETS[sys.argv.pop(1)]

    def one_input(content: bytes) -> None:
        _told(lambda: target(content))

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
