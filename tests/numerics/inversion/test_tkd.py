from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.inversion.tkd import tkd


def test_a_sphere_comes_back_with_its_amplitude(oblique_geometry, sphere_field, ball) -> None:
    centre, shape = (16.0, 14.0, 12.0), oblique_geometry.shape
    field = 0.1 * sphere_field(oblique_geometry, centre, 6.0)
    mask = ball(oblique_geometry, centre, 13.5)
    zero = np.zeros(shape, np.float32)
    chi = tkd(FieldMap(field * mask, zero, zero, mask, oblique_geometry))
    inside = ball(oblique_geometry, centre, 4.5)
    around = mask & ~ball(oblique_geometry, centre, 8.0)
    assert chi[inside].mean() - chi[around].mean() == pytest.approx(0.1, abs=0.02)
    assert not chi[~mask].any()


@pytest.mark.parametrize("threshold", [0.0, 0.7])
def test_a_threshold_out_of_range_is_refused(threshold, oblique_geometry) -> None:
    zero = np.zeros(oblique_geometry.shape, np.float32)
    field = FieldMap(zero, zero, zero, zero == 0, oblique_geometry)
    with pytest.raises(ValueError, match="between 0 and 2/3"):
        tkd(field, threshold=threshold)
