"""Dipole inversions: from the local field to susceptibility, one module for each method."""

from __future__ import annotations

from bids_qsm.numerics.inversion.hdqsm import hd_qsm
from bids_qsm.numerics.inversion.ilsqr import ilsqr
from bids_qsm.numerics.inversion.l2 import l2
from bids_qsm.numerics.inversion.medi import medi
from bids_qsm.numerics.inversion.ndi import ndi
from bids_qsm.numerics.inversion.nltv import nltv
from bids_qsm.numerics.inversion.rts import rts
from bids_qsm.numerics.inversion.tgv import tgv
from bids_qsm.numerics.inversion.tikhonov import tikhonov
from bids_qsm.numerics.inversion.tkd import tkd
from bids_qsm.numerics.inversion.tv import tv
from bids_qsm.numerics.registry import Methods

METHODS: Methods = {
    "tv": tv,
    "tkd": tkd,
    "l2": l2,
    "tikhonov": tikhonov,
    "ilsqr": ilsqr,
    "ndi": ndi,
    "rts": rts,
    "hd-qsm": hd_qsm,
    "medi": medi,
    "nltv": nltv,
    "tgv": tgv,
}
