"""Lesions and tissues of a series: what is left out is said, and nothing else is lost."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from bids_qsm import morphometry
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, encode_image
from bids_qsm.job import Journal


def refusing_job(error: Exception) -> SimpleNamespace:
    """A job whose steps all fail."""

    def run(*_: object, **__: object) -> None:
        raise error

    settings = SimpleNamespace(derivatives={}, extra_steps=())
    return SimpleNamespace(
        journal=Journal(), steps=SimpleNamespace(run=run), settings=settings, series=None
    )


@pytest.mark.parametrize("value", [np.nan, 7.0])
def test_an_image_that_says_nothing_is_left_out(tmp_path, value) -> None:
    path = tmp_path / "sub-1_FLAIR.nii.gz"
    path.write_bytes(encode_image(Image(np.full((4, 5, 6), value, np.float32), np.eye(4))))
    job = refusing_job(ValueError())
    assert morphometry.usable_image(job, path) is None
    assert "sub-1_FLAIR.nii.gz: the image is constant or holds NaN" in job.journal.warnings[0]


def test_lesions_that_cannot_be_found_are_a_warning() -> None:
    job = refusing_job(ValueError("no pure grey matter was found"))
    flair = Image(np.zeros((2, 2, 2), np.float32), np.eye(4))
    assert morphometry._automatic(job, SimpleNamespace(t1w=None), flair, None) is None
    assert job.journal.warnings == (
        "No lesions were found by FLAIR and T1w: no pure grey matter was found.",
    )


def test_tissues_that_cannot_be_measured_are_a_warning() -> None:
    job = refusing_job(UnreadableInputError("The T1w image shows no tissues."))
    image = Image(np.ones((2, 2, 2), np.float32), np.eye(4))
    anatomy = SimpleNamespace(t1w=SimpleNamespace(image=image))
    assert morphometry.measure_head(job, anatomy, (), None) is None
    assert job.journal.warnings == ("Tissues were not measured: The T1w image shows no tissues.",)
