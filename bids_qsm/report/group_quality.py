"""The page of the quality of all scans: what stands out, and a strip of each metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from bids_qsm.report.group_page import relative_address
from bids_qsm.report.group_references import GROUP_REFERENCES
from bids_qsm.report.group_strips import ALL_METRICS, Strip, strip
from bids_qsm.report.references import REFERENCES, Reference, cited_keys
from bids_qsm.report.templates import as_html, page_environment, resource

METRIC = ["atlas", "check", "name", "hemisphere"]
MOST_LABEL_STRIPS = 24
"""Of checks of labels, those that find the most; all others are in the table alone."""
DISTANCES = (
    "How far each scan lies from the bulk of the scans of its kind, all metrics of the images "
    "taken together; shaded: within the cutoff."
)


@dataclass(frozen=True)
class QualityText:
    """What the page says besides the values.

    Attributes
    ----------
    version : str
        Of the program.
    group_path, table_path, exclusions_path : str
        The group's page and the tables, relative to the page.
    list_name : str
        The user's list of exclusions; empty where there is none.
    notes : tuple of str
    methods : str
        With citations.
    is_in_use : bool
        Whether the user's list is the proposed one, which then was not written anew.
    """

    version: str
    group_path: str
    table_path: str
    exclusions_path: str
    list_name: str
    notes: tuple[str, ...]
    methods: str
    is_in_use: bool


@dataclass(frozen=True)
class _Group:
    """Strips under one heading."""

    key: str
    heading: str
    lead: str
    strips: tuple[Strip, ...]


def quality_page(metrics: pd.DataFrame, scans: pd.DataFrame, text: QualityText) -> str:
    """Return the HTML page of the quality of all scans.

    Parameters
    ----------
    metrics, scans : DataFrame
        Of :func:`bids_qsm.statistics.scan_quality.judge_scans`; the scans have the columns ``page``
        (of the participant), ``is_excluded`` and ``excluded_for`` (why) too.
    text : QualityText
    """
    scans = scans.assign(number=range(len(scans)))
    own = scans[["series", "number", "page", "is_excluded"]]
    groups = _groups(metrics.merge(own, on="series", how="left", sort=False))
    flagged = scans[scans["is_flagged"] | scans["is_excluded"]]
    flagged = flagged.sort_values(
        ["is_excluded", "is_proposed", "n_out_of_range", "n_failed_labels", "n_outliers"],
        ascending=False,
        kind="stable",
    )
    references: Mapping[str, Reference] = {**REFERENCES, **GROUP_REFERENCES}
    cited = sorted(key for key in cited_keys(text.methods) if key in references)
    environment = page_environment()
    environment.filters.update(relative_address=relative_address)
    return environment.get_template("group_quality.html").render(
        text=text,
        scans=scans,
        flagged=list(flagged.itertuples(index=False)),
        counts=_counts(metrics, scans),
        groups=groups,
        methods=as_html(text.methods, heading="h3", references=references),
        references=[(key, references[key]) for key in cited],
        style=resource("report.css") + resource("group.css") + resource("strips.css"),
        script=resource("tables.js") + resource("strips.js"),
    )


def _counts(metrics: pd.DataFrame, scans: pd.DataFrame) -> dict[str, tuple[int, str]]:
    """Return the large numbers at the top, each with how it is marked."""
    n = {name: int(scans[name].sum()) for name in ("is_flagged", "is_proposed", "is_excluded")}
    return {
        "scans": (len(scans), ""),
        "metrics": (metrics[METRIC].drop_duplicates().shape[0], ""),
        "flagged": (n["is_flagged"], "attention" if n["is_flagged"] else "fine"),
        "proposed for exclusion": (n["is_proposed"], "attention" if n["is_proposed"] else "fine"),
        "excluded by you": (n["is_excluded"], ""),
    }


def _groups(metrics: pd.DataFrame) -> tuple[_Group, ...]:
    is_label = metrics["atlas"] != "n/a"
    is_distance = metrics["name"] == ALL_METRICS
    parts = [
        ("all", "All metrics at once", DISTANCES, metrics[is_distance]),
        ("images", "Images, field and susceptibility", "", metrics[~is_label & ~is_distance]),
    ]
    for place, (atlas, rows) in enumerate(metrics[is_label].groupby("atlas", sort=False), 1):
        chosen, lead = _worst_checks(rows)
        parts.append((f"labels{place}", f"Labels of {atlas}", lead, chosen))
    groups = []
    for key, heading, lead, rows in parts:
        of_metric = [part for _, part in rows.groupby(METRIC, sort=False)]
        strips = (strip(part, f"{key}-{n}") for n, part in enumerate(of_metric, 1))
        found = tuple(s for s in strips if s is not None)
        if found or key.startswith("labels"):
            groups.append(_Group(key, heading, lead, found))
    return tuple(groups)


def _worst_checks(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the checks of labels that any scan fails, those with the most failures first."""
    both = rows["is_out_of_range"].astype(int) * (1 + rows["is_outlier"].astype(int))
    by_check = both.groupby([rows[name] for name in METRIC], sort=False).sum()
    failed = by_check[by_check > 0].sort_values(ascending=False, kind="stable")
    shown = failed.index[:MOST_LABEL_STRIPS]
    lead = (
        f"{len(failed)} of {len(by_check)} checks are out of their range in some scan"
        + (f"; the {len(shown)} that find the most are shown" if len(failed) > len(shown) else "")
        + ". All others are in the table."
    )
    place = pd.MultiIndex.from_frame(rows[METRIC])
    order = pd.Series(shown.get_indexer(place), rows.index)
    order = order[order >= 0].sort_values(kind="stable")
    return rows.loc[order.index], lead
