"""Named sets of methods and options: data only, written as a settings file would hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A named set of methods.

    Attributes
    ----------
    summary : str
        What it is for, in Markdown.
    tables : mapping
        What differs from the defaults, in the form of a settings file.
    """

    summary: str
    tables: Mapping[str, Any] = field(default_factory=dict)


PRESETS: Mapping[str, Preset] = {
    "default": Preset("What did best on simulated heads (see `docs/choosing-defaults.md`)."),
    "fast": Preset(
        "The same steps in less time: a linear fit, coarser grids, fewer iterations.",
        {
            "field": {"method": "linear"},
            "background": {
                "method": "joint",
                "far_voxel_mm": 6.0,
                "coarse_iterations": 20,
                "iterations": 0,
            },
            "inversion": {"method": "tv", "max_iterations": 12, "margin_mm": 12.0},
            "relaxometry": {"method": "loglinear"},
        },
    ),
    "consensus": Preset(
        "The letter of the consensus (Bilgic 2024, 10.1002/mrm.30006): exact unwrapping, echoes "
        "combined by a non-linear fit before background removal, brain mask and phase quality, "
        "V-SHARP, an inversion regularised by sparsity, the whole brain as reference.",
        {
            "reference": "whole-brain",
            "offset": {"method": "mcpc3ds"},
            "unwrapping": {"method": "romeo"},
            "field": {"method": "nonlinear"},
            "mask": {"method": "brain-and-quality"},
            "background": {"method": "vsharp"},
            "inversion": {"method": "tv"},
        },
    ),
    "seed-medi": Preset(
        "MEDI relative to ventricular CSF, as in many studies of multiple sclerosis, with what "
        "goes with it in its authors' papers: a non-linear fit (Liu 2013, 10.1002/mrm.24272), the "
        "brain as mask, PDF (Liu 2011, 10.1002/nbm.1670).",
        {
            "reference": "auto",
            "offset": {"method": "mcpc3ds"},
            "unwrapping": {"method": "romeo"},
            "field": {"method": "nonlinear"},
            "mask": {"method": "brain"},
            "background": {"method": "pdf"},
            "inversion": {"method": "medi"},
        },
    ),
    "single-echo": Preset(
        "A single echo, as of older susceptibility-weighted imaging: no offset removal, best-path "
        "unwrapping, the field as phase over echo time, V-SHARP, the whole brain as reference. "
        "Phase that looks high-pass filtered is taken too: its susceptibility comes out too low.",
        {
            "reference": "whole-brain",
            "phase": {"accept_filtered": True},
            "offset": {"method": "off"},
            "unwrapping": {"method": "best-path"},
            "field": {"method": "weighted-average"},
            "background": {"method": "vsharp"},
            "inversion": {"method": "tv"},
        },
    ),
}
