"""Whether numbers come out here as they did where the golden values were made, to the last digit.

Where they do, all that is computed repeats byte for byte, so that nothing may drift.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version

import numba
import numpy as np
from llvmlite import binding
from scipy import fft

PACKAGES = (
    "antspyx",
    "llvmlite",
    "numba",
    "numpy",
    "pandas",
    "scikit-image",
    "scipy",
    "statsmodels",
)
N_NUMBERS = 40_000


@cache
def surroundings() -> str:
    """Return what decides the last digit of a result: versions, processor and functions."""
    numbers = hashlib.blake2b(digest_size=10)
    for values in _last_digits():
        numbers.update(np.ascontiguousarray(values).data)
    versions = [f"{name} {version(name)}" for name in PACKAGES]
    processor = numba.config.CPU_NAME or binding.get_host_cpu_name()
    return ", ".join([*versions, f"compiled for {processor}", f"functions {numbers.hexdigest()}"])


def _last_digits() -> Iterator[np.ndarray]:
    """Yield what numpy and the system's mathematical library, which ITK calls, make of numbers."""
    raw = np.random.PCG64(3).random_raw(2 * N_NUMBERS)
    numbers = (raw >> np.uint64(40)) / 2**24 * 6 - 3
    for dtype in (np.float32, np.float64):
        x, y = numbers.astype(dtype).reshape(2, -1)
        for function in (np.exp, np.sin, np.cos, np.tan, np.tanh):
            yield function(x)
        yield from (
            np.log(np.abs(x)),
            np.sqrt(np.abs(x)),
            np.arctan2(x, y),
            np.abs(x) ** dtype(1.7),
        )
        yield from ((x + 1j * y) * (y + 1j * x), np.abs(x + 1j * y), fft.rfft(x))
    for function in (math.exp, math.sin, math.cos, math.log1p, math.atan, math.sinh):
        yield np.array([function(abs(number)) for number in numbers[:N_NUMBERS]])
