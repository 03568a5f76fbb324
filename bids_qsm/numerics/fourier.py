"""Fourier transforms of many rows at once, as parts of kernels that do more than that.

The FFT of a library transforms a whole array, and the memory is passed once for each axis and for
each operation between two transforms.  Here rows that lie beside one another are transformed
together, in a block that stays in the cache, and each step is a loop over contiguous numbers.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from bids_qsm.numerics.rows import row_kernel

Float32 = NDArray[np.float32]
Axis = tuple[NDArray[np.int64], Float32, Float32]
"""Of an axis of n: the factors of n, and the cosine and sine of -2 pi k / n for each k < n."""

_INDEX = np.uint64
"""Of elements: of an index with a sign the compiler must ask whether it counts from the end."""
_HALF, _SIN_60 = np.float32(0.5), np.float32(np.sqrt(0.75))
_COS_72, _SIN_72 = np.float32(np.cos(0.4 * np.pi)), np.float32(np.sin(0.4 * np.pi))
_COS_144, _SIN_144 = np.float32(np.cos(0.8 * np.pi)), np.float32(np.sin(0.8 * np.pi))


def axis_of(n: int) -> Axis:
    """Return what the transform of an axis of ``n`` needs."""
    factors, rest = [], n
    for factor in (4, 2, 3, 5):
        while rest % factor == 0:
            factors.append(factor)
            rest //= factor
    factor = 7
    while rest > 1:
        while rest % factor == 0:
            factors.append(factor)
            rest //= factor
        factor += 2
    angles = -2 * np.pi * np.arange(n) / n
    return (
        np.array(factors, np.int64),
        np.cos(angles).astype(np.float32),
        np.sin(angles).astype(np.float32),
    )


@numba.njit(cache=True)
def transform(re, im, spare_re, spare_im, lanes, axis):  # type: ignore[no-untyped-def]
    """Transform rows that lie beside one another.

    With real and imaginary part exchanged, both before and after, it is the inverse, less the
    division by n.

    Parameters
    ----------
    re, im, spare_re, spare_im : ndarray of float32, shape (n * lanes,)
        Element k of row i at ``k * lanes + i``, and room.  All are overwritten.
    lanes : int
        Number of rows.
    axis : Axis

    Returns
    -------
    tuple of four ndarray
        Those given; the first two hold the result.

    References
    ----------
    Stockham 1966, 10.1145/1464182.1464209 (self-sorting); Temperton 1983,
    10.1016/0021-9991(83)90013-X (mixed radices).
    """
    factors, cos, sin = axis
    done = 1
    for factor in factors:
        _pass(re, im, spare_re, spare_im, factor, done, lanes, cos, sin)
        re, im, spare_re, spare_im = spare_re, spare_im, re, im
        done *= factor
    return re, im, spare_re, spare_im


@numba.njit(cache=True)
def _pass(xr, xi, yr, yi, factor, done, lanes, cos, sin):  # type: ignore[no-untyped-def]
    """One factor: from x, in which ``done`` of n are transformed, to y."""
    n = len(cos)
    parts = n // (factor * done)
    a, b = n // factor * lanes, done * lanes  # from one that is combined to the next, in x and y
    if factor == 2:
        _pass_2(xr, xi, a, yr, yi, yr[b:], yi[b:], parts, b, done, cos, sin)
    elif factor == 3:
        _pass_3(
            *(xr, xi, a, yr, yi, yr[b:], yi[b:], yr[2 * b :], yi[2 * b :]),
            *(parts, b, done, cos, sin),
        )
    elif factor == 4:
        _pass_4(
            *(xr, xi, a, yr, yi, yr[b:], yi[b:], yr[2 * b :], yi[2 * b :], yr[3 * b :]),
            *(yi[3 * b :], parts, b, done, cos, sin),
        )
    elif factor == 5:
        _pass_5(
            *(xr, xi, a, yr, yi, yr[b:], yi[b:], yr[2 * b :], yi[2 * b :], yr[3 * b :]),
            *(yi[3 * b :], yr[4 * b :], yi[4 * b :], parts, b, done, cos, sin),
        )
    else:
        _pass_any(xr, xi, a, yr, yi, factor, parts, b, done, cos, sin)


# Below, 0 to 4 number the elements that are combined: those of x lie ``a`` apart, those of y are
# given one by one, for the compiler to see that they do not overlap.


@row_kernel()
def _pass_2(x_re, x_im, a, re0, im0, re1, im1, parts, width, done, cos, sin):  # type: ignore[no-untyped-def]
    step, block = _INDEX(a), _INDEX(width)
    for part in range(_INDEX(parts)):
        turn = part * _INDEX(done)
        c1, s1 = cos[turn], sin[turn]
        for lane in range(block):
            i, o = part * block + lane, _INDEX(2) * part * block + lane
            xr, xi, yr, yi = x_re[i], x_im[i], x_re[i + step], x_im[i + step]
            re0[o], im0[o] = xr + yr, xi + yi
            re1[o] = (xr - yr) * c1 - (xi - yi) * s1
            im1[o] = (xr - yr) * s1 + (xi - yi) * c1


@row_kernel()
def _pass_3(  # type: ignore[no-untyped-def]
    x_re, x_im, a, re0, im0, re1, im1, re2, im2, parts, width, done, cos, sin
):
    step, block = _INDEX(a), _INDEX(width)
    for part in range(_INDEX(parts)):
        turn = part * _INDEX(done)
        c1, s1, c2, s2 = cos[turn], sin[turn], cos[2 * turn], sin[2 * turn]
        for lane in range(block):
            i, o = part * block + lane, _INDEX(3) * part * block + lane
            j, k = i + step, i + step + step
            sum_re, sum_im = x_re[j] + x_re[k], x_im[j] + x_im[k]
            mid_re, mid_im = x_re[i] - _HALF * sum_re, x_im[i] - _HALF * sum_im
            off_re, off_im = _SIN_60 * (x_im[j] - x_im[k]), _SIN_60 * (x_re[k] - x_re[j])
            re0[o], im0[o] = x_re[i] + sum_re, x_im[i] + sum_im
            re, im = mid_re + off_re, mid_im + off_im
            re1[o], im1[o] = re * c1 - im * s1, re * s1 + im * c1
            re, im = mid_re - off_re, mid_im - off_im
            re2[o], im2[o] = re * c2 - im * s2, re * s2 + im * c2


@row_kernel()
def _pass_4(  # type: ignore[no-untyped-def]
    x_re, x_im, a, re0, im0, re1, im1, re2, im2, re3, im3, parts, width, done, cos, sin
):
    step, block = _INDEX(a), _INDEX(width)
    for part in range(_INDEX(parts)):
        turn = part * _INDEX(done)
        c1, s1, c2, s2 = cos[turn], sin[turn], cos[2 * turn], sin[2 * turn]
        c3, s3 = cos[3 * turn], sin[3 * turn]
        for lane in range(block):
            i, o = part * block + lane, _INDEX(4) * part * block + lane
            j, k, l = i + step, i + 2 * step, i + 3 * step  # noqa: E741
            even_re, even_im = x_re[i] + x_re[k], x_im[i] + x_im[k]
            less_re, less_im = x_re[i] - x_re[k], x_im[i] - x_im[k]
            odd_re, odd_im = x_re[j] + x_re[l], x_im[j] + x_im[l]
            off_re, off_im = x_im[j] - x_im[l], x_re[l] - x_re[j]
            re0[o], im0[o] = even_re + odd_re, even_im + odd_im
            re, im = less_re + off_re, less_im + off_im
            re1[o], im1[o] = re * c1 - im * s1, re * s1 + im * c1
            re, im = even_re - odd_re, even_im - odd_im
            re2[o], im2[o] = re * c2 - im * s2, re * s2 + im * c2
            re, im = less_re - off_re, less_im - off_im
            re3[o], im3[o] = re * c3 - im * s3, re * s3 + im * c3


@row_kernel()
def _pass_5(  # type: ignore[no-untyped-def]
    x_re, x_im, a, re0, im0, re1, im1, re2, im2, re3, im3, re4, im4, parts, width, done, cos, sin
):
    step, block = _INDEX(a), _INDEX(width)
    for part in range(_INDEX(parts)):
        turn = part * _INDEX(done)
        c1, s1, c2, s2 = cos[turn], sin[turn], cos[2 * turn], sin[2 * turn]
        c3, s3, c4, s4 = cos[3 * turn], sin[3 * turn], cos[4 * turn], sin[4 * turn]
        for lane in range(block):
            i, o = part * block + lane, _INDEX(5) * part * block + lane
            j, k, l, m = i + step, i + 2 * step, i + 3 * step, i + 4 * step  # noqa: E741
            ends_re, ends_im = x_re[j] + x_re[m], x_im[j] + x_im[m]
            mids_re, mids_im = x_re[k] + x_re[l], x_im[k] + x_im[l]
            # times -i, as they are needed
            far_re, far_im = x_im[j] - x_im[m], x_re[m] - x_re[j]
            near_re, near_im = x_im[k] - x_im[l], x_re[l] - x_re[k]
            re0[o], im0[o] = x_re[i] + ends_re + mids_re, x_im[i] + ends_im + mids_im
            mid_re = x_re[i] + _COS_72 * ends_re + _COS_144 * mids_re
            mid_im = x_im[i] + _COS_72 * ends_im + _COS_144 * mids_im
            off_re, off_im = (
                _SIN_72 * far_re + _SIN_144 * near_re,
                _SIN_72 * far_im + _SIN_144 * near_im,
            )
            re, im = mid_re + off_re, mid_im + off_im
            re1[o], im1[o] = re * c1 - im * s1, re * s1 + im * c1
            re, im = mid_re - off_re, mid_im - off_im
            re4[o], im4[o] = re * c4 - im * s4, re * s4 + im * c4
            mid_re = x_re[i] + _COS_144 * ends_re + _COS_72 * mids_re
            mid_im = x_im[i] + _COS_144 * ends_im + _COS_72 * mids_im
            off_re, off_im = (
                _SIN_144 * far_re - _SIN_72 * near_re,
                _SIN_144 * far_im - _SIN_72 * near_im,
            )
            re, im = mid_re + off_re, mid_im + off_im
            re2[o], im2[o] = re * c2 - im * s2, re * s2 + im * c2
            re, im = mid_re - off_re, mid_im - off_im
            re3[o], im3[o] = re * c3 - im * s3, re * s3 + im * c3


@numba.njit(cache=True)
def _pass_any(x_re, x_im, a, y_re, y_im, factor, parts, width, done, cos, sin):  # type: ignore[no-untyped-def]
    """Any other factor, by the sum that it is."""
    n = len(cos)
    for part in range(parts):
        for k in range(factor):
            o = (factor * part + k) * width
            out_re, out_im = y_re[o : o + width], y_im[o : o + width]
            out_re[:], out_im[:] = np.float32(0), np.float32(0)
            for j in range(factor):
                i = part * width + j * a
                turn = k * (part * done + j * (n // factor)) % n
                _add_turned(
                    x_re[i : i + width], x_im[i : i + width], cos[turn], sin[turn], out_re, out_im
                )


@row_kernel()
def _add_turned(re, im, cos, sin, out_re, out_im):  # type: ignore[no-untyped-def]
    for i in range(len(re)):
        out_re[i] += re[i] * cos - im[i] * sin
        out_im[i] += re[i] * sin + im[i] * cos
