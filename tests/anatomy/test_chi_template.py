from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_qsm.anatomy.chi_template import WHITE_MATTER_PPM, chi_from_labels, usual_chi_ppm
from bids_qsm.images import Image


@pytest.mark.parametrize(
    ("name", "chi_ppm"),
    [
        ("Left pallidum", 0.131),
        ("R Globus Pallidus externa", 0.131),
        ("GPi_left", 0.131),
        ("Left-Putamen", 0.038),
        ("L Caudate", 0.044),
        ("L Subthalamic Nucleus", 0.111),
        ("L Hypothalamus", 0.020),
        ("Right thalamus", 0.020),
        ("L Substantia Nigra pars compacta", 0.111),
        ("SNr right", 0.111),
        ("L Red Nucleus", 0.100),
        ("Left lateral ventricle", 0.019),
        ("Reddish thing", None),
        ("Snowflake", None),
        ("brain stem", None),
    ],
)
def test_names_tell_the_susceptibility(name, chi_ppm):
    assert usual_chi_ppm(name) == chi_ppm


@pytest.fixture
def balls() -> tuple[Image, Image, pd.DataFrame]:
    """A brain with a pallidum, a putamen beside it, and a structure nobody knows."""
    x, y, z = np.indices((60, 40, 40)).astype(float)

    def ball(cx: float, radius: float) -> np.ndarray:
        return (x - cx) ** 2 + (y - 20) ** 2 + (z - 20) ** 2 < radius**2

    labels = np.zeros((60, 40, 40), np.int16)
    labels[ball(12, 5)], labels[ball(22, 5)], labels[ball(50, 4)] = 3, 5, 8
    brain = np.ones(labels.shape, np.float32)
    brain[:, :, 22:] = 0
    table = pd.DataFrame({"index": [3, 5, 8], "name": ["Left pallidum", "Left putamen", "other"]})
    affine = np.eye(4)
    return Image(labels, affine), Image(brain, affine), table


def test_structures_have_their_value_and_the_rest_fades(balls):
    labels, brain, table = balls
    chi = chi_from_labels(labels, table, brain)
    assert chi.data.dtype == np.float32
    assert chi.data[12, 20, 20] == pytest.approx(0.131, abs=1e-3)
    assert chi.data[22, 20, 20] == pytest.approx(0.038, abs=1e-3)
    # white matter between and beside them, nothing far away or in what is not known
    assert chi.data[12, 27, 19] == pytest.approx(WHITE_MATTER_PPM, abs=3e-3)
    assert (chi.data[38:] == 0).all()
    assert (chi.data[:, :, 22:] == 0).all()


def test_unknown_structures_alone_give_nothing(balls):
    labels, brain, table = balls
    chi = chi_from_labels(labels, table.iloc[2:], brain)
    assert not chi.data.any()
