"""Write ``outputs.md`` and ``settings.md`` from the tables that the program itself uses."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bids_qsm.analyses import KINDS
from bids_qsm.analyses.cohort import Selection
from bids_qsm.bids.naming import OUTPUTS, Output, group_table_path, output_path
from bids_qsm.bids.sidecars import GROUP_TABLE_COLUMNS, TABLE_COLUMNS
from bids_qsm.choices import METHODS
from bids_qsm.numerics.registry import options_of
from bids_qsm.numerics.series_quality import METRICS, Metric
from bids_qsm.presets import PRESETS
from bids_qsm.report.record import (
    FigureRecord,
    InputRecord,
    ReferenceRecord,
    RunRecord,
    SeriesRecord,
    StepRecord,
    TableRecord,
)
from bids_qsm.settings import REFERENCES, Processing

STEPS = {
    "offset": "Removal of the phase that the coils add, which does not depend on the echo time.",
    "unwrapping": "Removal of the jumps of 2 pi.",
    "field": "The field from the phase of all echoes.",
    "mask": "Where susceptibility is computed.",
    "background": "Removal of the field whose sources lie outside the mask.",
    "inversion": "Susceptibility from the local field.",
    "artefact_reduction": "A second reconstruction, against streaks from unreliable voxels.",
    "relaxometry": "R2*, T2* and S0 from the magnitude of all echoes.",
    "veins": "Voxels of veins, left out of the values without veins; only with a T1w image.",
    "swi": "Susceptibility-weighted image and its projection; only with `--with swi`.",
    "separation": "Paramagnetic and diamagnetic susceptibility apart (experimental); only with "
    "`--with separation`. With an R2 map (`-d r2map=PATH`) it is `r2prime`, else `gre`.",
    "uncertainty": "Standard deviation of the susceptibility; only with `--with uncertainty`. The "
    "random numbers follow `--random-seed`.",
    "hybrid": "T1w + k χ, in which the globus pallidus interna stands out; only with `--with dbs`. "
    "Contrast-to-noise ratios are |difference of means| over the root of the mean of the two "
    "variances. The surround is a shell of what has no label, and of the neighbour that the "
    "nucleus must be told apart from: the external pallidum for the internal one, the substantia "
    "nigra for the subthalamic nucleus and the other way round.",
    "leads": "Leads in a CT (`sub-X/ct/sub-X_ct.nii.gz`, or `-d ct=PATH`); only with `--with dbs`. "
    "`model` is one of 3387, 3389, 3391, B33005, B33015, 6172, 6173, DB-2201 and DB-2202.",
    "trajectories": "What lies along the lines of `-d trajectories=PATH`; only with `--with dbs`. "
    "The random numbers follow `--random-seed`.",
    "paramagnetic": "Strongly paramagnetic lesions such as cavernous malformations; only with "
    "`--with lesion-tracking`. Lesions that are given (`-d tracked-lesions=PATH`) take their "
    "place.",
    "tracking": "The lesions of all sessions of a subject, measured in the same region; only with "
    "`--with lesion-tracking`.",
    "microbleeds": "Microbleeds and calcifications, with their total susceptibility; only with "
    "`--with microbleeds`.",
    "rims": "Paramagnetic rims of T2 lesions; only with `--with microbleeds`.",
}
"""What each step does, in the order of the run."""


METRICS_HEAD = """
## What `series_quality` measures

| check | expected | |
|---|---|---|
"""
OUTPUTS_HEAD = """\
# Outputs

Made by `docs/generate.py` from `bids_qsm/bids/naming.py`; do not edit.

The files of a series `sub-X[_ses-Y][_acq-A][_run-R]` lie in `sub-X[/ses-Y]/anat/`; here they are
written with `sub-X` alone. Each has a JSON sidecar with its units, its sources, the methods and
parameters behind it and, for susceptibility, the reference region. Files marked * have no name in
BIDS: they are listed in `.bidsignore`.

| key | file | holds | units |
|---|---|---|---|
"""

RECORD_HEAD = """
## The record of a run

`logs/sub-X..._record.json` is written last, and is what a report is made from. It names no folder
or machine: of the same images, settings and versions all is the same but times, memory and `key`.
`logs/CITATION.md` (and `.html`, `.tex`, `.bib`) holds the methods of all series in words.
"""
RECORDS = {
    "the record": SeriesRecord,
    "one of `steps`": StepRecord,
    "`run`": RunRecord,
    "one of `inputs`": InputRecord,
    "one of `tables`": TableRecord,
    "one of `figures`": FigureRecord,
    "`reference`": ReferenceRecord,
}

SETTINGS_HEAD = """\
# Settings

Made by `docs/generate.py` from the code; do not edit.

`--preset NAME` chooses all methods by one name; `--config-file FILE` takes a TOML file that changes
single entries of the preset. A step's table holds the name of its method and the options of that
method side by side; where it keeps the preset's method, the preset's other options stay. The file
can name the preset, too; `--preset` stands before it.

```toml
preset = "consensus"
reference = "whole-brain"

[phase]
sign = -1

[inversion]
method = "tkd"
threshold = 0.15
```

## Presets
{presets}

## reference

What susceptibility is relative to: {references}, or the name of a structure of the atlas.
`auto` is the CSF of the lateral ventricles where there are labels, else the whole brain.
Default: `{default}`.

## [phase]

How stored phase is read.

| key | default | |
|---|---|---|
"""


MODELS_HEAD = """\
# The models file

Made by `docs/generate.py` from the code; do not edit.

`bids-qsm BIDS_DIR OUTPUT_DIR group --model FILE.toml` makes the analyses that the file asks for;
each is a table `[[analysis]]` with a `name` (of its folder below `group/`), a `kind`, if wanted a
`title`, and options. Without a file, two groups of the column `group` of `participants.tsv` are
compared by structure and by voxel, adjusted for `age` and `sex` where they are there;
`--rescan ses-A ses-B` adds the reliability of repeated scans. What was assumed is said on the page
`group.html`.

```toml
[[analysis]]
name = "iron-in-patients"
title = "Iron in patients"
kind = "regions"
covariates = ["age", "sex"]

[[analysis]]
name = "thalamus-and-lesions"
kind = "regression"
subset = "group == 'patient'"
outcomes = ["thalamus_Chimap"]
predictors = ["thalamus_volume_mL", "grey_matter_volume_mL", "T2_lesions_volume_mL"]
covariates = ["age", "sex", "duration"]
transforms = {T2_lesions_volume_mL = "log"}
subsets = ["age < 50"]

[[analysis]]
name = "trial"
kind = "trial"
controls = [0.5]
```

## Quality and exclusions

The group level first judges the scans: `group_quality.html` shows every metric of
`desc-quality_stats.tsv` and the checks of labels, each scan a point beside those of its kind, and
`group_quality.tsv` holds them. `group_exclusions.tsv` proposes what to leave out; it is not read by
itself. Copy it, edit the column `exclude`, and give it back:

```
bids-qsm BIDS_DIR OUTPUT_DIR group --exclude my_exclusions.tsv
```

Any table with a column `participant_id` will do; `session_id` and `series` narrow a row down, and
of a table with a column `exclude` (so of a `participants.tsv` that has one) only the rows with
`true` count. What is excluded enters no table and no analysis, and is listed on the page with the
text of the column `reasons`.

## Columns

Formulas, subsets and lists name columns of `group_scans.tsv`: one row for each scan, with the
columns of `participants.tsv` and `sessions.tsv`, and of each structure (both sides joined, then
apart) its susceptibility in ppb (`thalamus_Chimap`, `left_thalamus_Chimap`), R2* in 1/s
(`thalamus_R2starmap`) and volume in mL (`thalamus_volume_mL`); tissues and lesions
(`grey_matter_volume_mL`, `T2_lesions_volume_mL`, `T2_lesions_number`). Further references and
atlases have names that end in theirs (`thalamus_Chimap_ref_whole_brain`). The page lists them all.

A formula is the right-hand side of a model as in statsmodels, such as `group * log(age) + C(site)`.
It may call `C`, `I`, `Q`, `Sum`, `Treatment`, `bs`, `center`, `exp`, `log`, `log2`, `log10`,
`poly`, `scale` and `sqrt`, and nothing else: no Python code is run. A contrast names a term
(`group`), a column (`group[T.patient]`), levels (`patient - control`), or several, separated by
commas (F test). A subset compares columns with values: `age < 50 and sex == 'F'`.

## Options of all kinds

| option | default | |
|---|---|---|
"""


def models_page() -> str:
    """Return the page of the models file."""
    described = _described(Selection)
    lines = [
        f"| `{name}` | {_toml(value)} | {described.get(name, '')} |"
        for name, value in vars(Selection()).items()
    ]
    for kind, function in KINDS.items():
        lines += ["", f'## kind = "{kind}"', "", _summary(function)]
        described = _described(function)
        lines += ["", "| option | default | |", "|---|---|---|"]
        lines += [
            f"| `{option}` | {_toml(value)} | {described.get(option, '')} |"
            for option, value in options_of(function).items()
        ]
    return MODELS_HEAD + "\n".join([*lines, ""])


def outputs_page() -> str:
    """Return the page of all outputs."""
    rows = [
        f"| {key} | {'<br>'.join(_names(key, row))} | {row.description} | {row.units or ''} |\n"
        for key, row in OUTPUTS.items()
    ]
    tables = [
        f"\n## The table `{key}`\n\n{OUTPUTS[key].description}\n\n| column | |\n|---|---|\n"
        + "".join(f"| `{name}` | {text} |\n" for name, text in columns.items())
        for key, columns in TABLE_COLUMNS.items()
    ]
    tables += [
        f"\n## The table `{group_table_path(name)}`\n\n| column | |\n|---|---|\n"
        + "".join(f"| `{column}` | {text} |\n" for column, text in columns.items())
        for name, columns in GROUP_TABLE_COLUMNS.items()
    ]
    metrics = map(_metric, METRICS.values())
    records = (line for title, kind in RECORDS.items() for line in _record(title, kind))
    return "".join([OUTPUTS_HEAD, *rows, *tables, METRICS_HEAD, *metrics, RECORD_HEAD, *records])


def _record(title: str, kind: type) -> Iterator[str]:
    """Yield the table of a record's fields."""
    described = _described(kind)
    head = "| field | type | |\n|---|---|---|\n"
    yield f"\n### {title[0].upper()}{title[1:]}\n\n{_summary(kind)}\n\n{head}"
    for field in dataclasses.fields(kind):
        held = str(field.type).replace(" | ", " or ")
        yield f"| `{field.name}` | {held} | {described.get(field.name, '')} |\n"


def _metric(metric: Metric) -> str:
    """Return the row of a metric; no cell may hold a bar."""
    units = "ppm of B0" if metric.of_b0 else metric.units
    bounds = (("at least", metric.low), ("at most", metric.high))
    expected = ", ".join(f"{word} {bound:g}" for word, bound in bounds if math.isfinite(bound))
    reason = metric.reason.replace("|k|", "k")
    return f"| {metric.title} | {expected} {units}".rstrip() + f" | {reason} |\n"


def _names(key: str, row: Output) -> Iterator[str]:
    atlas = "A" if row.per_atlas else None
    for space in row.spaces:
        path = output_path("sub-X", key, space=space, atlas=atlas)
        yield f"`{path.name}`{'' if row.in_schema else '*'}"


def settings_page() -> str:
    """Return the page of the settings file."""
    default = Processing()
    references = ", ".join(f"`{name}`" for name in REFERENCES)
    described = _described(type(default.phase))
    lines = [
        f"| `{name}` | {_toml(value)} | {described.get(name, '')} |"
        for name, value in vars(default.phase).items()
    ]
    for step, purpose in STEPS.items():
        lines += _step(step, purpose, getattr(default, step).name)
    head = SETTINGS_HEAD.format(
        references=references,
        default=default.reference,
        presets="\n".join(line for name in PRESETS for line in _preset(name)),
    )
    return head + "\n".join([*lines, ""])


def _preset(name: str) -> Iterator[str]:
    """Yield what a preset sets, as a settings file that sets the same."""
    yield from ("", f'### preset = "{name}"', "", PRESETS[name].summary)
    entries = {
        f"{key}.{entry}" if entry else key: value
        for key, table in PRESETS[name].tables.items()
        for entry, value in (table.items() if isinstance(table, dict) else [("", table)])
    }
    if entries:
        lines = [f"{key} = {_toml(value).strip('`')}" for key, value in entries.items()]
        yield from ("", "```toml", *lines, "```")


def _step(step: str, purpose: str, default: str) -> Iterator[str]:
    yield from ("", f"## [{step}]", "", purpose)
    methods = METHODS[step]
    # methods of a step share options: a description stands in one of their docstrings
    shared = {name: text for f in methods.values() for name, text in _described(f).items()}
    for name in sorted(methods, key=lambda name: (name != default, name)):
        mark = " (default)" if name == default else ""
        yield from ("", f'### method = "{name}"{mark}', "", _summary(methods[name]))
        options = options_of(methods[name])
        described = {**shared, **_described(methods[name])}
        if options:
            yield from ("", "| option | default | |", "|---|---|---|")
        for option, value in options.items():
            yield f"| `{option}` | {_toml(value)} | {described.get(option, '')} |"


def _summary(function: Callable[..., Any]) -> str:
    return _markdown((inspect.getdoc(function) or "").split("\n\n")[0])


def _described(thing: Any) -> dict[str, str]:
    """Return the descriptions of the parameters or attributes in a numpydoc docstring."""
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in (inspect.getdoc(thing) or "").splitlines():
        if heading := re.match(r"(\w[\w, ]*?) : ", line):
            names = heading[1].split(", ")
        elif line.startswith("    ") and names:
            texts |= {name: f"{texts.get(name, '')} {line}" for name in names}
        elif line.strip():
            names = []
    return {name: _markdown(text) for name, text in texts.items()}


def _markdown(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


def _toml(value: Any) -> str:
    if value is None:
        return "found"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, Mapping):
        return f"`{dict(value)}`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"


PAGES = {
    "models.md": models_page,
    "outputs.md": outputs_page,
    "settings.md": settings_page,
}

if __name__ == "__main__":
    for file, page in PAGES.items():
        Path(__file__).with_name(file).write_text(page(), encoding="utf-8")
