"""What a run says while it runs: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bids_qsm.errors import printable
from bids_qsm.execution.local import Message, Outcome

_SHOWN_FROM = {0: logging.WARNING, 1: logging.INFO}


class Display:
    """Shows messages and outcomes of units, and keeps what a unit says in its log file.

    Parameters
    ----------
    n_units : int
    log_dir : Path
        Where ``<unit>_log.txt`` goes.
    verbosity : int
        0 shows each step and warnings, 1 also how long steps took, 2 everything.
    """

    def __init__(self, n_units: int, log_dir: Path, verbosity: int) -> None:
        self._log_dir = log_dir
        self._from_level = _SHOWN_FROM.get(verbosity, logging.DEBUG)
        self._started = time.perf_counter()
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live = self._console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[step]}"),
            console=self._console,
            disable=not self._live,
        )
        self._total = self._progress.add_task("series", total=n_units, step="")
        self._tasks: dict[str, int] = {}
        self._log_failed = False

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, event: Message | Outcome) -> None:
        """Show one event and write it to the unit's log."""
        if isinstance(event, Outcome):
            self._show_outcome(event)
        elif event.level == 0:
            self._log(event.unit, printable(event.text))
            self._show_step(event)
        else:
            level = logging.getLevelName(event.level).lower()
            self._log(event.unit, printable(f"{level}: {event.text}"))
            if event.level >= self._from_level:
                self._say(f"{event.unit}: {level}: {event.text}")

    def _show_step(self, event: Message) -> None:
        if self._live:
            if event.unit not in self._tasks:
                self._tasks[event.unit] = self._progress.add_task(event.unit, total=None, step="")
            self._progress.update(self._tasks[event.unit], step=printable(event.text))
        else:
            self._say(f"{event.unit}: {event.text}")

    def _show_outcome(self, outcome: Outcome) -> None:
        self._progress.advance(self._total)
        if outcome.unit in self._tasks:
            self._progress.remove_task(self._tasks.pop(outcome.unit))
        took = f"{outcome.seconds:.0f} s, peak memory {outcome.peak_mib / 1024:.1f} GiB"
        text = f"FAILED: {outcome.problem}" if outcome.problem else f"done in {took}"
        self._log(outcome.unit, printable(text))
        if outcome.details:
            self._log(outcome.unit, outcome.details)
            text += f" Details: {self._log_path(outcome.unit)}"
        self._say(f"{outcome.unit}: {text}")

    def _say(self, text: str) -> None:
        text = printable(text)
        if self._live:
            self._console.print(text, markup=False)
        else:
            elapsed = time.perf_counter() - self._started
            sys.stderr.write(f"[{elapsed:7.1f} s] {text}\n")
            sys.stderr.flush()

    def _log_path(self, unit: str) -> Path:
        return self._log_dir / f"{unit}_log.txt"

    def _log(self, unit: str, text: str) -> None:
        path = self._log_path(unit)
        try:
            self._log_dir.mkdir(parents=True, exist_ok=True)
            if path.is_symlink() or not path.is_file():  # it may lead anywhere, or have no end
                path.unlink(missing_ok=True)
            with path.open("a", encoding="utf-8", errors="backslashreplace") as handle:
                handle.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n")
        except OSError as error:  # a log is no reason to end the run
            if not self._log_failed:
                self._log_failed = True
                self._say(f"{path}: the log cannot be written ({error.strerror}).")
