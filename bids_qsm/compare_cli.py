"""``bids-qsm compare``: words in, a table of two segmentations' agreement out.

Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bids_qsm.errors import BidsQsmError, CommandLineError, UnreadableInputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from bids_qsm.images import Image

DESCRIPTION = """\
Agreement of two segmentations, label by label: Jaccard and Dice overlap, 95th-percentile Hausdorff
distance, average symmetric surface distance, volumes. Label images of any tool will do."""

EXIT_STATUS = """\
exit status: 0 done; 2 bad command line; 66 a file cannot be read; 73 the table cannot be written"""

SHOWN = {
    "jaccard": ("Jaccard", "{:.3f}"),
    "dice": ("Dice", "{:.3f}"),
    "hausdorff95_mm": ("Hausdorff 95\n(mm)", "{:.2f}"),
    "surface_distance_mm": ("surface\n(mm)", "{:.2f}"),
    "volume_a_ml": ("volume A\n(mL)", "{:.3f}"),
    "volume_b_ml": ("volume B\n(mL)", "{:.3f}"),
    "volume_difference_ml": ("B − A\n(mL)", "{:+.3f}"),
    "volume_difference_percent": ("B − A\n(%)", "{:+.1f}"),
}
"""Heading and format of each column of the printed table."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    a = _parser().parse_args(words)
    try:
        return _run(a)
    except BidsQsmError as error:
        print(f"bids-qsm compare: {error}", file=sys.stderr)  # noqa: T201 - the shell's own words
        return error.exit_status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bids-qsm compare",
        description=DESCRIPTION,
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("seg_a", type=Path, metavar="SEG_A", help="label image (NIfTI); its grid and names count")
    add("seg_b", type=Path, metavar="SEG_B", help="the other one; resampled if its grid differs")
    add("--labels", action="append", default=[], metavar="LABEL[,LABEL...]",
        help="only these labels of SEG_A, by number or name; a name without its side takes both "
        "sides (default: all that either image has)")  # fmt: skip
    add("--names", type=Path, metavar="TSV",
        help="table of the labels of SEG_A with the columns index and name (default: <stem>.tsv "
        "beside it, or the atlas-*_dseg.tsv of its dataset)")  # fmt: skip
    add("--map", dest="pairs", action="append", default=[], metavar="A=B[,A=B...]",
        help="the number A in SEG_A stands for what is B in SEG_B; only the labels that are "
        "paired are compared; several B may have one A")  # fmt: skip
    add("--merge-sides", action="store_true",
        help="take left and right of a structure, which the names tell, as one")  # fmt: skip
    add("--tsv", type=Path, metavar="FILE", help="write the table to this file")
    return parser


def _run(a: argparse.Namespace) -> int:
    import pandas as pd

    from bids_qsm.bids.publishing import encode_table, write_text
    from bids_qsm.images import voxel_sizes_mm
    from bids_qsm.numerics.agreement import agreement

    first, second = _load_labels(a.seg_a), _load_labels(a.seg_b)
    second, notes = _on_the_grid(first, second, a.seg_a, a.seg_b)
    table_path = a.names or _names_beside(a.seg_a)
    names = {} if table_path is None else _read_names(table_path)
    if a.names is None and table_path is not None:
        notes.append(f"The names are those of {table_path}.")
    pairs = _pairs(a.pairs)
    present = sorted(
        {int(i) for image in (first, second) for i in pd.unique(image.data.ravel())} - {0}
    )
    numbers = {label: label for label in (*present, *pairs.values())}
    if a.merge_sides:
        numbers, names = _merged_sides(names, list(numbers), a.seg_a)
    numbers_b = {b: numbers[label] for b, label in pairs.items()} or numbers
    index = sorted({numbers[label] for label in (pairs.values() or present)})
    if a.labels:
        index = list(dict.fromkeys(numbers.get(i, i) for i in _wanted(a.labels, names)))
    if not index:
        raise UnreadableInputError(f"{a.seg_a}, {a.seg_b}: there is no label in either of them.")
    result = agreement(
        _renumbered(first.data, numbers),
        _renumbered(second.data, numbers_b),
        index,
        voxel_sizes_mm(first.affine),
    )
    result.insert(1, "name", [names.get(label, "n/a") for label in index])
    if a.tsv is not None:
        write_text(a.tsv, encode_table(result))
    for note in notes:
        print(f"note: {note}", file=sys.stderr)  # noqa: T201
    _show(result)
    return 0


def _load_labels(path: Path) -> Image:
    """Read a label image: whole numbers, 3D."""
    import numpy as np

    from bids_qsm.images import Image, load_image

    image = load_image(path, np.float64)
    data = image.data[..., 0] if image.data.shape[3:] == (1,) else image.data
    if data.ndim != 3:
        raise UnreadableInputError(
            f"{path}: a 3D label image is needed, got the shape {image.data.shape}."
        )
    if not np.isfinite(data).all() or (data != np.rint(data)).any():
        raise UnreadableInputError(
            f"{path}: its values are not whole numbers; give labels, not probabilities or a map."
        )
    return Image(data.astype(np.int32), image.affine)


def _on_the_grid(a: Image, b: Image, path_a: Path, path_b: Path) -> tuple[Image, list[str]]:
    """Return the second image on the grid of the first, and what has to be said of it."""
    import numpy as np

    from bids_qsm.anatomy.grids import labels_on_grid
    from bids_qsm.images import voxel_sizes_mm

    # a difference that moves no voxel of the image by more than a hundredth of its size
    far = np.abs((a.affine - b.affine)[:3] @ [*a.shape, 1.0]).max()
    if a.shape == b.shape and far < 0.01 * min(voxel_sizes_mm(a.affine)):
        return b, []
    to_a = np.linalg.inv(a.affine) @ b.affine
    labelled = np.argwhere(b.data)
    if labelled.size == 0:
        labelled = np.argwhere(np.ones((2, 2, 2))) * (np.array(b.shape) - 1)
    place = np.rint(labelled @ to_a[:3, :3].T + to_a[:3, 3])
    inside = ((place >= 0) & (place < a.shape)).all(axis=1).mean()
    if not inside:
        raise UnreadableInputError(
            f"{path_a}, {path_b}: they do not overlap in space; register one to the other first."
        )
    notes = [
        f"{path_b} has another grid: it was brought to that of {path_a}, "
        "each voxel to the label with its largest share."
    ]
    if inside < 1 and b.data.any():
        lost = 100 * (1 - inside)
        notes.append(f"{lost:.2g} % of the labelled voxels of {path_b} lie beyond {path_a}.")
    return labels_on_grid(b, a), notes


def _names_beside(path: Path) -> Path | None:
    """Return the table of names that lies beside a label image, or above it in its dataset."""
    stem = re.sub(r"\.nii(\.gz)?$", "", path.name)
    own = path.with_name(f"{stem}.tsv")
    if own.is_file():
        return own
    entity = re.search(r"_((?:atlas|seg)-[A-Za-z0-9]+)_", stem)
    folder = path.absolute().parent
    if entity is not None:
        for place in (folder, *folder.parents[:3]):
            if (table := place / f"{entity[1]}_dseg.tsv").is_file():
                return table
    tables = sorted(folder.glob("atlas-*_dseg.tsv"))
    return tables[0] if len(tables) == 1 else None


def _read_names(path: Path) -> dict[int, str]:
    import pandas as pd

    try:
        table = pd.read_csv(path, sep="\t")
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UnreadableInputError(f"{path}: the table cannot be read ({error}).") from error
    if not {"index", "name"} <= set(table) or not pd.api.types.is_integer_dtype(table["index"]):
        raise UnreadableInputError(
            f"{path}: the table needs the columns index (whole numbers) and name, separated by "
            "tabs."
        )
    return dict(zip(table["index"].tolist(), table["name"].astype(str), strict=True))


def _pairs(words: Sequence[str]) -> dict[int, int]:
    """Return what each number of SEG_B is in SEG_A."""
    pairs: dict[int, int] = {}
    for word in _split(words):
        match = re.fullmatch(r"(\d+)=(\d+)", word)
        if match is None or not int(match[1]) or not int(match[2]):
            raise CommandLineError(f"--map {word!r}: write it as A=B, two label numbers.")
        a, b = int(match[1]), int(match[2])
        if pairs.setdefault(b, a) != a:
            raise CommandLineError(f"--map: the label {b} of SEG_B is paired twice.")
    return pairs


def _split(words: Sequence[str]) -> list[str]:
    return [part.strip() for word in words for part in word.split(",") if part.strip()]


def _renumbered(data: NDArray[np.int32], numbers: dict[int, int]) -> NDArray[np.int32]:
    """Return the labels under their new numbers; those that have none become 0."""
    import numpy as np
    import pandas as pd

    place, present = pd.factorize(data.ravel())
    new = np.array([numbers.get(int(label), 0) for label in present], np.int32)
    return new[place].reshape(data.shape)


def _merged_sides(
    names: dict[int, str], index: Sequence[int], path: Path
) -> tuple[dict[int, int], dict[int, str]]:
    """Return the number that each label is merged into, and the names without their sides."""
    if not names:
        raise CommandLineError(
            f"--merge-sides: there is no table of names beside {path}; give one with --names."
        )
    first: dict[str, int] = {}
    numbers = {}
    for label in sorted({*names, *index}):
        name = _without_side(names[label]) if label in names else f"{label}"
        numbers[label] = first.setdefault(name.lower(), label)
    kept = {label: _without_side(names[label]) for label in numbers.values() if label in names}
    return numbers, kept


def _without_side(name: str) -> str:
    """Return a structure's name without left or right, at its start or its end."""
    bare = re.sub(r"^(left|right|lh|rh|l|r)[ _.-]+", "", name, flags=re.IGNORECASE)
    return re.sub(r"[ _.-]+(left|right|lh|rh|l|r)$", "", bare, flags=re.IGNORECASE)


def _wanted(words: Sequence[str], names: dict[int, str]) -> list[int]:
    """Return the numbers of the labels that the user names, in the user's order."""
    index: list[int] = []
    for word in _split(words):
        if word.isdecimal():
            found = [int(word)]
        else:
            key = word.lower()
            found = [i for i, name in names.items() if name.lower() == key]
            found = found or [i for i, n in names.items() if _without_side(n).lower() == key]
        if not found:
            known = ", ".join(names.values()) or "no names; give them with --names"
            raise CommandLineError(f"--labels {word!r}: there is no such label; known: {known}.")
        index += found
    return list(dict.fromkeys(index))


def _show(result: pd.DataFrame) -> None:
    """Print the table, and the means below it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has no edge
    table = Table(box=box.SIMPLE, show_footer=len(result) > 1)
    table.add_column("label", justify="right", no_wrap=True)
    table.add_column("name", footer="mean", overflow="fold")
    for column, (heading, form) in SHOWN.items():
        mean = "" if column.startswith("volume_") else _cell(result[column].mean(), form)
        table.add_column(heading, justify="right", no_wrap=True, footer=mean)
    for row in result.to_dict("records"):
        cells = [_cell(row[column], form) for column, (_, form) in SHOWN.items()]
        table.add_row(str(row["index"]), row["name"], *cells)
    console.print(table)


def _cell(value: float, form: str) -> str:
    return "n/a" if value != value else form.format(value).replace("-", "−")
