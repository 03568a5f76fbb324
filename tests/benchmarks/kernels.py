"""The hot kernels on one head: time, bytes that must be moved, and what the machine could do.

The limit of a kernel is the time that its transforms take with the best FFT there is, plus the time
that the rest of its bytes take at the machine's measured bandwidth.  The bytes are those that the
algorithm cannot do without (each array read or written once for each pass over the volume that
a transform forces), not those that the code happens to move.

The voxel-wise fits and the edges' costs are limited by arithmetic instead: to the time of the
bytes comes that of the functions which the algorithm cannot do without, each at the rate of a
bare loop (``limits.py``).  Region growing is limited by a queue in memory.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from bids_qsm.numerics import background, field, inversion, relaxometry
from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import (
    dipole_kernel,
    forward_fft,
    hz_per_ppm,
    inverse_fft,
    margin_voxels,
    padded_geometry,
)
from bids_qsm.numerics.inversion.solver import gradient, step_sizes
from bids_qsm.numerics.phase import wrap
from bids_qsm.numerics.romeo import edge_costs, grow_regions
from tests.benchmarks import limits
from tests.benchmarks.heads import Head, geometry_of, read_field_map

COLUMNS = (
    "kernel",
    "size",
    "time_ms",
    "moved_mb",
    "limit_ms",
    "limited_by",
    "times_limit",
    "load_average",
)
TE_S = (0.004, 0.009, 0.014, 0.019, 0.024)
B0_T, R2STAR_PER_S, SNR = 3.0, 20.0, 80.0
TRIAD_LENGTH = 1 << 26
"""Three arrays of 256 MiB: more than a cache holds."""
REPEATS, MORE_STEPS = 3, 4
MARGIN_MM = 20.0
R2STAR_WORK = {"log": 1, "exp": 4, "root": 2}
"""For each echo: the log-linear fit, its curve for weights and for the noise level, two steps.

A step needs a root for the noise floor; its exponential only near the floor.
"""
COMPLEX_WORK = {"sin and cos": 1}
"""For each echo: one step from the linear fit."""


@dataclass(frozen=True)
class Row:
    """A kernel beside its limit; the fields are the table's columns."""

    kernel: str
    size: str
    time_ms: float
    moved_mb: float
    limit_ms: float
    limited_by: str
    times_limit: float
    load_average: float


@dataclass(frozen=True)
class Machine:
    """What the machine can do at this size: bytes per second, and seconds of one FFT each way."""

    bytes_per_s: float
    fft_name: str
    forward_s: float
    inverse_s: float

    def row(
        self, name: str, shape: tuple[int, ...], seconds: float, moved: float, pairs: float = 0
    ) -> Row:
        """Return a kernel's row; ``pairs`` counts its transforms, there and back."""
        memory_s = moved / self.bytes_per_s
        fft_s = pairs * (self.forward_s + self.inverse_s)
        limited_by = " + ".join(
            [*([f"FFT ({self.fft_name})"] if pairs else []), *(["memory"] if moved else [])]
        )
        return self.row_with(name, shape, seconds, moved, fft_s + memory_s, limited_by)

    def computed_row(
        self,
        name: str,
        shape: tuple[int, ...],
        seconds: float,
        moved: float,
        work: Mapping[str, float],
    ) -> Row:
        """Return the row of a kernel that calls each function of ``work`` so many times."""
        compute_s = sum(
            count * limits.seconds_each(operation, REPEATS) for operation, count in work.items()
        )
        limited_by = f"compute ({', '.join(work)}) + memory"
        limit_s = compute_s + moved / self.bytes_per_s
        return self.row_with(name, shape, seconds, moved, limit_s, limited_by)

    def row_with(
        self,
        name: str,
        shape: tuple[int, ...],
        seconds: float,
        moved: float,
        limit_s: float,
        limited_by: str,
    ) -> Row:
        size = "x".join(map(str, shape))
        load = os.getloadavg()[0]
        return Row(
            name,
            size,
            1e3 * seconds,
            moved / 1e6,
            1e3 * limit_s,
            limited_by,
            seconds / limit_s,
            load,
        )


def measure_kernels(
    head: Head, inputs: Path, out: Path, threads: int, tell: Callable[[str], None]
) -> None:
    """Time the kernels on a head's local field and write the rows."""
    local = read_field_map(inputs, "local", geometry_of(head)).boxed()[0]
    with scipy.fft.set_workers(threads):
        shape = padded_geometry(local.geometry, margin_voxels(local.geometry, MARGIN_MM)).shape
        tell("machine")
        machine = _machine(shape, threads)
        rows = [_triad_row(machine)]
        for part in (_transforms, _solver_steps, _voxelwise):
            tell(part.__name__.strip("_"))
            rows += part(local, shape, machine)
    out.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")


@numba.njit(parallel=True, cache=True)
def _triad(a, b, c, scale):  # type: ignore[no-untyped-def]
    for i in numba.prange(a.size):
        a[i] = b[i] + scale * c[i]


def _best_s(function: Callable[[], Any], repeats: int | None = None) -> float:
    return limits.best_s(function, REPEATS if repeats is None else repeats)


def _triad_bytes_per_s() -> float:
    a, b, c = (np.ones(TRIAD_LENGTH, np.float32) for _ in range(3))
    return 3 * a.nbytes / _best_s(functools.partial(_triad, a, b, c, np.float32(2)), 5)


def _machine(shape: tuple[int, int, int], threads: int) -> Machine:
    bandwidth = _triad_bytes_per_s()
    volume = np.random.default_rng(0).standard_normal(shape, np.float32)
    times = []
    for name, forward, inverse in _ffts(shape, threads):
        spectrum = forward(volume)
        times.append(
            (
                _best_s(lambda f=forward: f(volume)),
                _best_s(lambda i=inverse, s=spectrum: i(s)),
                name,
            )
        )
    forward_s, inverse_s, name = min(times, key=lambda one: one[0] + one[1])
    return Machine(bandwidth, name, forward_s, inverse_s)


def _ffts(
    shape: tuple[int, int, int], threads: int
) -> Iterator[tuple[str, Callable[..., Any], Callable[..., Any]]]:
    """Yield every real FFT that is installed."""
    yield (
        "scipy",
        lambda x: scipy.fft.rfftn(x, workers=threads),
        lambda s: scipy.fft.irfftn(s, shape, workers=threads),
    )
    yield "numpy", np.fft.rfftn, lambda s: np.fft.irfftn(s, shape, axes=(0, 1, 2))
    if find_spec("pyfftw"):
        fftw = importlib.import_module("pyfftw.builders")
        real, half = np.empty(shape, np.float32), np.empty(_half(shape), np.complex64)
        planned = {"threads": threads, "planner_effort": "FFTW_MEASURE"}
        forward = fftw.rfftn(real, **planned)
        inverse = fftw.irfftn(half, s=shape, **planned)
        yield "fftw", forward, inverse
    if find_spec("mkl_fft"):
        mkl = importlib.import_module("mkl_fft.interfaces.scipy_fft")
        yield "mkl", mkl.rfftn, lambda s: mkl.irfftn(s, shape)
    if find_spec("torch"):
        torch = importlib.import_module("torch")
        torch.set_num_threads(threads)
        yield (
            "torch",
            lambda x: torch.fft.rfftn(torch.from_numpy(x)).numpy(),
            lambda s: torch.fft.irfftn(torch.from_numpy(s), shape).numpy(),
        )


def _half(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return shape[0], shape[1], shape[2] // 2 + 1


def _triad_row(machine: Machine) -> Row:
    moved = 3 * 4 * TRIAD_LENGTH
    return machine.row("triad (the limit)", (TRIAD_LENGTH,), moved / machine.bytes_per_s, moved)


def _transforms(local: FieldMap, shape: tuple[int, int, int], machine: Machine) -> list[Row]:
    geometry = local.geometry.with_shape(shape)
    volume = np.random.default_rng(0).standard_normal(shape, np.float32)
    spectrum, kernel = forward_fft(volume), dipole_kernel(geometry)
    steps, real, half = step_sizes(geometry), volume.nbytes, spectrum.nbytes
    fft, name = f"FFT ({machine.fft_name})", machine.row_with
    forward_s = _best_s(lambda: forward_fft(volume))
    inverse_s = _best_s(lambda: inverse_fft(spectrum.copy(), shape)) - _best_s(spectrum.copy)
    return [
        name("rfftn", shape, forward_s, real + half, machine.forward_s, fft),
        name("irfftn", shape, inverse_s, real + half, machine.inverse_s, fft),
        machine.row(
            "dipole convolution",
            shape,
            _best_s(lambda: convolve(volume, kernel)),
            2 * half + kernel.nbytes,
            1,
        ),
        machine.row("gradient", shape, _best_s(lambda: gradient(volume, steps)), 4 * real),
    ]


def _solver_steps(local: FieldMap, shape: tuple[int, int, int], machine: Machine) -> list[Row]:
    """Return tv's and pdf's steps, each the difference between a long and a short run."""
    tv, pdf = inversion.METHODS["tv"], background.METHODS["pdf"]
    real, half = 4.0 * np.prod(shape), 8.0 * np.prod(_half(shape))
    admm_s = _step_s(lambda n: tv(local, max_iterations=n, tolerance=0.0))
    # data step 6, target of the edges 4, edge step 7 volumes; both spectra, kernel and inverse
    rows = [machine.row("tv: ADMM step", shape, admm_s, 17 * real + 5 * half, 2)]
    cg_s = _step_s(lambda n: pdf(local, max_iterations=n, coarse_iterations=0, tolerance=0.0))
    # x, residual and direction 8 volumes, image 2, mask 2 bytes a voxel; two kernels and spectra
    rows.append(machine.row("pdf: CG step", shape, cg_s, 10.5 * real + 5 * half, 2))
    return rows


def _step_s(run: Callable[[int], Any]) -> float:
    """Return the time of one step; short and long runs take turns, so that load hits both."""
    run(1)
    times: dict[int, list[float]] = {1: [], 1 + MORE_STEPS: []}
    for _ in range(REPEATS):
        for n, seconds in times.items():
            started = time.perf_counter()
            run(n)
            seconds.append(time.perf_counter() - started)
    short, long = (min(seconds) for seconds in times.values())
    return max(long - short, 1e-9) / MORE_STEPS


def _voxelwise(local: FieldMap, shape: tuple[int, int, int], machine: Machine) -> list[Row]:
    """Return region growing and the fits, on echoes made of the field itself."""
    box, mask, grid = local.geometry.shape, local.mask, local.geometry
    phase, magnitude = _echoes(local)
    wrapped = [wrap(np.ascontiguousarray(phase[..., echo])) for echo in range(2)]
    strength = np.ascontiguousarray(magnitude[..., 0])
    scales = (1.0, TE_S[0] / TE_S[1])
    costs = edge_costs(*wrapped, scales, strength, mask)
    voxels, inside, echoes = mask.size, int(mask.sum()), len(TE_S)
    fit, r2star = field.METHODS["nonlinear"], relaxometry.METHODS["nonlinear"]
    n_edges = limits.edges_of(costs)[0].size
    return [
        machine.computed_row(
            "romeo: edge costs",
            box,
            _best_s(lambda: edge_costs(*wrapped, scales, strength, mask)),
            (3 * 4 + 1 + 3) * voxels,
            {"coherence": n_edges},
        ),
        machine.row_with(
            "romeo: growth",
            box,
            _best_s(lambda: grow_regions(wrapped[0], costs, mask)),
            (2 * 4 + 1 + 3) * voxels + 4 * inside,
            limits.queue_s(costs, REPEATS),
            "queue in memory, serial",
        ),
        machine.computed_row(
            "complex fit",
            box,
            _best_s(lambda: fit(phase, magnitude, TE_S, mask, grid, offset="free")),
            2 * 4 * echoes * inside + 4 * 4 * voxels,
            {operation: n * echoes * inside for operation, n in COMPLEX_WORK.items()},
        ),
        machine.computed_row(
            "R2* fit",
            box,
            _best_s(lambda: r2star(magnitude, TE_S, mask)),
            4 * echoes * inside + 3 * 4 * voxels,
            {operation: n * echoes * inside for operation, n in R2STAR_WORK.items()},
        ),
    ]


def _echoes(local: FieldMap) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return unwrapped phase and magnitude of a series with this field, and noise."""
    rng = np.random.default_rng(0)
    te_s = np.asarray(TE_S, np.float32)
    shape = (*local.geometry.shape, len(TE_S))
    magnitude = np.broadcast_to(np.exp(-R2STAR_PER_S * te_s), shape)
    magnitude = magnitude + rng.standard_normal(shape, np.float32) / np.float32(SNR)
    turns = np.float32(2 * np.pi * hz_per_ppm(B0_T)) * te_s
    phase = local.field_ppm[..., None] * turns
    phase += rng.standard_normal(shape, np.float32) / np.float32(SNR)
    return phase.astype(np.float32), np.maximum(magnitude, 0).astype(np.float32)
