"""The tables of the clinical steps as a report shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bids_qsm.report.tables import Cell, Column, Row, Table, number, number_cell


@dataclass(frozen=True)
class Shown:
    """A column of a table: its title, its unit, and its decimals (None for text).

    ``factor`` takes the file's unit to the shown one, as 1000 from ppm to ppb.
    """

    title: str
    unit: str = ""
    digits: int | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class Layout:
    """How a table is shown.

    Attributes
    ----------
    heading : str
        Of the section; tables of one heading stand together.
    title, caption : str
    corner : tuple of (column, title)
        What names the rows.
    columns : mapping of str to Shown
    empty : str
        What is said of a table without rows.
    """

    heading: str
    title: str
    caption: str
    corner: tuple[str, str]
    columns: Mapping[str, Shown]
    empty: str


WORDS = {"n/a": "–", "True": "yes", "False": "no"}
"""How some texts of a table are shown."""

LAYOUTS: Mapping[str, Layout] = {
    "contrast_to_noise": Layout(
        "Hybrid contrast",
        "Contrast-to-noise ratios",
        "Difference of the means of a nucleus and of its neighbour, or of what has no label, in a "
        "shell around it, over the noise: the root of the mean of their variances. The weakest of "
        "the two says how well all of the border is seen. All images are on the T1w image's grid; "
        "means of χ are in ppm, others in the image's units.",
        ("structure", "Nucleus"),
        {
            "hemisphere": Shown("Side"),
            "contrast": Shown("Image"),
            "surround": Shown("Against"),
            "cnr": Shown("CNR", "", 2),
            "mean": Shown("Mean", "", 3),
            "surround_mean": Shown("Mean around", "", 3),
            "n_voxels": Shown("Voxels", "", 0),
        },
        "No nucleus has enough voxels with all images.",
    ),
    "leads": Layout(
        "Leads",
        "Leads in the CT",
        "Tips in the world of the T1w image (RAS). Angles are those of the axis at the contacts to "
        "the vertical, seen from the front (outwards) and from the side (to the front). The radial "
        "error is the distance of the target from the axis; depth is positive where the tip lies "
        "beyond it.",
        ("lead", "Lead"),
        {
            "hemisphere": Shown("Side"),
            "model": Shown("Model"),
            "model_from": Shown("Model is"),
            "tip_x_mm": Shown("Tip, right", "mm", 1),
            "tip_y_mm": Shown("front", "mm", 1),
            "tip_z_mm": Shown("top", "mm", 1),
            "coronal_deg": Shown("Outwards", "°", 0),
            "sagittal_deg": Shown("Front", "°", 0),
            "length_mm": Shown("Length", "mm", 0),
            "bend_mm": Shown("Bend", "mm", 1),
            "target": Shown("Target"),
            "radial_error_mm": Shown("Radial error", "mm", 1),
            "depth_error_mm": Shown("Depth", "mm", 1),
        },
        "No lead was found in the CT.",
    ),
    "contacts": Layout(
        "Leads",
        "Contacts",
        "Middles of the contacts, 0 being the lowest, in the world of the T1w image and in MNI "
        "space; a distance to a nucleus' surface is negative within it.",
        ("lead", "Lead"),
        {
            "hemisphere": Shown("Side"),
            "contact": Shown("Contact"),
            "x_mm": Shown("Right", "mm", 1),
            "y_mm": Shown("Front", "mm", 1),
            "z_mm": Shown("Top", "mm", 1),
            "mni_x_mm": Shown("MNI x", "mm", 1),
            "mni_y_mm": Shown("y", "mm", 1),
            "mni_z_mm": Shown("z", "mm", 1),
            "atlas": Shown("Atlas"),
            "name": Shown("Lies in"),
            "nearest": Shown("Nearest"),
            "nearest_mm": Shown("Distance", "mm", 1),
        },
        "There are no contacts.",
    ),
    "trajectories": Layout(
        "Trajectories",
        "Structures along each trajectory",
        "Entry and exit are distances to the target along the line, positive before it. SD and "
        "95 % interval of the span hold the doubt of the line's place and of the structure's "
        "borders; the chance is that of meeting the structure at all.",
        ("trajectory", "Trajectory"),
        {
            "name": Shown("Structure"),
            "entry_mm": Shown("Entry", "mm", 1),
            "exit_mm": Shown("Exit", "mm", 1),
            "span_mm": Shown("Span", "mm", 1),
            "span_sd_mm": Shown("SD", "mm", 1),
            "span_low_mm": Shown("From", "mm", 1),
            "span_high_mm": Shown("To", "mm", 1),
            "chance": Shown("Chance", "%", 0, 100.0),
            "chi_ppm_mean": Shown("χ", "ppb", 0, 1000.0),
            "recorded_span_mm": Shown("Recorded", "mm", 1),
            "difference_mm": Shown("Difference", "mm", 1),
        },
        "No trajectory meets a structure.",
    ),
    "microbleeds": Layout(
        "Microbleeds and calcifications",
        "Microbleeds and calcifications",
        "Total susceptibility is the sum of the map over each, less the surroundings: unlike the "
        "size in any image it does not depend on the echo time. By the field: that of a dipole "
        "which fits the field around it. The confidence was calibrated on simulated heads. For "
        "research: a reader should look at each.",
        ("index", "Number"),
        {
            "kind": Shown("Kind"),
            "confidence": Shown("Confidence", "%", 0, 100.0),
            "moment_ppm_mm3": Shown("Total χ", "ppm mm³", 1),
            "dipole_ppm_mm3": Shown("by the field", "ppm mm³", 1),
            "peak_ppm": Shown("Peak of χ", "ppm", 2),
            "diameter_mm": Shown("Diameter", "mm", 1),
            "r2star_per_s": Shown("R2*", "1/s", 0),
            "region": Shown("Region"),
            "lobe": Shown("Lobe"),
            "structure": Shown("Structure"),
            "usual_place": Shown("Usual place"),
            "x_mm": Shown("Right", "mm", 1),
            "y_mm": Shown("Front", "mm", 1),
            "z_mm": Shown("Top", "mm", 1),
        },
        "No microbleed and no calcification was found.",
    ),
    "rims": Layout(
        "Paramagnetic rims",
        "Susceptibility along the lesions' borders",
        "Rim: a shell along the border, as FLAIR shows it, where it is brightest; outside: 2 to "
        "5 mm from it. Lesions that are too small have no score.",
        ("index", "Lesion"),
        {
            "score": Shown("Score", "", 2),
            "has_rim": Shown("Rim"),
            "coverage": Shown("Coverage", "%", 0, 100.0),
            "rim_to_core_ppm": Shown("Rim − core", "ppb", 0, 1000.0),
            "rim_to_outside_ppm": Shown("Rim − outside", "ppb", 0, 1000.0),
            "core_type": Shown("Core"),
            "volume_mm3": Shown("Volume", "mm³", 0),
            "location": Shown("Location"),
            "lobe": Shown("Lobe"),
        },
        "There is no lesion.",
    ),
    "tracked_lesions": Layout(
        "Lesion tracking",
        "Lesions of this session",
        "As this session alone has them, the largest first; mean ± SD is over the lesion's voxels. "
        "What becomes of them over the sessions stands below all series.",
        ("index", "Lesion"),
        {
            "volume_mm3": Shown("Volume", "mm³", 0),
            "x_mm": Shown("Right", "mm", 1),
            "y_mm": Shown("Front", "mm", 1),
            "z_mm": Shown("Top", "mm", 1),
            "chi_ppm_mean": Shown("χ", "ppb", 0, 1000.0),
            "chi_ppm_sd": Shown("SD of χ", "ppb", 0, 1000.0),
            "r2star_per_s_mean": Shown("R2*", "1/s", 0),
        },
        "There is no lesion to follow in this session.",
    ),
    "tracking": Layout(
        "Lesion tracking",
        "",
        "Each lesion in the same region in all sessions; χ is measured in each session's own map. "
        "Changes are since the session before.",
        ("lesion", "Lesion"),
        {
            "session_id": Shown("Session"),
            "state": Shown("State"),
            "years": Shown("Time", "years", 2),
            "chi_ppm_mean": Shown("χ", "ppb", 0, 1000.0),
            "change_percent": Shown("Change", "%", 1),
            "change_percent_per_year": Shown("A year", "%", 1),
            "exceeds_threshold": Shown("Threshold reached"),
            "own_volume_mm3": Shown("Volume", "mm³", 0),
            "chi_ppm_p99": Shown("Peak of χ", "ppb", 0, 1000.0),
            "moment_ppm_mm3": Shown("Moment", "ppm mm³", 1),
            "r2star_per_s_mean": Shown("R2*", "1/s", 0),
        },
        "No lesion was found in any session.",
    ),
}
"""By the tables' rows of :data:`bids_qsm.bids.naming.OUTPUTS`, in the order of the report."""


def clinical_table(layout: Layout, rows: list[dict[str, str]]) -> Table:
    """Lay out the rows of a clinical table, in their order.

    Raises
    ------
    ValueError
        If a value is no number.
    """
    columns = tuple(
        Column(shown.title, shown.unit, is_text=shown.digits is None)
        for shown in layout.columns.values()
    )
    return Table(layout.corner[1], columns, tuple(_row(layout, row) for row in rows))


def _row(layout: Layout, row: dict[str, str]) -> Row:
    cells = tuple(
        Cell(WORDS.get(row[name], row[name]))
        if shown.digits is None
        else number_cell(shown.factor * number(row, name), shown.digits)
        for name, shown in layout.columns.items()
    )
    return Row(row[layout.corner[0]], tuple((cell,) for cell in cells))
