"""The clinical steps in their order, by the word of ``--with`` that asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bids_qsm.clinical.case import Case, Finding
from bids_qsm.clinical.cavernomas import find_paramagnetic
from bids_qsm.clinical.hybrid import make_hybrid
from bids_qsm.clinical.leads import find_leads
from bids_qsm.clinical.microbleeds import find_microbleeds
from bids_qsm.clinical.rims import score_rims
from bids_qsm.clinical.trajectories import follow_trajectories
from bids_qsm.job import Job

Step = Callable[[Job, Case], Finding | None]

STEPS: Mapping[str, tuple[Step, ...]] = {
    "dbs": (make_hybrid, find_leads, follow_trajectories),
    "lesion-tracking": (find_paramagnetic,),
    "microbleeds": (find_microbleeds, score_rims),
}
"""Each returns None where its input is not there; why is a warning."""


def clinical_findings(job: Job, case: Case) -> tuple[Finding, ...]:
    """Run the clinical steps that the settings ask for and return what they found."""
    asked = [
        step for word, steps in STEPS.items() if word in job.settings.extra_steps for step in steps
    ]
    found = (step(job, case) for step in asked)
    return tuple(finding for finding in found if finding is not None)
