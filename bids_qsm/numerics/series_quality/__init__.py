"""Metrics of a processed series that find bad data by themselves, with their reference ranges."""

from __future__ import annotations

from bids_qsm.numerics.series_quality.echoes import echo_values
from bids_qsm.numerics.series_quality.fits import FitQuality, measure_fit
from bids_qsm.numerics.series_quality.maps import (
    chi_values,
    field_values,
    local_values,
    mask_values,
)
from bids_qsm.numerics.series_quality.metrics import METRICS, Metric, Value, judged, metrics_table

__all__ = [
    "METRICS",
    "FitQuality",
    "Metric",
    "Value",
    "chi_values",
    "echo_values",
    "field_values",
    "judged",
    "local_values",
    "mask_values",
    "measure_fit",
    "metrics_table",
]
