"""The choices of each step: its methods by name, and which of them the settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bids_qsm.errors import CommandLineError
from bids_qsm.job import Job
from bids_qsm.numerics import (
    background,
    coils,
    contrast,
    field,
    inversion,
    leads,
    lesion_tracking,
    masking,
    microbleeds,
    paramagnetic,
    relaxometry,
    rims,
    separation,
    swi,
    trajectories,
    two_pass,
    uncertainty,
    unwrapping,
    veins,
)
from bids_qsm.numerics.registry import choose
from bids_qsm.report.record import StepRecord
from bids_qsm.settings import EXTRA_STEPS, Processing, Settings, changed_from_preset

METHODS = {
    "offset": coils.METHODS,
    "unwrapping": unwrapping.METHODS,
    "field": field.METHODS,
    "mask": masking.METHODS,
    "background": background.METHODS,
    "inversion": inversion.METHODS,
    "artefact_reduction": two_pass.METHODS,
    "relaxometry": relaxometry.METHODS,
    "veins": veins.METHODS,
    "swi": swi.METHODS,
    "separation": separation.METHODS,
    "uncertainty": uncertainty.METHODS,
    "hybrid": contrast.METHODS,
    "leads": leads.METHODS,
    "trajectories": trajectories.METHODS,
    "paramagnetic": paramagnetic.METHODS,
    "tracking": lesion_tracking.METHODS,
    "microbleeds": microbleeds.METHODS,
    "rims": rims.METHODS,
}
"""The choices of each step, by its name in :class:`bids_qsm.settings.Processing`."""


def method(processing: Processing, step: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the function that the settings choose for a step, and its complete options."""
    chosen = getattr(processing, step)
    try:
        return choose(step, METHODS[step], chosen.name, chosen.options)
    except ValueError as error:
        raise CommandLineError(str(error)) from None


def note(job: Job, step: str, options: Mapping[str, Any], seconds: float) -> None:
    """Note a step by the name of its method."""
    job.journal.step(step, getattr(job.settings.processing, step).name, options, seconds)


def planned_steps(settings: Settings) -> tuple[StepRecord, ...]:
    """Return the steps that these settings lead to, with their methods and options.

    Raises
    ------
    CommandLineError
        If a method or option does not exist.
    """
    left_out = {
        step
        for word, steps in EXTRA_STEPS.items()
        if word not in settings.extra_steps
        for step in steps
    }
    chosen = [
        StepRecord(
            step, getattr(settings.processing, step).name, method(settings.processing, step)[1]
        )
        for step in METHODS
        if step not in left_out
    ]
    reference = StepRecord("reference", settings.processing.reference)
    return (preset_step(settings.processing), *chosen, reference)


def preset_step(processing: Processing) -> StepRecord:
    """Return what the record says of the preset, and of what was changed in it."""
    changed = changed_from_preset(processing)
    return StepRecord("preset", processing.preset, {"changed": changed} if changed else {})
