"""A picture of a series' report, as it is drawn and not yet written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """A picture, or two to be looked at in turn: ``images`` holds file suffix and PNG bytes."""

    section: str
    what: str
    title: str
    caption: str
    images: tuple[tuple[str, bytes], ...]
