"""The command line: words in, :class:`Settings` out.  Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bids_qsm import __version__
from bids_qsm.errors import BidsQsmError, CommandLineError, printable
from bids_qsm.execution.environment import prepare_environment
from bids_qsm.execution.local import start_worker
from bids_qsm.limits import available_cpus
from bids_qsm.presets import PRESETS
from bids_qsm.settings import (
    EXTRA_STEPS,
    OUTPUT_SPACES,
    REFERENCES,
    Settings,
    processing_from,
    read_processing,
)

DESCRIPTION = """\
R2* and susceptibility maps, deep-grey labels, tables and a report from a BIDS dataset with
multi-echo gradient-echo runs (magnitude and phase) and, where there are some, T1w images.

'bids-qsm atlas -h' lists, checks, imports and builds atlases; 'bids-qsm compare -h' compares two
segmentations; 'bids-qsm cluster-scripts -h' writes scripts for SLURM and Snakemake."""

EXIT_STATUS = """\
exit status:
  0   all done                      18  nothing matches the filters
  1   something failed              66  an input cannot be read
  2   bad command line              73  an output cannot be written
  16  not a BIDS dataset"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="bids-qsm",
        description=DESCRIPTION,
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("bids_dir", type=Path, help="folder of the BIDS dataset (only read)")
    top.add_argument("output_dir", type=Path, help="folder for the derivatives")
    top.add_argument(
        "level",
        choices=("participant", "group"),
        help="participant: maps, labels, tables and a report for each subject; "
        "group: tables over all subjects, comparisons, voxel-wise maps, and their page",
    )
    top.add_argument("--version", action="version", version=f"bids-qsm {__version__}")
    _add_selection(top.add_argument_group("what to process"))
    _add_methods(top.add_argument_group("how to process it"))
    _add_group_level(top.add_argument_group("group level"))
    _add_resources(top.add_argument_group("resources"))
    _add_behaviour(top.add_argument_group("behaviour"))
    return top


def _add_selection(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--participant-label",
        "--participant_label",
        nargs="+",
        default=(),
        metavar="LABEL",
        help="only these subjects, with or without 'sub-'",
    )
    group.add_argument(
        "--session-label",
        nargs="+",
        default=(),
        metavar="LABEL",
        help="only these sessions, with or without 'ses-'",
    )
    group.add_argument(
        "--bids-filter-file",
        type=Path,
        metavar="FILE",
        help='JSON with pybids filters for each input: {"megre": {"acquisition": "hires"}, '
        '"t1w": {...}, "flair": {...}}',
    )
    group.add_argument(
        "-d",
        "--derivatives",
        nargs="+",
        default=(),
        metavar="NAME=PATH",
        help="derivatives to use; mask=PATH: brain masks (sub-X..._label-brain_mask.nii.gz) "
        "that replace the automatic ones; lesions=PATH: lesion masks "
        "(sub-X..._label-lesion_mask.nii.gz, on the grid of the T1w or FLAIR image) that do so "
        "too; lesion-points=PATH: points (sub-X..._points.tsv, columns x, y, z in mm of the T1w "
        "image) from which lesions are grown in the FLAIR image; freesurfer=PATH: a FreeSurfer "
        "derivative, whose volumes and thickness join the table; r2map=PATH: R2 maps "
        "(sub-X..._R2map.nii.gz, 1/s, on the grid of the series) for '--with separation'; ct=PATH: "
        "CTs after leads for deep brain stimulation were put in (sub-X..._ct.nii.gz, HU; else "
        "those in the dataset's sub-X/ct/) for '--with dbs'; targets=PATH: targets that the leads "
        "are compared with (sub-X..._targets.tsv, columns hemisphere, x_mm, y_mm, z_mm, and name "
        "if wanted; RAS, in the world of the T1w image); "
        "trajectories=PATH: trajectories of electrodes (sub-X..._trajectories.tsv or .csv, columns "
        "name, entry_x_mm, entry_y_mm, entry_z_mm, target_x_mm, target_y_mm, target_z_mm, RAS, in "
        "the world of the T1w image; if wanted recorded_entry_mm and recorded_exit_mm, or "
        "recorded_span_mm, and structure: what was recorded along them) for '--with dbs'; "
        "tracked-lesions=PATH: lesions to follow over the sessions "
        "(sub-X[_ses-Y]..._label-lesion_mask.nii.gz, or labels ..._dseg.nii.gz, on the grid of the "
        "series or of the T1w image; one session is enough), in the place of those found by "
        "'--with lesion-tracking'",
    )
    group.add_argument(
        "--bids-database-dir",
        type=Path,
        metavar="DIR",
        help="keep the dataset's index here and use it again (default: index what is asked for)",
    )
    group.add_argument(
        "--skip-bids-validation",
        action="store_true",
        help="take a dataset with no dataset_description.json",
    )


def _add_methods(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--output-spaces",
        nargs="+",
        default=OUTPUT_SPACES,
        metavar="SPACE",
        choices=OUTPUT_SPACES,
        help=f"spaces of maps and labels, of: {', '.join(OUTPUT_SPACES)} (default: all)",
    )
    group.add_argument(
        "--atlas",
        action="append",
        default=[],
        metavar="NAME|PATH",
        help="atlas of the structures; may be given several times: 'default', a name of "
        "'bids-qsm atlas list', a folder (docs/atlases.md), or a label image (NIfTI in "
        "MNI152NLin2009cAsym) with its look-up table beside it (.tsv)",
    )
    group.add_argument(
        "--reference",
        metavar="REGION",
        help=f"what susceptibility is relative to: {', '.join(REFERENCES)}, or a structure's name "
        "(default: auto, which is CSF of the lateral ventricles, or the whole brain without a T1w)",
    )
    group.add_argument(
        "--with",
        dest="extra_steps",
        action="append",
        default=[],
        metavar="STEP[,STEP...]",
        help=f"further steps, of: {', '.join(EXTRA_STEPS)} (default: none)",
    )
    group.add_argument(
        "--preset",
        metavar="NAME",
        help=f"methods and options by one name, of: {', '.join(PRESETS)} (default: the settings "
        "file's, else default)",
    )
    group.add_argument(
        "--config-file",
        type=Path,
        metavar="FILE",
        help="TOML file with the method and options of each step (see docs/settings.md); it "
        "changes single entries of the preset",
    )


def _add_group_level(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model",
        type=Path,
        metavar="FILE",
        help="TOML file with the analyses to make (see docs/models.md); default: two groups of "
        "participants.tsv are compared by structure and by voxel",
    )
    group.add_argument(
        "--rescan",
        nargs=2,
        default=(),
        metavar="SESSION",
        help="two sessions without a change in between: adds the reliability of repeated scans",
    )
    group.add_argument(
        "--exclude",
        type=Path,
        metavar="FILE",
        help="TSV file of scans to leave out (participant_id, and if wanted session_id, series, "
        "exclude, reasons); group_exclusions.tsv proposes one, and is not read by itself",
    )


def _add_resources(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="folder for intermediate results; those that took long are kept "
        "(default: a hidden folder in the output folder, removed when all went well)",
    )
    group.add_argument(
        "--nprocs", type=_positive, metavar="N", help="cores to use in all (default: all)"
    )
    group.add_argument(
        "--omp-nthreads",
        type=_positive,
        metavar="N",
        help="threads of each process (default: all cores for one series, fewer for several)",
    )
    group.add_argument(
        "--mem-gb",
        type=float,
        metavar="GB",
        help="memory to use in all (default: what is free); limits how many run at once",
    )
    group.add_argument(
        "--executor",
        type=_executor,
        default="local",
        metavar="WHERE",
        help="where series are processed: 'local', or 'dask:' and the address or file of a Dask "
        "scheduler, on whose workers --omp-nthreads (default: 1) counts and --nprocs does not "
        "(default: local)",
    )


def _add_behaviour(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--dry-run", action="store_true", help="say what would be processed, and stop"
    )
    group.add_argument(
        "--reports-only", action="store_true", help="make the pages anew from finished outputs"
    )
    group.add_argument(
        "--boilerplate-only",
        action="store_true",
        help="print the methods text for these settings, and stop",
    )
    group.add_argument(
        "--stop-on-first-crash",
        action="store_true",
        help="start no further series once one has failed",
    )
    group.add_argument(
        "--random-seed",
        type=_positive,
        default=1,
        metavar="N",
        help="seed of the registrations, from 1 (default: 1)",
    )
    group.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="say more (-v: how long each step took; -vv: everything)",
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _executor(text: str) -> str:
    kind, _, where = text.partition(":")
    if text != "local" and (kind != "dask" or not where):
        raise argparse.ArgumentTypeError(f"{text!r}: write 'local' or 'dask:ADDRESS|FILE'")
    return text


def settings_from(words: Sequence[str] | None = None) -> Settings:
    """Return the settings that the command line asks for.

    Raises
    ------
    CommandLineError
        If an argument makes no sense; ``SystemExit`` (2) where argparse finds it first.
    """
    a = parser().parse_args(words)
    if a.level != "group" and (a.model or a.rescan or a.exclude):
        raise CommandLineError("--model, --rescan and --exclude are for the group level.")
    if a.level != "participant" and a.executor != "local":
        raise CommandLineError("--executor is for the participant level.")
    if a.config_file is None:
        processing = processing_from({}, a.preset)
    else:
        processing = read_processing(a.config_file, a.preset)
    if a.reference is not None:
        processing = dataclasses.replace(processing, reference=a.reference)
    return Settings(
        bids_dir=a.bids_dir.absolute(),
        output_dir=a.output_dir.absolute(),
        level=a.level,
        participant_labels=_labels("sub-", a.participant_label),
        session_labels=_labels("ses-", a.session_label),
        bids_filter_file=a.bids_filter_file,
        derivatives=dict(_named_path(word) for word in a.derivatives),
        bids_database_dir=a.bids_database_dir,
        skip_bids_validation=a.skip_bids_validation,
        work_dir=None if a.work_dir is None else a.work_dir.absolute(),
        nprocs=a.nprocs or available_cpus(),
        omp_nthreads=a.omp_nthreads,
        mem_gb=a.mem_gb,
        executor=a.executor,
        output_spaces=tuple(a.output_spaces),
        extra_steps=_extra_steps(a.extra_steps),
        atlases=tuple(dict.fromkeys(a.atlas)) or ("default",),
        reports_only=a.reports_only,
        boilerplate_only=a.boilerplate_only,
        dry_run=a.dry_run,
        stop_on_first_crash=a.stop_on_first_crash,
        random_seed=a.random_seed,
        verbosity=a.verbose,
        processing=processing,
        models_file=None if a.model is None else a.model.absolute(),
        rescan=tuple(f"ses-{label.removeprefix('ses-')}" for label in a.rescan),
        exclude_file=None if a.exclude is None else a.exclude.absolute(),
    )


def _labels(prefix: str, labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted({label.removeprefix(prefix) for label in labels}))


def _extra_steps(words: Sequence[str]) -> tuple[str, ...]:
    """Return the steps that are asked for, each once, in the order in which they are known."""
    asked = {step.strip() for word in words for step in word.split(",")}
    for step in sorted(asked - set(EXTRA_STEPS)):
        raise CommandLineError(
            f"--with {step!r}: there is no such step; known: {', '.join(EXTRA_STEPS)}."
        )
    return tuple(step for step in EXTRA_STEPS if step in asked)


def _named_path(word: str) -> tuple[str, Path]:
    name, separator, path = word.partition("=")
    if not separator or not name or not path:
        raise CommandLineError(f"--derivatives {word!r}: write it as NAME=PATH.")
    return name, Path(path).absolute()


def _run_participants(settings: Settings) -> int:
    """Run the participant level.

    The first process of the processing starts now, so that its imports and ours are made side by
    side.
    """
    quick = settings.dry_run or settings.reports_only or settings.boilerplate_only
    elsewhere = settings.executor != "local"
    worker = None if quick or elsewhere else start_worker(_prepare_worker, settings)
    try:
        from bids_qsm.dispatch import run

        return run(settings, worker)
    finally:
        if worker is not None:
            worker.dismiss()


def _run_group(settings: Settings) -> int:
    """Run the group level; a second run on the same output folder waits for the first."""
    from bids_qsm.execution.locks import held
    from bids_qsm.group import run

    if settings.dry_run or not settings.output_dir.is_dir():
        return run(settings)
    with held(settings.output_dir, "group", lambda text: print(text, file=sys.stderr)):  # noqa: T201
        return run(settings)


def _prepare_worker(settings: Settings, begin: Callable[[], None]) -> None:
    from bids_qsm.dispatch import prepare_worker

    prepare_worker(settings, begin)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    words = sys.argv[1:] if words is None else words
    try:
        if words[:1] == ["compare"]:
            from bids_qsm.compare_cli import main as compare

            return compare(words[1:])
        if words[:1] == ["atlas"]:
            from bids_qsm.atlas_cli import main as atlas

            return atlas(words[1:])
        if words[:1] == ["cluster-scripts"]:
            from bids_qsm.cluster_cli import main as cluster_scripts

            return cluster_scripts(words[1:])
        settings = settings_from(words)
        prepare_environment(settings.omp_nthreads or settings.nprocs, settings.random_seed)
        if settings.level == "group":
            return _run_group(settings)
        return _run_participants(settings)
    except BidsQsmError as error:
        said = "\n".join(printable(line) for line in str(error).split("\n"))
        print(f"bids-qsm: {said}", file=sys.stderr)  # noqa: T201 - the shell's own words
        return error.exit_status
    except KeyboardInterrupt:
        print("bids-qsm: interrupted.", file=sys.stderr)  # noqa: T201
        return 130
