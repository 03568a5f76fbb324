"""A run of the participant level: what there is to do, who does it, and how it ended.

What takes long to import is imported where it is used: the files are found while the first
process, started before, imports the processing, and it reads the first series while it goes on
importing.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bids_qsm.admission import Plan, planned_workers, too_large
from bids_qsm.bids.dataset import check_output_dir, prepare_output_dir
from bids_qsm.bids.derivatives import check_derivatives
from bids_qsm.bids.inputs import Found, Refusal, Series, find_series
from bids_qsm.bids.naming import output_path
from bids_qsm.bids.publishing import staging_dir
from bids_qsm.errors import CommandLineError, printable
from bids_qsm.execution.environment import prepare_environment
from bids_qsm.execution.local import Early, Message, Outcome, Unit, Worker, run_units
from bids_qsm.execution.locks import alone, held, shared
from bids_qsm.execution.steps import files_fingerprint, fingerprint
from bids_qsm.images import Image, read_ahead
from bids_qsm.job import inputs_fingerprint, work_dir
from bids_qsm.pages import (
    in_order,
    names_with_records,
    read_record,
    read_subject_record,
    write_old_citations,
    write_old_pages,
    write_page,
)
from bids_qsm.settings import Settings, as_json

Tell = Callable[[str], None]


def run(settings: Settings, worker: Worker | None = None) -> int:
    """Process all series that the settings ask for and return the exit status.

    Parameters
    ----------
    settings : Settings
    worker : Worker, optional
        A process that was started with as many threads as the settings have for a single series.
    """
    if settings.boilerplate_only:
        _say(_methods_text(settings))
        return 0
    check_output_dir(settings)
    check_derivatives(settings)
    _check_atlases(settings)
    found = find_series(settings)
    if settings.dry_run:
        _say(_dry_run(found, settings))
        return 0
    found, keys = _with_keys(found, settings)
    finished: list[Series] = []
    waiting: list[Series] = []
    for series in found.series:
        is_finished = _is_finished(series, keys[series.name], settings.output_dir)
        (finished if is_finished else waiting).append(series)
    if settings.reports_only:
        waiting = []
    found, waiting = _with_memory(found, waiting, settings)
    plan = planned_workers(waiting, settings)
    units = _units(waiting, keys, plan, settings)
    ready = worker if plan.threads == (settings.omp_nthreads or settings.nprocs) else None
    _check_methods(settings, worker, units[0] if units and ready else None)
    prepare_output_dir(settings)
    for series in finished:
        remove_staging(settings.output_dir, series.name)
    outcomes: list[Outcome] = []
    followed: list[Outcome] = []
    if not settings.reports_only:
        with _sharing_work_dir(settings) as problems:
            outcomes = _process(units, plan, settings, ready)
            followed = _track_lesions(found.series, settings)
            problems += [outcome for outcome in (*outcomes, *followed) if outcome.problem]
    subjects = {series.subject for series in found.series}
    pages = write_old_pages(subjects, settings.output_dir, anew=settings.reports_only)
    pages += write_old_citations(settings.output_dir, anew=settings.reports_only)
    status = _summary(found, finished, outcomes, settings)
    said = {outcome.problem for outcome in (*outcomes, *followed)}
    for problem in pages:
        if problem not in said:
            _say(printable(f"FAILED {problem}"))
    for outcome in followed:
        if outcome.problem:
            _say(printable(f"FAILED {outcome.unit}: {outcome.problem}"))
    return 1 if pages or any(outcome.problem for outcome in followed) else status


def prepare_worker(settings: Settings, begin: Callable[[], None]) -> None:
    """Import what the processing needs, which takes long, while the first images are read.

    Parameters
    ----------
    settings : Settings
    begin : callable
        Lets the reading of the first series begin.

    Raises
    ------
    CommandLineError
        If the settings name a method or option that does not exist.
    """
    begin()
    import bids_qsm.participant  # noqa: F401
    from bids_qsm.choices import planned_steps

    planned_steps(settings)


def read_images(series: Series, threads: int) -> dict[Path, Future[Image]]:
    """Begin to read the images of a series, but for those that are needed one after the other."""
    return {} if series.stacked or series.n_coils > 1 else read_ahead(series.files, threads)


def _check_methods(settings: Settings, worker: Worker | None, first: Unit | None) -> None:
    """Let a wrong method end the run before anything is written."""
    if worker is not None:
        worker.await_preparation(first)
    else:
        from bids_qsm.choices import planned_steps

        planned_steps(settings)


def _check_atlases(settings: Settings) -> None:
    """Let a bad atlas end the run now, not after the first subject."""
    if settings.atlases != ("default",):
        from bids_qsm.anatomy.atlases import load_atlas

        seen: dict[str, str] = {}
        for asked in settings.atlases:
            name = load_atlas(asked).name
            if name in seen:
                raise CommandLineError(
                    f"--atlas {seen[name]} and --atlas {asked} are both named {name!r}, so their "
                    "outputs would have one name; give one of them, or rename one."
                )
            seen[name] = asked


def _methods_text(settings: Settings) -> str:
    from bids_qsm.choices import planned_steps
    from bids_qsm.report.methods import methods_text

    return methods_text(planned_steps(settings))


def process(
    series: Series, settings: Settings, key: str, threads: int, images: Early, tell: Tell
) -> None:
    """Process one series in a process of its own, unless another run has done so meanwhile.

    The subject's page is made here, too: of hundreds of subjects, all at once.
    """
    with (
        held(settings.output_dir, series.name, tell) as waited,
        _work_dir_held(settings, series.name, tell),
    ):
        if waited and _is_finished(series, key, settings.output_dir):
            return
        from bids_qsm.bids.echoes import Echoes, load_echoes
        from bids_qsm.participant import process_series

        def read() -> Echoes:
            return load_echoes(series, settings.processing, images.take())

        process_series(series, settings, key, threads, read, tell)
    write_page(series.subject, settings.output_dir)


@contextlib.contextmanager
def _work_dir_held(settings: Settings, name: str, tell: Tell) -> Iterator[None]:
    """Hold a unit's intermediate results, where runs of other output folders may share them."""
    if settings.work_dir is None:
        yield
    else:
        with held(settings.work_dir, name, tell):
            yield


def process_elsewhere(words: Sequence[str], *arguments: Any) -> None:
    """Process one series on another machine, as if it had been called there by these words."""
    sys.argv = list(words)  # for the record
    process(*arguments)


def _with_keys(found: Found, settings: Settings) -> tuple[Found, dict[str, str]]:
    """Return the fingerprint of each series; one whose files have vanished meanwhile is refused."""
    keys, refused = {}, list(found.refused)
    for series in found.series:
        try:
            keys[series.name] = series_key(series, settings)
        except OSError as error:
            sentence = f"{error.filename}: the file has vanished, or cannot be read any more."
            refused.append(Refusal(series.subject, series.session, series.name, sentence))
    left = tuple(series for series in found.series if series.name in keys)
    return Found(left, tuple(sorted(refused, key=lambda refusal: refusal.name))), keys


def _with_memory(
    found: Found, waiting: Sequence[Series], settings: Settings
) -> tuple[Found, list[Series]]:
    """Refuse those of the waiting series that need more memory than there may be."""
    sentences = {s.name: sentence for s in waiting if (sentence := too_large(s, settings))}
    refused = [
        Refusal(s.subject, s.session, s.name, sentences[s.name])
        for s in waiting
        if s.name in sentences
    ]
    left = tuple(series for series in found.series if series.name not in sentences)
    return (
        Found(left, tuple(sorted((*found.refused, *refused), key=lambda one: one.name))),
        [series for series in waiting if series.name not in sentences],
    )


def series_key(series: Series, settings: Settings) -> str:
    """Return the fingerprint of all that decides a series' outputs, that of its files first."""
    return inputs_fingerprint(series, settings) + fingerprint(
        series.name,
        # what the sidecars say
        (series.form, series.stacked, series.te_s, series.b0_t, series.manufacturer),
        (series.b0_direction, series.n_coils, series.sliced),
        as_json(settings.processing),
        settings.output_spaces,
        settings.extra_steps,
        settings.derivatives,
        _atlas_fingerprints(settings),
        settings.random_seed,
    )


def _atlas_fingerprints(settings: Settings) -> Any:
    if settings.atlases == ("default",):
        return settings.atlases
    from bids_qsm.anatomy.atlases import atlas_files

    return [(asked, files_fingerprint(atlas_files(asked))) for asked in settings.atlases]


def _units(
    waiting: Sequence[Series], keys: dict[str, str], plan: Plan, settings: Settings
) -> list[Unit]:
    units = [
        Unit(
            s.name,
            process,
            (s, settings, keys[s.name], plan.threads),
            gib,
            partial(read_images, s, plan.threads),
        )
        for s, gib in zip(waiting, plan.memory_gib, strict=True)
    ]
    if settings.executor != "local":
        return [
            replace(u, function=process_elsewhere, arguments=(sys.argv, *u.arguments))
            for u in units
        ]
    return units


def _process(
    units: Sequence[Unit], plan: Plan, settings: Settings, ready: Worker | None
) -> list[Outcome]:
    if not units:
        return []
    if settings.executor != "local":
        events = _on_cluster(units, plan.memory_gib, plan, settings)
        return _shown(events, len(units), settings)
    # the children inherit this environment
    prepare_environment(plan.threads, settings.random_seed)
    events = run_units(
        units,
        plan.workers,
        limit_gib=plan.limit_gib,
        stop_on_first_failure=settings.stop_on_first_crash,
        ready=ready,
    )
    return _shown(events, len(units), settings)


def _shown(events: Iterator[Message | Outcome], n_units: int, settings: Settings) -> list[Outcome]:
    """Show the events of units and return the outcomes."""
    from bids_qsm.execution.progress import Display

    outcomes = []
    with Display(n_units, settings.output_dir / "logs", settings.verbosity) as display:
        for event in events:
            display.show(event)
            if isinstance(event, Outcome):
                outcomes.append(event)
    return outcomes


def _on_cluster(
    units: Sequence[Unit], memory_gib: Sequence[float], plan: Plan, settings: Settings
) -> Iterator[Message | Outcome]:
    try:
        from bids_qsm.execution import cluster
    except ImportError as error:
        raise CommandLineError(
            f"--executor {settings.executor} needs Dask ({error}): pip install 'bids-qsm[dask]'."
        ) from None
    # a derivative may be a single file
    given = [p for p in (settings.work_dir, *settings.derivatives.values()) if p and p.is_dir()]
    folders = (settings.bids_dir, settings.output_dir, *given)
    return cluster.run_units(
        units,
        memory_gib,
        settings.executor.partition(":")[2],
        cluster.Needs(folders, plan.threads, settings.random_seed),
        stop_on_first_failure=settings.stop_on_first_crash,
    )


def remove_staging(output_dir: Path, name: str) -> None:
    """Remove what a run left that was killed just after a series was done."""
    folder = staging_dir(output_dir, name)
    if folder.is_dir():
        with alone(output_dir, name) as is_free:
            if is_free:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _sharing_work_dir(settings: Settings) -> Iterator[list[Outcome]]:
    """Use the hidden work folder beside other runs; the last one removes it.

    Yields
    ------
    list of Outcome
        For what went wrong: the folder stays then, so that the next run need not start anew.
    """
    problems: list[Outcome] = []
    if settings.work_dir is not None:
        yield problems
        return
    with shared(settings.output_dir, "work"):
        yield problems
    if not problems:
        with alone(settings.output_dir, "work") as is_last:
            if is_last:
                shutil.rmtree(work_dir(settings), ignore_errors=True)


def track(
    subject: str, names: Sequence[str], settings: Settings, key: str, threads: int, tell: Tell
) -> None:
    """Follow the lesions of a subject in a process of its own."""
    import scipy.fft

    from bids_qsm.tracking import track_subject

    unit = f"sub-{subject}_tracking"
    with (
        held(settings.output_dir, unit, tell),
        _work_dir_held(settings, unit, tell),
        scipy.fft.set_workers(threads),
    ):
        track_subject(subject, names, settings, key, tell)
    write_page(subject, settings.output_dir)


def _track_lesions(all_series: Sequence[Series], settings: Settings) -> list[Outcome]:
    """Follow lesions over the sessions of each subject in which something has changed."""
    if "lesion-tracking" not in settings.extra_steps:
        return []
    if not all_series:
        return []
    units = []
    plan = planned_workers(all_series, settings)
    most_gib = max(plan.memory_gib, default=0.0)
    names_of: dict[str, set[str]] = defaultdict(set)
    for series in all_series:
        names_of[series.subject].add(series.name)
    recorded = names_with_records(settings.output_dir)
    for subject, asked in sorted(names_of.items()):
        names = in_order({*recorded.get(subject, ()), *asked})
        key = tracking_key(subject, names, settings)
        record = read_subject_record(subject, settings.output_dir)
        there = record is not None and all(
            (settings.output_dir / path).exists() for path in record.outputs
        )
        if record is None or record.key != key or not there:
            arguments = (subject, names, settings, key, plan.threads)
            units.append(Unit(f"sub-{subject}_tracking", track, arguments, most_gib))
    if not units:
        return []
    if settings.executor != "local":
        events = _on_cluster(units, [most_gib] * len(units), plan, settings)
        return _shown(events, len(units), settings)
    prepare_environment(plan.threads, settings.random_seed)
    return _shown(run_units(units, plan.workers, limit_gib=plan.limit_gib), len(units), settings)


def tracking_key(subject: str, names: Sequence[str], settings: Settings) -> str:
    """Return the fingerprint of all that decides how lesions are followed in a subject."""
    maps = ("chi", "qsm_mask", "brain_mask", "s0", "r2star", "tracked_dseg")
    folder = settings.bids_dir / f"sub-{subject}"
    files = [
        *(settings.output_dir / output_path(name, key) for name in names for key in maps),
        *sorted(folder.rglob("*_scans.tsv")),
        folder / f"sub-{subject}_sessions.tsv",
    ]
    return fingerprint(
        list(names),
        files_fingerprint([path for path in files if path.exists()]),
        as_json(settings.processing.tracking),
        settings.random_seed,
    )


def _is_finished(series: Series, key: str, output_dir: Path) -> bool:
    record = read_record(series.name, output_dir)
    return (
        record is not None
        and record.key == key
        and all((output_dir / path).exists() for path in record.outputs)
    )


def _dry_run(found: Found, settings: Settings) -> str:
    from bids_qsm.choices import planned_steps

    steps = ", ".join(f"{step.name} ({step.method})" for step in planned_steps(settings))
    lines = [f"{len(found.series)} series would be processed:"]
    for series in found.series:
        lines.append(f"  {series.name}: {_described(series)}")
        lines += [f"    note: {assumption}" for assumption in series.assumptions]
    lines += [f"  {refusal.name}: REFUSED: {refusal.sentence}" for refusal in found.refused]
    lines.append(f"steps: {steps}")
    if found.series:
        plan = planned_workers(found.series, settings)
        where = "" if settings.executor == "local" else ", on the workers of the cluster"
        lines.append(f"{plan.workers} at a time, {plan.threads} threads each{where}")
    return "\n".join(printable(line) for line in lines)


def _described(series: Series) -> str:
    size = " x ".join(str(n) for n in series.shape)
    t1w = series.t1w.name if series.t1w else "no T1w"
    return f"{len(series.te_s)} echoes, {series.form}, {size} voxels, {series.b0_t:g} T, {t1w}"


def _summary(
    found: Found, finished: Sequence[Series], outcomes: Sequence[Outcome], settings: Settings
) -> int:
    """Say how the run ended and return its exit status."""
    failed = [outcome for outcome in outcomes if outcome.problem]
    for refusal in found.refused:
        _say(printable(f"REFUSED {refusal.name}: {refusal.sentence}"))
    for outcome in failed:
        _say(printable(f"FAILED {outcome.unit}: {outcome.problem}"))
    done = len(outcomes) - len(failed)
    left = 0 if settings.reports_only else len(found.series) - len(finished) - len(outcomes)
    parts = [f"{done} processed"]
    parts += [f"{len(finished)} already done"] if finished else []
    parts += [f"{len(failed)} failed"] if failed else []
    parts += [f"{len(found.refused)} refused"] if found.refused else []
    parts += [f"{left} not started"] if left else []
    _say(f"Series: {', '.join(parts)}.")
    pages = sorted(settings.output_dir.glob("sub-*.html"))
    for page in pages[:10]:
        _say(f"Report: {page}")
    if len(pages) > 10:
        _say(f"... and {len(pages) - 10} more reports in {settings.output_dir}")
    return 1 if failed or found.refused or left else 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
