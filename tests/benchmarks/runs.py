"""The order of the measurements: every one in a process of its own, one after the other."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bids_qsm.bids.inputs import find_series
from bids_qsm.errors import CommandLineError
from bids_qsm.execution.local import Outcome, Unit, run_units
from bids_qsm.settings import Settings
from tests.benchmarks import kernels, tables
from tests.benchmarks.combinations import Combination, combinations
from tests.benchmarks.heads import Head, find_heads, write_inputs
from tests.benchmarks.measure import Task, measure

EXAMPLES = Path(__file__).resolve().parents[2] / "data_examples" / "bids"
EXAMPLE = "02"


@dataclass(frozen=True)
class Plan:
    """What is run: all units in their order; of them the tasks, and where the kernels' rows go."""

    units: tuple[Unit, ...]
    tasks: tuple[Task, ...]
    kernels: Path


def run(arguments: argparse.Namespace) -> int:
    """Measure, and write the tables after each measurement; return the exit status.

    Raises
    ------
    CommandLineError
        If a method does not exist or there is no head.
    UnreadableInputError
        If a head has no truth.
    """
    chosen = {
        stage: combinations(stage, arguments.combine, arguments.all, arguments.toml)
        for stage in arguments.stage
    }
    heads = [h for d in arguments.datasets for h in find_heads(d, arguments.participant_label)]
    names = [head.name for head in heads]
    if not heads or len(set(names)) < len(names):
        raise CommandLineError(f"heads must have different names, one at least; got {names}.")
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        plan = planned(heads, chosen, Path(folder), arguments.threads, not arguments.no_kernels)
        failed = False
        for outcome in finished(plan.units):
            failed |= bool(outcome.problem)
            rows = tables.with_means([row for task in plan.tasks for row in rows_of(task)])
            tables.write_tables(out, "methods", rows, tables.COLUMNS)
        print(tables.markdown(rows, tables.COLUMNS))
        if plan.kernels.exists():
            measured = json.loads(plan.kernels.read_text(encoding="utf-8"))
            tables.write_tables(out, "kernels", measured, kernels.COLUMNS)
            print(tables.markdown(measured, kernels.COLUMNS))
        write_sheets(out, plan.tasks)
    return 1 if failed else 0


def planned(
    heads: Sequence[Head],
    chosen: Mapping[str, Sequence[Combination]],
    folder: Path,
    threads: int,
    with_kernels: bool,
) -> Plan:
    """Return what to run; stages that a head's truth has no field for are left out, and said.

    The kernels are measured on the first head that has a local field.
    """
    settings = Settings(EXAMPLES, EXAMPLES, participant_labels=(EXAMPLE,))
    example = find_series(settings).series[0]
    units: list[Unit] = []
    tasks: list[Task] = []
    rows_of_kernels = folder / "kernels.json"
    for number, head in enumerate(heads):
        inputs = folder / f"head{number}.npz"
        stages = [stage for stage in chosen if head.allows(stage)]
        for stage in chosen.keys() - set(stages):
            print(f"{head.name}: there is no true field for {stage}.", file=sys.stderr)
        measures_kernels = with_kernels and head.allows("inversion")
        if measures_kernels or any(stage != "chain" for stage in stages):
            units.append(Unit(f"{head.name}: inputs", write_inputs, (head, inputs)))
        if measures_kernels:
            arguments = (head, inputs, rows_of_kernels, threads)
            units.append(Unit(f"{head.name}: kernels", kernels.measure_kernels, arguments))
            with_kernels = False
        for stage in stages:
            for combination in chosen[stage]:
                stem = folder / f"task{len(tasks)}"
                task = Task(stage, head, combination, inputs, example, stem, threads)
                tasks.append(task)
                units.append(Unit(f"{head.name}: {stage}: {combination.name}", measure, (task,)))
    return Plan(tuple(units), tuple(tasks), rows_of_kernels)


def finished(units: Sequence[Unit]) -> Iterator[Outcome]:
    """Run the units, say how each ended, and yield that."""
    for event in run_units(units, workers=1):
        if isinstance(event, Outcome):
            print(f"{event.unit}: {event.problem or f'{event.seconds:.1f} s'}", file=sys.stderr)
            print(event.details, end="", file=sys.stderr)
            yield event


def rows_of(task: Task) -> list[dict[str, Any]]:
    """Return the row of a task that is done, or none."""
    path = task.out.with_suffix(".json")
    if not path.exists():
        return []
    names = {"stage": task.stage, "head": task.head.name, "combination": task.combination.name}
    return [names | json.loads(path.read_text(encoding="utf-8"))]


def write_sheets(out: Path, tasks: Sequence[Task]) -> None:
    """Write the pictures of each head and stage."""
    sheets: dict[tuple[str, str], dict[str, Any]] = {}
    for task in tasks:
        path = task.out.with_suffix(".npz")
        if path.exists():
            with np.load(path) as stored:
                sheet = sheets.setdefault((task.head.name, task.stage), {})
                sheet[task.combination.name] = dict(stored)
    for (head, stage), slices in sheets.items():
        name = re.sub(r"\W+", "-", f"{head} {stage}")
        tables.write_sheet(out / f"{name}.png", f"{head}: {stage}", slices)
