"""One combination on one head, in a process of its own: its map, its cost, its scores."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from bids_qsm import participant
from bids_qsm.bids.echoes import Echoes, load_echoes
from bids_qsm.bids.inputs import Series
from bids_qsm.execution.local import peak_memory_mib
from bids_qsm.execution.steps import Steps, Timing
from bids_qsm.job import Job, Journal
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Float32, bounding_box
from bids_qsm.settings import Processing, Settings
from tests.benchmarks import scores
from tests.benchmarks.combinations import Combination
from tests.benchmarks.heads import Head, geometry_of, load_field_ppm, load_truth, read_field_map

WARM_UP_VOXELS = 32
COSTS = ("wall_s", "cpu_s", "peak_mib", "base_mib", "load_average")


@dataclass(frozen=True)
class Task:
    """A combination to run.

    Attributes
    ----------
    stage : str
    head : Head
    combination : Combination
    inputs : Path
        What :func:`tests.benchmarks.heads.write_inputs` wrote; the chain reads none of it.
    example : Series
        A small series on which the chain's kernels are compiled, or read from their cache,
        beforehand.
    out : Path
        Stem of the results: ``.json`` for the row, ``.npz`` for the slices.
    threads : int
    """

    stage: str
    head: Head
    combination: Combination
    inputs: Path
    example: Series
    out: Path
    threads: int


class _InMemory(Steps):
    """Steps that keep nothing: what is timed is the computation alone."""

    def run(
        self, name: str, result_type: type, compute: Callable[[Path], Any], *_: Any, **__: Any
    ) -> Any:
        self.tell(name)
        started = time.perf_counter()
        result = compute(self.folder)
        self.timings.append(Timing(name, time.perf_counter() - started, False))
        return result


def measure(task: Task, tell: Callable[[str], None]) -> None:
    """Run a task and write its row and its slices.

    The peak is read before the truth is loaded: it is that of imports, warm-up, input and method;
    ``base_mib`` is what it was before the method started.
    """
    with scipy.fft.set_workers(task.threads):
        run = _prepared(task, tell)
        load_average, base_mib = os.getloadavg()[0], peak_memory_mib()
        wall, cpu = time.perf_counter(), time.process_time()
        found = run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    costs = (wall, cpu, peak_memory_mib(), base_mib, load_average)
    tell("score")
    truth = load_truth(task.head)
    if task.stage == "background":
        true = load_field_ppm(task.head, "local")
        row = scores.score_field(found, true, truth)
    else:
        true = truth.chi_ppm
        row = scores.score_chi(found, truth)
    row |= dict(zip(COSTS, costs, strict=True))
    task.out.with_suffix(".json").write_text(json.dumps(row), encoding="utf-8")
    np.savez(task.out.with_suffix(".npz"), **_slices(found, true, truth))


def _prepared(task: Task, tell: Callable[[str], None]) -> Callable[[], Float32]:
    """Load what the stage starts from and warm up; what comes back is what is measured."""
    tell("warm up")
    processing = task.combination.processing
    if task.stage == "chain":
        run_chain(task.example, load_echoes(task.example, processing), processing, lambda _: None)
        echoes = [load_echoes(task.head.series, processing)]
        return lambda: run_chain(task.head.series, echoes.pop(), processing, tell)
    function, options = participant.method(processing, task.stage)
    start = "total" if task.stage == "background" else "local"
    field_map = read_field_map(task.inputs, start, geometry_of(task.head))
    function(_middle_of(field_map), **options)
    if task.stage == "background":
        return lambda: function(field_map, **options).field_ppm
    return lambda: function(field_map, **options)


def _middle_of(field_map: FieldMap) -> FieldMap:
    """Return a small part of a field map, on which kernels are compiled or read from a cache."""
    box = bounding_box(field_map.mask)
    first = [max((b.start + b.stop - WARM_UP_VOXELS) // 2, 0) for b in box]
    part = tuple(slice(f, f + WARM_UP_VOXELS) for f in first)
    names = ("field_ppm", "noise_ppm", "magnitude", "mask")
    arrays = [np.ascontiguousarray(getattr(field_map, name)[part]) for name in names]
    return FieldMap(*arrays, field_map.geometry.with_shape(arrays[0].shape))


def run_chain(
    series: Series, echoes: Echoes, processing: Processing, tell: Callable[[str], None]
) -> Float32:
    """Return susceptibility from a series' echoes, by the participant level's own steps."""
    nowhere = Path(os.devnull)
    settings = Settings(nowhere, nowhere, processing=processing)
    job = Job(series, settings, _InMemory(nowhere, "", tell), Journal())
    magnitude = np.sqrt(np.einsum("...e,...e->...", echoes.magnitude, echoes.magnitude))
    signal_brain = participant.find_signal_brain(job, echoes, magnitude)
    brain = participant.choose_brain(job, signal_brain, None)
    total = participant.map_field(job, echoes, magnitude, brain)
    geometry = echoes.geometry
    del echoes  # as the participant level does: the peak is its own
    if total is None:
        raise ValueError(f"{series.name} has no phase.")
    total_ppm = participant.in_ppm(job, total, magnitude, geometry)
    local = participant.remove_background(job, total_ppm)
    chi = participant.map_susceptibility(job, local, None)
    return participant.reduce_artefacts(job, total_ppm, total.quality, chi, None).chi_ppm


def _slices(found: Float32, true: Float32, truth: scores.Truth) -> dict[str, NDArray]:
    """Return a slice of each orientation through the nuclei's middle, means of the core taken off.

    Keys are ``found0`` to ``found2`` and ``true0`` to ``true2``, by the axis across the slice.
    """
    nuclei = np.isin(truth.labels, truth.nuclei) & truth.core
    middle = np.argwhere(nuclei if nuclei.any() else truth.core).mean(axis=0).round().astype(int)
    slices: dict[str, NDArray] = {"voxel_mm": np.array(truth.geometry.voxel_mm)}
    for key, values in (("found", found), ("true", true)):
        shown = np.where(found != 0, values - values[truth.core].mean(), np.float32(0))
        for axis in range(3):
            slices[f"{key}{axis}"] = np.take(shown, middle[axis], axis)
    return slices
