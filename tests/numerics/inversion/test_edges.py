from __future__ import annotations

import numpy as np

from bids_qsm.numerics.inversion.edges import edge_step, edge_target_of
from bids_qsm.numerics.inversion.solver import gradient, gradient_adjoint, step_sizes


def test_edge_kernels_are_those_of_plain_admm(oblique_geometry, rng) -> None:
    steps, thresholds = step_sizes(oblique_geometry), np.array([0.8, 0.3], np.float32)
    shape = oblique_geometry.shape
    edges = rng.normal(size=(3, *shape)).astype(np.float32)
    bits = rng.integers(0, 16, shape).astype(np.uint8)
    free = np.stack([(bits >> axis) & 1 for axis in range(3)]).astype(bool)
    size = np.sqrt((np.where(free, 0, edges) ** 2).sum(0))
    threshold = thresholds[bits >> 3]
    kept = np.divide(threshold, size, out=np.ones_like(size), where=size > threshold)
    split = np.where(free, edges, edges * (1 - kept))
    dual = edges - split
    out = np.empty(shape, np.float32)
    edge_target_of(edges, steps, thresholds, bits, out)
    np.testing.assert_allclose(
        out, gradient_adjoint((split - dual).astype(np.float32), steps), atol=2e-5
    )

    chi = rng.normal(size=shape).astype(np.float32)
    relaxed = 1.7 * gradient(chi, steps) - 0.7 * split
    edge_step(chi, edges, steps, thresholds, bits)
    np.testing.assert_allclose(edges, relaxed + dual, atol=2e-5)
