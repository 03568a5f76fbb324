"""The models file of the group level: which analyses are made, and of what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from bids_qsm.analyses import KINDS
from bids_qsm.analyses.cohort import Selection
from bids_qsm.errors import CommandLineError, UnreadableInputError
from bids_qsm.numerics.registry import choose, options_of
from bids_qsm.reading import read_toml
from bids_qsm.statistics.expressions import counted, listed
from bids_qsm.statistics.regions import group_labels

GROUP = "group"
COVARIATES = ("age", "sex")
FEWEST_SCANS, FEWEST_SPANS = 3, 4
IS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,60}")


@dataclass(frozen=True)
class Analysis:
    """An analysis that is asked for.

    Attributes
    ----------
    name : str
        Of its folder: letters, digits and hyphens.
    kind : str
        Of :data:`bids_qsm.analyses.KINDS`.
    selection : Selection
    options : mapping
        Complete: what the kind's function takes besides.
    title : str
        The name, if none was given.
    """

    name: str
    kind: str
    selection: Selection
    options: Mapping[str, Any]
    title: str


def read_models(path: Path) -> tuple[Analysis, ...]:
    """Read a models file.

    It looks like this::

        [[analysis]]
        name = "iron-in-patients"
        kind = "regions"
        by = "group"
        covariates = ["age", "sex"]
        subset = "age < 50"

    Raises
    ------
    UnreadableInputError
        If the file cannot be read.
    CommandLineError
        If it is not TOML, or asks for what does not exist.
    """
    try:
        return analyses_from(read_toml(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableInputError(f"{path}: the models file cannot be read ({error}).") from None
    except (ValueError, CommandLineError) as error:
        raise CommandLineError(f"{path}: {error}") from None


def analyses_from(content: Mapping[str, Any]) -> tuple[Analysis, ...]:
    """Return the analyses that TOML tables ask for."""
    unknown = sorted(set(content) - {"analysis"})
    if unknown:
        raise CommandLineError(
            f"the models file has no table {unknown[0]!r}; write each analysis as [[analysis]]."
        )
    tables = content.get("analysis", [])
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables) or not tables:
        raise CommandLineError("the models file asks for nothing: write [[analysis]] tables.")
    analyses = tuple(analysis_from(table) for table in tables)
    names = [analysis.name for analysis in analyses]
    for name in names:
        if sum(name.lower() == other.lower() for other in names) > 1:
            raise CommandLineError(f"two analyses are named {name!r}; rename one.")
    return analyses


def analysis_from(table: Mapping[str, Any]) -> Analysis:
    """Return one analysis, its options complete and of the right types."""
    name = table.get("name", "")
    if not isinstance(name, str) or not IS_NAME.fullmatch(name):
        raise CommandLineError(
            f"an analysis is named {name!r}; give each a 'name' of letters, digits and hyphens."
        )
    where = f"analysis {name!r}"
    kind = table.get("kind", "")
    if not isinstance(kind, str) or kind not in KINDS:
        raise CommandLineError(f"{where} has no kind {kind!r}; choose one of: {', '.join(KINDS)}.")
    own = {key: value for key, value in table.items() if key not in ("name", "kind", "title")}
    chosen = {f.name: own.pop(f.name) for f in fields(Selection) if f.name in own}
    try:
        _, options = choose(where, KINDS, kind, own)
    except ValueError as error:
        known = ", ".join(f.name for f in fields(Selection))
        raise CommandLineError(f"{error} (All kinds have: {known}.)") from None
    for key in own:
        options[key] = _checked_items(where, key, options[key], options_of(KINDS[kind])[key])
    title = table.get("title", name)
    if not isinstance(title, str):
        raise CommandLineError(f"{where}: 'title' must be a text, got {title!r}.")
    return Analysis(name, kind, _selection(where, chosen), options, title)


def _checked_items(where: str, key: str, value: Any, default: Any) -> Any:
    """Return an option whose items are of one type: numbers where the default has such."""
    items = value.values() if isinstance(value, Mapping) else value
    if isinstance(default, tuple) and default and isinstance(default[0], float):
        if all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in items):
            return tuple(map(float, items))
        raise CommandLineError(f"{where}: {key!r} must hold numbers, got {value!r}.")
    if isinstance(default, (tuple, Mapping)) and not all(isinstance(item, str) for item in items):
        raise CommandLineError(f"{where}: {key!r} must hold texts, got {value!r}.")
    return value


def default_analyses(
    scans: pd.DataFrame,
    rescan: Sequence[str] = (),
    *,
    has_structures: bool = True,
    has_maps: bool = True,
    follows_lesions: bool = False,
    clinical: Mapping[str, pd.DataFrame] | None = None,
) -> tuple[tuple[Analysis, ...], tuple[str, ...]]:
    """Return the analyses that are made without a models file, and what was assumed.

    Parameters
    ----------
    scans : DataFrame
        A row for each scan, with the columns of ``participants.tsv``.
    rescan : sequence of str
        Two sessions without a change in between, if there are such.
    has_structures : bool
        Whether any scan has structures.
    has_maps : bool
        Whether there are maps in the atlas' space.
    follows_lesions : bool
        Whether lesions were followed over several sessions.
    clinical : mapping of str to DataFrame, optional
        As of :class:`bids_qsm.analyses.cohort.Cohort`.
    """
    tables: list[dict[str, Any]] = []
    notes = []
    groups = sorted(group_labels(scans, GROUP).dropna().unique()) if GROUP in scans else []
    if not has_structures:
        notes.append("No scan has structures, as there was no T1w image: none are compared.")
    elif len(groups) == 2:
        covariates = [c for c in COVARIATES if c in scans and _can_adjust(scans, c)]
        ways = "by structure and by voxel" if has_maps else "by structure"
        adjusted = f", adjusted for {' and '.join(covariates)}" if covariates else ""
        notes.append(
            f"There is no models file: the column 'group' of participants.tsv has two levels "
            f"({groups[0]}, {groups[1]}), which are compared {ways}{adjusted}."
        )
        tables.append({"name": "regions-by-group", "kind": "regions", "covariates": covariates})
        tables[0]["title"] = "Groups by structure"
        if has_maps:
            words = {"name": "voxels-by-group", "kind": "voxelwise", "covariates": covariates}
            tables.append({**words, "title": "Groups by voxel"})
        else:
            notes.append("There are no maps in the atlas' space, so none are compared by voxel.")
        left = [c for c in COVARIATES if c in scans and c not in covariates]
        if left:
            notes.append(
                f"Not adjusted for {listed(left)}: all have one value, or one subject has a value "
                "that no other has."
            )
    else:
        found = f"has {counted(len(groups), 'level')}" if GROUP in scans else "is not there"
        notes.append(
            "There is no models file, and no two groups to compare: the column 'group' of "
            f"participants.tsv {found}."
        )
    if rescan and has_structures:
        title = "Reliability of repeated scans"
        words = {"name": "reliability", "kind": "reliability", "sessions": list(rescan)}
        tables.append({**words, "title": title})
    if follows_lesions:
        title = "Lesions over time"
        words = {"name": "lesions-over-time", "kind": "longitudinal", "lesions": "largest"}
        tables.append({**words, "title": title})
    tables += _of_clinical(clinical or {})
    return tuple(analysis_from(table) for table in tables), tuple(notes)


def _of_clinical(clinical: Mapping[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """Return the analyses of what the clinical steps measured, where there is enough of it."""
    tables: list[dict[str, Any]] = []
    ratios = clinical.get("contrast_to_noise")
    if ratios is not None and ratios["participant_id"].nunique() >= FEWEST_SCANS:
        title = "Contrast-to-noise ratios"
        tables.append({"name": "contrast-to-noise", "kind": "contrast", "title": title})
    lines = clinical.get("trajectories")
    if lines is not None and lines["recorded_span_mm"].notna().sum() >= FEWEST_SPANS:
        words = {"name": "spans", "kind": "agreement", "title": "Spans along trajectories"}
        words |= {"table": "trajectories", "first": "recorded_span_mm", "second": "span_mm"}
        tables.append({**words, "units": "mm"})
    return tables


def _can_adjust(scans: pd.DataFrame, column: str) -> bool:
    """Whether a covariate varies, and no level of one of texts belongs to one subject alone."""
    subjects = scans.drop_duplicates("participant_id")[column].dropna()
    if pd.api.types.is_numeric_dtype(subjects):
        return subjects.nunique() > 1
    return subjects.nunique() > 1 and int(subjects.value_counts().min()) > 1


def _selection(where: str, chosen: Mapping[str, Any]) -> Selection:
    values: dict[str, Any] = {}
    for f in fields(Selection):
        if f.name not in chosen:
            continue
        value = chosen[f.name]
        if isinstance(f.default, tuple):
            value = [value] if isinstance(value, str) else value
            if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
                raise CommandLineError(f"{where}: {f.name!r} must be a list of texts.")
            value = tuple(value)
        elif not isinstance(value, str):
            raise CommandLineError(f"{where}: {f.name!r} must be a text, got {value!r}.")
        values[f.name] = value
    return Selection(**values)
