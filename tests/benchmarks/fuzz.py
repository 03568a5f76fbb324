"""Fuzz what reads files of a dataset: sidecars, headers, tables, TOML, records.

``python -m tests.benchmarks.fuzz TARGET [-max_total_time=60] [FOLDER_OF_EXAMPLES]`` needs atheris,
which is no dependency; TARGET is one of those below, the rest are libFuzzer's words.  A target
fails by any exception but the one sentence that a user is told.
"""

from __future__ import annotations

import gzip
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["bids_qsm", "nibabel", "tomllib", "json"]):
    import numpy as np

    from bids_qsm.bids.acquisition import echo_time_s, field_strength_t, read_grid
    from bids_qsm.bids.inheritance import sidecar_reader
    from bids_qsm.errors import BidsQsmError
    from bids_qsm.gathering import read_table
    from bids_qsm.images import Image, encode_image, load_image
    from bids_qsm.models import read_models
    from bids_qsm.report.record import record_from_json
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


def record(content: bytes) -> None:
    """Read a record, which says what is wrong by three kinds of errors."""
    try:
        record_from_json(content.decode(errors="replace"))
    except (ValueError, KeyError, TypeError):
        return


TARGETS = {t.__name__: t for t in (sidecar, header, packed, table, toml, models, record)}


def main() -> None:
    """Fuzz the target that is named."""
    target = TARGETS[sys.argv.pop(1)]

    def one_input(content: bytes) -> None:
        try:
            target(content)
        except BidsQsmError as error:
            assert str(error)

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
