from __future__ import annotations

import numpy as np

from bids_qsm.numerics.background.resharp import resharp

HEAD = (23.0, 22.0, 18.0)


def test_noisy_voxels_do_not_rule_the_fit(make_total, outer_field, head_geometry, ball, rng):
    total = make_total(outer_field)
    clean = resharp(total).field_ppm
    # the sphere reaches over the noise of its neighbours, so that only its own centre is weighted
    bad = ball(head_geometry, (23.0, 22.0, 21.0), 3.0)
    total.field_ppm[bad] += rng.normal(size=int(bad.sum())).astype(np.float32)
    even = resharp(total).field_ppm
    total.noise_ppm[bad] = 1.0
    weighted = resharp(total).field_ppm
    core = ball(head_geometry, HEAD, 20.0)
    assert np.std((weighted - clean)[core]) < 0.8 * np.std((even - clean)[core])


def test_a_stronger_regularisation_gives_a_smaller_field(make_total, rng) -> None:
    total = make_total(rng.normal(size=(48, 45, 38)))
    sizes = [
        np.linalg.norm(resharp(total, regularisation=r, max_iterations=100).field_ppm)
        for r in (0.001, 0.03, 1.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2] > 0
