from __future__ import annotations

import numpy as np

from bids_qsm.numerics.background.ismv import ismv
from bids_qsm.numerics.background.spheres import Padded, eroded
from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.geometry import sphere_kernel


def test_the_result_is_where_plain_iteration_ends(make_total, rng) -> None:
    total = make_total(rng.normal(size=(48, 45, 38)))
    padded = Padded.of(total, 6.0)
    sphere = sphere_kernel(padded.geometry, 6.0)
    mask = eroded(padded.mask, sphere)
    background = padded.field
    for _ in range(150):
        background = np.where(mask, convolve(background, sphere), padded.field)
    expected = padded.local_map(total, padded.field - background, mask)
    found = ismv(total, radius_mm=6.0, polynomial_order=-1, tolerance=1e-5)
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_allclose(found.field_ppm, expected.field_ppm, atol=1e-3)
