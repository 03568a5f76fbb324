"""The participant level without processes of its own, for tests that are not about processes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from bids_qsm import cli, dispatch, gallery
from bids_qsm.execution import local
from bids_qsm.execution.local import Message, Outcome, Unit


@contextmanager
def one_process(*, pictures: bool = True) -> Iterator[None]:
    """Do every unit of work in this process, and leave its environment as it is.

    What a process does in its life is done here too, but for its start: starting one and importing
    all that it needs takes as long as a tiny series.  So do the pictures, which can be left out.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "start_worker", lambda *_: None)
        for module in (cli, dispatch):  # numba allows no other number of threads once it has run
            patch.setattr(module, "prepare_environment", lambda *_: None)
        patch.setattr(dispatch, "run_units", _run_units)
        if not pictures:
            patch.setattr(gallery, "draw", lambda *_: [])
        yield


class _Pipe:
    """Both ends of a pipe."""

    def __init__(self, *sent: Any) -> None:
        self.sent = list(sent)

    def send(self, event: Any) -> None:
        self.sent.append(event)

    def recv(self) -> Any:
        return self.sent.pop(0)


def _run_units(
    units: Sequence[Unit], workers: int, **options: object
) -> Iterator[Message | Outcome]:
    root = logging.getLogger("bids_qsm")
    level, handlers = root.level, list(root.handlers)
    for unit in units:
        events = _Pipe()
        try:
            local._child(None, (), _Pipe(unit), events)
        finally:
            root.setLevel(level)
            root.handlers[:] = handlers
        yield from events.sent
