"""How well the deep grey matter is segmented: T1w alone, χ alone, both; one atlas, several heads.

    python tests/benchmarks/segmentation.py HEADS --out DIR [--test LABEL ...] [--atlas NAME|PATH]

HEADS are folders of simulated heads with a T1w image and, in ``derivatives/truth/sub-X``, the true
susceptibility (``Chimap``), its mask and the labels on the T1w's grid (``space-T1w_dseg``, ids of
FreeSurfer).  Labels that came to that grid by the nearest voxel may all be displaced by half a
voxel, where the grids differ by little but a shift: a caudate then overlaps itself by .89.  Bring
each label's share to the grid, and take the label with the largest.

The measured susceptibility is the true one with noise of 5 ppb.  Each head that is tested is
segmented by the atlas and by the other heads, of which it is none.  What was prepared and
registered is kept in DIR.  Nothing is asserted; seconds are of the processor, and the memory is
the most that any process has held since the start.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # run as a script: `tests` is not a package that is installed
    sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from scipy import ndimage  # noqa: E402

from bids_qsm.anatomy.atlases import AtlasMember, load_atlas  # noqa: E402
from bids_qsm.anatomy.brain import PreparedT1w, prepare_t1w  # noqa: E402
from bids_qsm.anatomy.chi_template import chi_from_labels  # noqa: E402
from bids_qsm.anatomy.deep_grey import SeriesChi  # noqa: E402
from bids_qsm.anatomy.grids import on_grid  # noqa: E402
from bids_qsm.anatomy.resampling import resample_map  # noqa: E402
from bids_qsm.anatomy.segmentation import (  # noqa: E402
    Segmentation,
    segment_multi,
    segment_single,
)
from bids_qsm.anatomy.template import load_template  # noqa: E402
from bids_qsm.anatomy.warp import refit_deep_grey, register_to_template  # noqa: E402
from bids_qsm.execution.steps import Steps  # noqa: E402
from bids_qsm.images import Image, load_image  # noqa: E402

STRUCTURES = {"caudate": (11, 50), "putamen": (12, 51), "pallidum": (13, 52), "thalamus": (10, 49)}
BESIDE = (4, 43, 26, 58)
"""Lateral ventricles and accumbens: members have them where the heads do, as published ones."""
CONTRASTS = ("T1w", "chi", "both")
WAYS = ("single", "multi")
NOISE_PPM, NOISE_SEED, MOST_MEMBERS = 0.005, 1, 4
CHI_ALONE = 1e6
"""Weight of χ beside the T1w by which the T1w counts for nothing."""


@dataclass(frozen=True)
class Head:
    """A simulated head: what is measured, and what is true."""

    name: str
    t1w: PreparedT1w
    series: SeriesChi
    truth: Image


@dataclass(frozen=True)
class HeadMember:
    """A head as a member of a multi-atlas; it can be sent to another process."""

    name: str
    member: AtlasMember

    def load(self) -> AtlasMember:
        return self.member


def main(words: Sequence[str] | None = None) -> int:
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("datasets", nargs="+", type=Path, metavar="HEADS")
    top.add_argument("--out", type=Path, required=True, metavar="DIR")
    top.add_argument("--test", nargs="+", metavar="LABEL", help="default: all heads")
    top.add_argument("--atlas", default="default", metavar="NAME|PATH", help="the one atlas")
    top.add_argument("--contrasts", nargs="+", choices=CONTRASTS, default=CONTRASTS)
    top.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    top.add_argument("--threads", type=int, default=1)
    chosen = top.parse_args(words)
    heads = [read_head(path, chosen.out) for d in chosen.datasets for path in sorted_heads(d)]
    rows = []
    for head in heads:
        if chosen.test and head.name not in chosen.test:
            continue
        others = [other for other in heads if other.name != head.name][:MOST_MEMBERS]
        for contrast in chosen.contrasts:
            for way in chosen.ways:
                own = head if contrast != "chi" else chi_as_t1w(head)
                folder = chosen.out / head.name / f"{way}-{contrast}"
                segment = (
                    partial(by_atlas, head, own, contrast, chosen.atlas, folder)
                    if way == "single"
                    else partial(by_heads, own, others, contrast, folder, chosen.threads)
                )
                rows.append(measured(head, segment, {"way": way, "contrast": contrast}))
                print(pd.DataFrame(rows).to_string(float_format="%.3f"), flush=True)
    table = pd.DataFrame(rows)
    table.to_csv(chosen.out / "segmentation.tsv", sep="\t", index=False)
    means = table.drop(columns="head").groupby(["way", "contrast"], sort=False).mean()
    print(means.to_string(float_format="%.3f"))
    return 0


def sorted_heads(dataset: Path) -> list[Path]:
    return sorted(dataset.glob("derivatives/truth/sub-*/sub-*_space-T1w_dseg.nii.gz"))


def read_head(truth_path: Path, out: Path) -> Head:
    """Read a head; its prepared T1w is kept."""
    folder, name = truth_path.parent, truth_path.parent.name
    path = folder.parents[2] / name / "anat" / f"{name}_T1w.nii.gz"
    steps = Steps(out / name, str(path), lambda _: None)
    t1w = steps.run("t1w", PreparedT1w, lambda _: prepare_t1w(load_image(path)), {})
    chi = load_image(folder / f"{name}_Chimap.nii.gz")
    mask = chi.like(load_image(folder / f"{name}_mask.nii.gz").data > 0)
    noise = np.random.default_rng(NOISE_SEED).standard_normal(chi.shape)
    smooth = ndimage.gaussian_filter(noise, 0.7)
    noisy = chi.data + NOISE_PPM * smooth / smooth.std()
    measured_chi = chi.like(np.where(mask.data, noisy, 0).astype(np.float32))
    series = SeriesChi(measured_chi, mask, np.eye(4))  # simulated in one world
    return Head(name.removeprefix("sub-"), t1w, series, load_image(truth_path, np.int16))


def chi_as_t1w(head: Head) -> Head:
    """Return a head whose T1w looks as χ does: what is left if there is χ alone."""
    chi = resample_map(head.series.chi, head.series.mask, head.t1w.image, (np.eye(4),))
    t1w = dataclasses.replace(head.t1w, image=chi.like(_as_t1w(chi.data)))
    return dataclasses.replace(head, t1w=t1w)


def _as_t1w(chi_ppm: np.ndarray) -> np.ndarray:
    return np.clip(0.5 + 3 * chi_ppm, 0.01, 1).astype(np.float32)


def by_atlas(head: Head, own: Head, contrast: str, name: str, folder: Path) -> Segmentation:
    """Segment by one atlas; the whole brain is always started by the T1w."""
    atlas = load_atlas(name)
    warp = register_to_template(head.t1w, folder.parent / "template")
    if contrast == "T1w":
        return segment_single(head.t1w, warp, atlas)
    template = load_template()
    on_template = dataclasses.replace(atlas, labels=on_grid(atlas.labels, template, order=0))
    chi = atlas.chi or chi_from_labels(on_template.labels, atlas.table, template)
    weight = {"chi_weight": CHI_ALONE} if contrast == "chi" else {}
    warp = refit_deep_grey(warp, head.t1w, folder, head.series, chi, **weight)
    return segment_single(own.t1w, warp, atlas, head.series if contrast == "both" else None)


def by_heads(
    own: Head, others: Sequence[Head], contrast: str, folder: Path, threads: int
) -> Segmentation:
    members = []
    for other in others:
        seen = chi_as_t1w(other) if contrast == "chi" else other
        brain = seen.t1w.image.like(np.where(seen.t1w.brain.data, seen.t1w.image.data, 0))
        chi = resample_map(other.series.chi, other.series.mask, brain, (np.eye(4),))
        used = chi if contrast == "both" else None
        members.append(HeadMember(other.name, AtlasMember(other.name, brain, used, other.truth)))
    asked = [i for pair in STRUCTURES.values() for i in pair]
    table = pd.DataFrame({"index": sorted([*asked, *BESIDE])})
    series = own.series if contrast == "both" else None
    return segment_multi(own.t1w, members, table, folder, series, threads=threads)  # type: ignore[arg-type]


def measured(head: Head, segment: Callable[[], Segmentation], what: dict) -> dict:
    """Return a row: overlap of each structure (mean of both sides) on the T1w's grid, and costs."""
    before = _cpu_s()
    started = time.perf_counter()
    found = segment().labels_on(head.t1w.image).data
    row = {"head": head.name, **what}
    for name, sides in STRUCTURES.items():
        both = [jaccard(found == s, head.truth.data == s) for s in sides]
        row[name] = float(np.mean(both))
        row[f"{name}_dice"] = float(np.mean([2 * j / (1 + j) for j in both]))
    row["cpu_s"] = _cpu_s() - before
    row["wall_s"] = time.perf_counter() - started
    row["peak_mib"] = _peak_mib()
    return row


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def _peak_mib() -> float:
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in whose) / 1024


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    sys.exit(main())
