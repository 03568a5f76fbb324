"""Trajectories of electrodes: what lies along each, and how long it runs in each nucleus."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_qsm.anatomy.segmentation import CERTAIN
from bids_qsm.bids.derivatives import find_trajectories
from bids_qsm.choices import method, note
from bids_qsm.clinical.case import Case, Finding, NamedTable
from bids_qsm.clinical.nuclei import ATLASES, PATTERNS, STN, Nuclei, nuclei_of, structures_with
from bids_qsm.errors import BidsQsmError, UnreadableInputError
from bids_qsm.frames import pd
from bids_qsm.images import Image, voxel_sizes_mm
from bids_qsm.job import Job
from bids_qsm.labelling import Anatomy, Structures
from bids_qsm.maps import Maps
from bids_qsm.numerics.geometry import Float32
from bids_qsm.numerics.trajectories import Layers, Line, Spans, moved, sample, sample_layers, scores
from bids_qsm.reading import check_table

POINTS = tuple(f"{end}_{axis}_mm" for end in ("entry", "target") for axis in "xyz")
RECORDED = ("recorded_entry_mm", "recorded_exit_mm", "recorded_span_mm")
LEAST_CHANCE = 0.05
"""Structures that fewer of the drawn lines meet are not listed."""
AROUND_MM = 15.0
LENGTHS = ("entry", "exit", "span", "span_mean", "span_sd", "span_low", "span_high")
LENGTHS += ("entry_sd", "exit_sd")


@dataclass(frozen=True)
class Trajectory:
    """A trajectory of the user's table.

    Attributes
    ----------
    name : str
    entry_mm, target_mm : tuple of float
        RAS, in the world of the T1w image.
    structure : str
        What was recorded, as the user calls it.
    recorded_entry_mm, recorded_exit_mm, recorded_span_mm : float
        Where cells of the structure were recorded; NaN where they were not.
    """

    name: str
    entry_mm: tuple[float, ...]
    target_mm: tuple[float, ...]
    structure: str = STN
    recorded_entry_mm: float = float("nan")
    recorded_exit_mm: float = float("nan")
    recorded_span_mm: float = float("nan")


@dataclass(frozen=True)
class Course:
    """A trajectory as it was followed.

    Attributes
    ----------
    trajectory : Trajectory
    line : Line
    spans : Spans
    chi_ppm, chi_sd_ppm : ndarray of float32, shape (n,)
        At the line's points; NaN where they are not known.
    scores : ndarray of float32, shape (structures, n)
        Of the structures of ``spans``, in their order.
    """

    trajectory: Trajectory
    line: Line
    spans: Spans
    chi_ppm: Float32
    chi_sd_ppm: Float32
    scores: Float32


def follow_trajectories(job: Job, case: Case) -> Finding | None:
    """Follow the user's trajectories through susceptibility and labels."""
    try:
        path = find_trajectories(job.settings, job.series)
    except BidsQsmError as error:
        job.journal.warn(f"{error} The trajectories were not followed.")
        return None
    if path is None:
        return None
    maps, anatomy = case.maps, case.anatomy
    if anatomy is None or not case.structures:
        job.journal.warn(f"{path}: the trajectories were not followed, as there is no T1w image.")
        return None
    try:
        trajectories, left_out = read_trajectories(path)
    except BidsQsmError as error:
        job.journal.warn(f"{error} The trajectories were not followed.")
        return None
    job.journal.warn(*left_out)
    structures = _structures(job, case.structures)
    started = time.perf_counter()
    courses, left_out = _followed(job, maps, anatomy, structures, trajectories)
    job.journal.warn(*(f"{path}: {text}" for text in left_out))
    if not courses:
        return None
    if not maps.chi:
        job.journal.warn("Trajectories were followed through labels alone: there is no χ.")
    _, options = method(job.settings.processing, "trajectories")
    note(job, "trajectories", options, time.perf_counter() - started)
    table = structures.atlas.table
    compared = [span_table(course, table) for course in courses]
    job.journal.warn(*(f"{path}: {text}" for _, texts in compared for text in texts))
    from bids_qsm.clinical.trajectory_pictures import draw_trajectories

    return Finding(
        tables=(
            NamedTable("trajectories", pd.concat([t for t, _ in compared], ignore_index=True)),
            NamedTable(
                "trajectory_profiles",
                pd.concat([profile_table(c, table) for c in courses], ignore_index=True),
            ),
        ),
        draw=partial(draw_trajectories, courses, structures, maps, anatomy),
        facts={"Trajectories": ", ".join(course.trajectory.name for course in courses)},
    )


def read_trajectories(path: Path) -> tuple[tuple[Trajectory, ...], tuple[str, ...]]:
    """Return the trajectories of a table, and a sentence for each that was left out.

    Raises
    ------
    UnreadableInputError
        If the file cannot be read, lacks a column, or has no row.
    """
    try:
        check_table(path)
        with path.open(encoding="utf-8-sig") as lines:
            first = lines.readline()
        separator = next((s for s in ("\t", ";", ",") if s in first), ",")
        table = pd.read_csv(
            path, sep=separator, dtype=str, encoding="utf-8-sig", skipinitialspace=True
        )
    except (OSError, ValueError) as error:  # also what pandas and UTF-8 refuse
        raise UnreadableInputError(f"{path}: the trajectories cannot be read ({error}).") from error
    table.columns = table.columns.str.strip()
    missing = [column for column in ("name", *POINTS) if column not in table]
    if missing:
        raise UnreadableInputError(
            f"{path}: the table of trajectories lacks the column {missing[0]!r}; it needs name, "
            f"{', '.join(POINTS)} (RAS, in mm, in the world of the T1w image)."
        )
    if table.empty:
        raise UnreadableInputError(f"{path}: the table of trajectories has no row.")
    found: dict[str, Trajectory] = {}
    left_out = []
    for place, row in enumerate(table.to_dict("records"), start=1):
        name = row["name"].strip() if isinstance(row["name"], str) else f"row {place}"
        try:
            if name in found:
                raise ValueError("there is another one of this name")
            found[name] = _trajectory(name, row)
        except ValueError as error:
            left_out.append(f"{path}: the trajectory {name!r} was left out: {error}.")
    return tuple(found.values()), tuple(left_out)


def _trajectory(name: str, row: dict[str, object]) -> Trajectory:
    places = [_number(row, column) for column in POINTS]
    for column, place in zip(POINTS, places, strict=True):
        if not np.isfinite(place):
            raise ValueError(f"{column!r} has no number")
    recorded = [_number(row, column) for column in RECORDED]
    if not np.isfinite(recorded[2]):
        recorded[2] = abs(recorded[0] - recorded[1])
    if recorded[2] < 0:
        raise ValueError(f"'recorded_span_mm' is {recorded[2]:g}, which is no length")
    structure = row.get("structure")
    return Trajectory(
        name,
        tuple(places[:3]),
        tuple(places[3:]),
        structure.strip() if isinstance(structure, str) else STN,
        *recorded,
    )


def _number(row: dict[str, object], column: str) -> float:
    """Return a number of a row; NaN where there is none."""
    text = row.get(column)
    if not isinstance(text, str) or text.strip().lower() in ("", "n/a", "nan", "na"):
        return float("nan")
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{column!r} is {text!r}, which is no number") from None


def _structures(job: Job, structures: Sequence[Structures]) -> Structures:
    """Return the structures of the atlas with a subthalamic nucleus, else those of the first."""
    found = structures_with(structures, [STN])
    if found is not None:
        return found[0]
    job.journal.warn(
        f"No atlas of this run has the {STN}, so no trajectory has a span in it; {ATLASES} has it."
    )
    return structures[0]


def _followed(
    job: Job,
    maps: Maps,
    anatomy: Anatomy,
    structures: Structures,
    trajectories: Sequence[Trajectory],
) -> tuple[list[Course], list[str]]:
    """Follow each trajectory; return what was found, and why others were left out."""
    function, options = method(job.settings.processing, "trajectories")
    courses, left_out = [], []
    for trajectory in trajectories:
        try:
            check_within(trajectory, anatomy.t1w.image)
            layers = layers_of(structures, trajectory)
            line, spans = function(
                trajectory.entry_mm,
                trajectory.target_mm,
                layers,
                job.settings.random_seed,
                **options,
            )
        except ValueError as error:
            left_out.append(f"the trajectory {trajectory.name!r} was left out: {error}.")
            continue
        indices = np.concatenate([layer.indices for layer in layers])
        of_line = scores(sample_layers(layers, line.points_mm))
        order = [int(np.flatnonzero(indices == index)[0]) for index in spans.indices]
        chi_ppm, chi_sd_ppm = sampled_chi(maps, anatomy, line.points_mm)
        if maps.chi and not np.isfinite(chi_ppm).any():
            left_out.append(
                f"the trajectory {trajectory.name!r} lies outside the susceptibility map: its "
                "profile has no χ."
            )
        courses.append(Course(trajectory, line, spans, chi_ppm, chi_sd_ppm, of_line[order]))
    return courses, left_out


def check_within(trajectory: Trajectory, t1w: Image) -> None:
    """Refuse a target outside the T1w image.

    Raises
    ------
    ValueError
    """
    if _is_within(trajectory.target_mm, t1w):
        return
    x, y, z = trajectory.target_mm
    place = f"({x:g}, {y:g}, {z:g}) mm"
    hint = "they must be RAS, in mm, in its world"
    if _is_within((-x, -y, z), t1w):
        hint += "; with the signs of x and y changed it lies within, as if they were LPS"
    raise ValueError(f"its target {place} is outside the T1w image's field of view ({hint})")


def _is_within(point_mm: Sequence[float], image: Image) -> bool:
    inverse = np.asarray(np.linalg.inv(image.affine), np.float64)
    at = moved(np.asarray(point_mm, np.float64), inverse)
    return bool(((at >= -0.5) & (at <= np.array(image.shape) - 0.5)).all())


def layers_of(structures: Structures, trajectory: Trajectory) -> list[Layers]:
    """Return the structures as probabilities: those of the deep grey matter, then the others."""
    segmentation = structures.segmentation
    deep = Layers(
        segmentation.indices,
        segmentation.probabilities,
        segmentation.labels.affine,
        float(CERTAIN),
    )
    image = structures.t1w_labels
    inverse = np.asarray(np.linalg.inv(image.affine), np.float64)
    ends = moved(np.array([trajectory.entry_mm, trajectory.target_mm]), inverse)
    reach = AROUND_MM / min(voxel_sizes_mm(image.affine))
    low = np.clip(np.floor(ends.min(axis=0) - reach).astype(int), 0, None)
    high = np.clip(np.ceil(ends.max(axis=0) + reach).astype(int) + 1, 0, None)
    part = image.data[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    others = np.setdiff1d(np.unique(part), [0, *segmentation.indices])
    if not others.size:
        return [deep]
    shift = np.eye(4)
    shift[:3, 3] = low
    return [deep, Layers(others, np.stack([part == i for i in others]), image.affine @ shift)]


def sampled_chi(
    maps: Maps, anatomy: Anatomy, points_mm: NDArray[np.float64]
) -> tuple[Float32, Float32]:
    """Return χ and its standard deviation (ppm) at points of the T1w image's world."""
    nothing = np.full(points_mm.shape[:-1], np.nan, np.float32)
    if not maps.chi or maps.local is None:
        return nothing, nothing
    affine = maps.magnitude.affine
    points_mm = moved(points_mm, anatomy.rigid.t1w_to_gre)
    known = maps.local.mask
    chi_ppm = sample(maps.chi[0].result.chi_ppm, affine, points_mm, valid=known)
    if maps.uncertainty is None:
        return chi_ppm, nothing
    return chi_ppm, sample(maps.uncertainty.sd_ppm, affine, points_mm, valid=known)


def span_table(course: Course, atlas_table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return a row for each structure that a line meets, or may; and what is to be said.

    What was recorded stands in the row of its structure.
    """
    spans, trajectory = course.spans, course.trajectory
    recorded, said = _recorded_label(course, atlas_table)
    rows = []
    for k, index in enumerate(spans.indices.tolist()):
        if spans.span[k] == 0 and spans.chance[k] < LEAST_CHANCE and index != recorded:
            continue
        inside = (course.scores[k] > 0.5) & np.isfinite(course.chi_ppm)
        chi_ppm = course.chi_ppm[inside].astype(np.float64)
        row = {
            "trajectory": trajectory.name,
            "index": index,
            **{f"{name}_mm": getattr(spans, name)[k] for name in LENGTHS},
            "chance": spans.chance[k],
            "n_pieces": int(spans.n_pieces[k]),
            "chi_ppm_mean": chi_ppm.mean() if chi_ppm.size else np.nan,
            "chi_ppm_sd": chi_ppm.std(ddof=1) if chi_ppm.size > 1 else np.nan,
        }
        if index == recorded:
            row |= {name: getattr(trajectory, name) for name in RECORDED}
            row["difference_mm"] = spans.span[k] - trajectory.recorded_span_mm
        rows.append(row)
    if recorded is not None and recorded not in spans.indices:
        rows.append(_missed(trajectory, recorded))
    if not rows:
        return pd.DataFrame(columns=["trajectory", "index"]), said
    table = pd.DataFrame(rows).sort_values("entry_mm", ascending=False, kind="stable")
    return table.merge(atlas_table[["index", "name", "hemisphere"]], on="index", how="left"), said


def _missed(trajectory: Trajectory, index: int) -> dict[str, object]:
    """Return the row of a structure that was recorded, and that the line does not come near."""
    nothing = dict.fromkeys(("span_mm", "span_mean_mm", "chance", "n_pieces"), 0)
    nothing["entry_mm"] = np.nan
    recorded = {name: getattr(trajectory, name) for name in RECORDED}
    difference = {"difference_mm": -trajectory.recorded_span_mm}
    return {"trajectory": trajectory.name, "index": index, **nothing, **recorded, **difference}


def _recorded_label(course: Course, atlas_table: pd.DataFrame) -> tuple[int | None, list[str]]:
    """Return the label of the structure that was recorded, None where nothing was."""
    trajectory = course.trajectory
    if not np.isfinite(trajectory.recorded_span_mm):
        return None, []
    said = f"the recorded span of {trajectory.name!r} was not compared: "
    wanted = next((n for n, p in PATTERNS.items() if p.search(trajectory.structure)), None)
    nuclei = nuclei_of(atlas_table)
    if wanted is None or not nuclei.has(wanted):
        return None, [f"{said}the atlas has no structure {trajectory.structure!r}."]
    labels = _of_side(course, nuclei, wanted)
    if len(labels) != 1:
        return None, [f"{said}the atlas parts the {wanted}."]
    return labels[0], []


def _of_side(course: Course, nuclei: Nuclei, name: str) -> tuple[int, ...]:
    """Return the labels of a nucleus on the side that a line comes nearest to."""
    chance = dict(zip(course.spans.indices.tolist(), course.spans.chance, strict=True))
    right = course.trajectory.target_mm[0] > 0
    sides = ("R", "L") if right else ("L", "R")
    return max(
        (nuclei.of(name, side) for side in sides),
        key=lambda labels: sum(chance.get(label, 0.0) for label in labels),
    )


def profile_table(course: Course, atlas_table: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each point of a line: place, χ, and the label with its score."""
    line = course.line
    n = line.depth_mm.size
    best = course.scores.argmax(axis=0) if len(course.scores) else np.zeros(n, np.intp)
    score = course.scores.max(axis=0, initial=0.0)
    index = np.zeros(n, np.int64)
    if len(course.scores):
        index = np.where(score > 0.5, course.spans.indices[best], 0)
    names = atlas_table[["index", "name", "hemisphere"]]
    x, y, z = line.points_mm.T
    return pd.DataFrame(
        {
            "trajectory": course.trajectory.name,
            "depth_mm": line.depth_mm,
            "x_mm": x,
            "y_mm": y,
            "z_mm": z,
            "chi_ppm": course.chi_ppm,
            "chi_sd_ppm": course.chi_sd_ppm,
            "index": index,
            "score": score,
        }
    ).merge(names, on="index", how="left")


def crossed(course: Course) -> Iterator[int]:
    """Yield the places in ``spans`` of the structures that a line crosses, the first first."""
    order = np.argsort(-course.spans.entry, kind="stable")
    yield from (int(k) for k in order if course.spans.span[k] > 0)
