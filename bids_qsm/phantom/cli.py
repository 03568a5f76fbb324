"""``bids-qsm-phantom``: words in, a dataset out; nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import bids_qsm
from bids_qsm.errors import BidsQsmError, CommandLineError
from bids_qsm.phantom.options import (
    BREAKAGES,
    GROUPS,
    LEAD_SIDES,
    LEAD_TARGETS,
    VENDORS,
    CtOptions,
    DatasetOptions,
)

DEFAULT, DEFAULT_CT = DatasetOptions(), CtOptions()


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    arguments = _parser().parse_args(words)
    try:
        options = _options(arguments)
        return _run(arguments.out_dir, arguments.labels, options)
    except BidsQsmError as error:
        print(f"bids-qsm-phantom: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_status


def _run(out_dir: Path, labels_file: Path | None, options: DatasetOptions) -> int:
    from bids_qsm.images import load_image
    from bids_qsm.phantom.anatomy import canonical, default_labels
    from bids_qsm.phantom.dataset import write_dataset
    from bids_qsm.phantom.surroundings import fill_gaps

    if labels_file:
        image = canonical(load_image(labels_file, "int16"))
        labels = image.like(fill_gaps(image.data, min(image.geometry.voxel_mm)))
    else:
        labels = default_labels()
    for warning in write_dataset(out_dir, labels, options):
        print(f"warning: {warning}", file=sys.stderr)  # noqa: T201
    return 0


def _options(arguments: argparse.Namespace) -> DatasetOptions:
    te_s = tuple(arguments.echo_times)
    for wrong, sentence in (
        (list(te_s) != sorted(set(te_s)) or te_s[0] <= 0, "echo times must be positive and grow"),
        (te_s[-1] >= 1, "echo times must be in seconds"),
        (min(arguments.voxel) <= 0 or arguments.anatomy_voxel <= 0, "voxel sizes must be positive"),
        (min(arguments.ct_voxel) <= 0, "voxel sizes of the CT must be positive"),
        (arguments.ct and arguments.no_t1w, "--ct needs a T1w image: its truth is in that's world"),
        (arguments.snr <= 0, "the SNR must be positive"),
        (not 0 <= arguments.cavernomas <= 9, "there are 0 to 9 cavernomas"),
        (arguments.b0 <= 0, "the field strength must be positive"),
        (
            min(arguments.participants, arguments.sessions, arguments.first) < 1,
            "numbers start at 1",
        ),
        (not 0 <= arguments.rims <= 1, "the share of lesions with a rim must be 0 to 1"),
    ):
        if wrong:
            raise CommandLineError(f"{sentence}.")
    return DatasetOptions(
        participants=arguments.participants,
        sessions=arguments.sessions,
        first=arguments.first,
        voxel_mm=tuple(arguments.voxel),
        anatomy_voxel_mm=arguments.anatomy_voxel,
        te_s=te_s,
        b0_t=arguments.b0,
        snr=arguments.snr,
        tilt_deg=arguments.tilt,
        group=arguments.group,
        lesions=arguments.lesions,
        rims=arguments.rims,
        microbleeds=arguments.microbleeds,
        calcifications=arguments.calcifications,
        deformation_mm=arguments.deformation,
        cavernomas=arguments.cavernomas,
        growth_percent=arguments.growth,
        vendor=arguments.vendor,
        stacked=arguments.stacked,
        has_t1w=not arguments.no_t1w,
        has_flair=not arguments.no_flair,
        ct=_ct_options(arguments) if arguments.ct else None,
        mask_air=arguments.mask_air,
        breakage=getattr(arguments, "break"),
        seed=arguments.seed,
    )


def _ct_options(arguments: argparse.Namespace) -> CtOptions:
    from bids_qsm.numerics.lead_models import lead_model

    try:
        model = lead_model(arguments.leads).name
    except ValueError as error:
        raise CommandLineError(f"--leads: {error}") from None
    return CtOptions(
        voxel_mm=tuple(arguments.ct_voxel),
        model=model,
        sides=arguments.lead_sides.removeprefix("none"),
        target=arguments.lead_target,
        bend_mm=arguments.lead_bend,
        brain_shift_mm=arguments.brain_shift,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bids-qsm-phantom",
        description="Make a BIDS dataset of simulated heads: multi-echo gradient echo with "
        "magnitude and phase, T1w and FLAIR. The true maps are in derivatives/truth.",
        epilog="Runs with the same seed give the same bytes. A folder may be added to: "
        "give --first. Exit status: 0 done; 2 wrong words; 66 the label map cannot be read; "
        "73 the folder cannot be written.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=bids_qsm.__version__)
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="the dataset's folder")
    _add_head_words(parser.add_argument_group("heads"))
    _add_scan_words(parser.add_argument_group("scans"))
    _add_ct_words(parser.add_argument_group("CT after deep brain stimulation's leads were put in"))
    return parser


def _add_head_words(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--labels", type=Path, metavar="FILE", help="whole-head label map (FreeSurfer's ids; 500 "
        "to 599 outside the brain; 0 is air) instead of the default anatomy")  # fmt: skip
    add("--participants", type=int, default=DEFAULT.participants, metavar="N", help="how many")
    add("--first", type=int, default=DEFAULT.first, metavar="N", help="number of the first one")
    add("--sessions", type=int, default=DEFAULT.sessions, metavar="N",
        help="sessions for each; the head lies a little differently in each")  # fmt: skip
    add("--group", choices=GROUPS, default=DEFAULT.group,
        help="patients have more iron in their deep nuclei")  # fmt: skip
    add("--lesions", type=int, default=DEFAULT.lesions, metavar="N",
        help="white-matter lesions of each participant")  # fmt: skip
    add("--rims", type=float, default=DEFAULT.rims, metavar="SHARE",
        help="share (0 to 1) of these lesions that have a paramagnetic rim")  # fmt: skip
    add("--microbleeds", type=int, default=DEFAULT.microbleeds, metavar="N",
        help="microbleeds of each participant")  # fmt: skip
    add("--calcifications", type=int, default=DEFAULT.calcifications, metavar="N",
        help="calcifications of each participant")  # fmt: skip
    add("--cavernomas", type=int, default=DEFAULT.cavernomas, metavar="N",
        help="cavernous malformations of each participant, 9 at most; sessions are then a year "
        "apart")  # fmt: skip
    add("--growth", type=float, default=DEFAULT.growth_percent, metavar="PERCENT",
        help="what every second cavernoma, the first included, gains in susceptibility "
        "a year")  # fmt: skip
    add("--deformation", type=float, default=DEFAULT.deformation_mm, metavar="MM",
        help="standard deviation of the random deformation that makes heads differ")  # fmt: skip
    add("--seed", type=int, default=DEFAULT.seed, metavar="N", help="of all that is random")


def _add_scan_words(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--voxel", type=float, nargs=3, default=DEFAULT.voxel_mm, metavar=("X", "Y", "Z"),
        help="voxel size of the multi-echo series in mm")  # fmt: skip
    add("--anatomy-voxel", type=float, default=DEFAULT.anatomy_voxel_mm, metavar="MM",
        help="voxel size of T1w and FLAIR")  # fmt: skip
    add("--echo-times", type=float, nargs="+", default=DEFAULT.te_s, metavar="S",
        help="echo times in seconds")  # fmt: skip
    add("--b0", type=float, default=DEFAULT.b0_t, metavar="T", help="field strength in tesla")
    add("--snr", type=float, default=DEFAULT.snr, metavar="RATIO",
        help="mean brain magnitude at the first echo over the noise's SD")  # fmt: skip
    add("--tilt", type=float, default=DEFAULT.tilt_deg, metavar="DEG",
        help="angle of the slices to the scanner's transverse plane")  # fmt: skip
    add("--vendor", choices=VENDORS, default=DEFAULT.vendor,
        help="how phase is stored: radians (float), siemens (0 to 4095), siemens-signed (-4096 to "
        "4094), philips (slope and intercept), ge (real and imaginary, sign changing from slice "
        "to slice)")  # fmt: skip
    add("--stacked", action="store_true", help="all echoes in one 4D file (suffix T2starw)")
    add("--mask-air", action="store_true", help="store 0 where there is hardly any signal")
    add("--no-t1w", action="store_true", help="no T1w image")
    add("--no-flair", action="store_true", help="no FLAIR image")
    add("--break", choices=BREAKAGES, metavar="KIND",
        help=f"fault of the last participant's series: {', '.join(BREAKAGES)}")  # fmt: skip


def _add_ct_words(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--ct", action="store_true", help="a CT of each session, with leads, in its folder 'ct'")
    add("--ct-voxel", type=float, nargs=3, default=DEFAULT_CT.voxel_mm, metavar=("X", "Y", "Z"),
        help="voxel size of the CT in mm")  # fmt: skip
    add("--leads", default=DEFAULT_CT.model, metavar="MODEL",
        help="model of the leads: 3387, 3389, 3391, B33005, B33015, 6172, 6173, DB-2201 or "
        "DB-2202")  # fmt: skip
    add("--lead-sides", choices=LEAD_SIDES, default=DEFAULT_CT.sides, help="where there are leads")
    add("--lead-target", choices=LEAD_TARGETS, default=DEFAULT_CT.target,
        help="where their second contact lies")  # fmt: skip
    add("--lead-bend", type=float, default=DEFAULT_CT.bend_mm, metavar="MM",
        help="how far the leads bow out")  # fmt: skip
    add("--brain-shift", type=float, default=DEFAULT_CT.brain_shift_mm, metavar="MM",
        help="how far the forehead's brain has sunk back, air before it")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
