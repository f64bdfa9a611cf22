"""What a network for images sees of a pixel: differences from a prediction, in units of how much goes on around it.

Images are no counts: their noise depends on gain and read-out, and edges matter more than noise. The *base* of a pixel
is the median edge detector of JPEG-LS (M. J. Weinberger et al., doi:10.1109/83.855427), its *activity* the sum of
gradients around it and of what the base missed at the two nearest pixels. Differences are divided by the power of two
below a quarter of the activity, so that one network serves flat and busy places, dim and bright images.

The integers of the coder and the floats of the fit come from the same small functions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import float32, int16, int32, int64

from stemcodecs.compiled import kernel
from stemcodecs.entropy.kernels.borrowed import borrowed
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.learned.training_kernels import NOTHING_BELOW

__all__ = ["ImageTrainingData", "image_rows", "image_samples"]

_FIRST_ACTIVITY = 1024
"""Of the first pixel, around which nothing is known."""
_LEAST_ACTIVITY = 4
_MOST_UNIT = 12
_MOST_DIFFERENCE = 4096
"""Sixty-four units, with six fraction bits."""


class ImageTrainingData(NamedTuple):
    """Pixels of images.

    Attributes
    ----------
    plane : uint8 or uint16[n_images, n_pixels]
    width : int
        Columns of an image.
    first : int
        See :class:`stemcodecs.learned.image_model.ImageModel`.
    dose : int64[n_images]
        Root of the dose, 4096 for the mean image.
    references : int64[n_images, 4]
        Images that a neighbour's reference leads to; -1 where there is none.
    neighbours : int64[n, 3]
        Reference, dy, dx.
    chained : bool
    """

    plane: Any
    width: int
    first: int
    dose: Any
    references: Any
    neighbours: Any
    chained: bool


@kernel(forceinline=True)
def _around(y, x, width):
    """Pixels to the left, above, above left, above right, and two to the left and two above; none is the first's."""
    p = y * width + x
    if y == 0:
        left = p - 1
        return left, left, left, left, (p - 2 if x > 1 else left), left
    above = p - width
    left = p - 1 if x > 0 else above
    return (
        left,
        above,
        above - 1 if x > 0 else above,
        above + 1 if x < width - 1 else above,
        p - 2 if x > 1 else left,
        above - width if y > 1 else above,
    )


@kernel(forceinline=True)
def _edge_base(left, above, corner):
    """The median of left, above, and the plane through all three."""
    low, high = min(left, above), max(left, above)
    return min(max(left + above - corner, low), high)


@kernel(forceinline=True)
def _activity(left, above, corner, right, left2, above2, error_left, error_above):
    gradients = abs(left - corner) + abs(above - corner) + abs(above - right) + abs(left - left2) + abs(above - above2)
    return gradients + 2 * (abs(error_left) + abs(error_above)) + _LEAST_ACTIVITY


@kernel(forceinline=True)
def _exponent(v, most):
    """``floor(log2 v)`` of v from 1 to ``2**(most + 1) - 1``, without a branch."""
    n = int64(0)
    for i in range(1, most + 1):
        n += int64(v >= int64(1) << i)
    return n


@kernel(forceinline=True)
def _logarithm(v):
    """``log2 v`` with six fraction bits, linear between powers of two."""
    n = _exponent(v, 19)
    return 64 * n + ((v << 6) >> n) - 64


@kernel(forceinline=True)
def _unit(activity):
    return min(_exponent(activity, 19) - 2, int64(_MOST_UNIT))


@kernel(forceinline=True)
def _scaled(difference, unit):
    return min(max((difference << 6) >> unit, int64(-_MOST_DIFFERENCE)), int64(_MOST_DIFFERENCE))


@kernel
def image_rows(network, group, values, p, y, x, work):
    """Base, unit and features of a pixel in all lanes: ``work.base``, ``work.unit``, ``work.features``.

    values : uint16, flat, rows of 64 lanes; pixel q of the step is row ``group.origin + q``.
    """
    width, height = network.width, network.height
    base, unit, features = work.base, work.unit, work.features
    origin = int64(group.origin)
    if p == 0:
        for j in range(LANES):
            before = int64(values[(origin - group.back[0] * network.pixels) * LANES + j])
            base[j] = int32(before if group.back[0] > 0 else network.first_pixel)
            _lane_activity(work, j, int64(_FIRST_ACTIVITY), int64(0), int64(0))
    else:
        left, above, corner, right, left2, above2 = _around(y, x, width)
        left, above, corner = (origin + left) * LANES, (origin + above) * LANES, (origin + corner) * LANES
        right, left2, above2 = (origin + right) * LANES, (origin + left2) * LANES, (origin + above2) * LANES
        for j in range(LANES):
            a, b, c = int64(values[left + j]), int64(values[above + j]), int64(values[corner + j])
            d, e, f = int64(values[right + j]), int64(values[left2 + j]), int64(values[above2 + j])
            error_left = int64(work.errors[(x - 1) * LANES + j]) if x > 0 else int64(0)
            error_above = int64(work.errors[x * LANES + j]) if y > 0 else int64(0)
            base[j] = int32(_edge_base(a, b, c))
            activity = _activity(a, b, c, d, e, f, error_left, error_above)
            _lane_activity(work, j, activity, error_left, error_above)
    k = int64(work.first_moving + 5)
    for i in range(network.neighbours.shape[0]):
        reference, dy, dx = network.neighbours[i, 0], network.neighbours[i, 1], network.neighbours[i, 2]
        back = group.back[reference - 1] if reference > 0 else int64(0)
        inside = 0 <= y + dy < height and 0 <= x + dx < width and (reference == 0 or back > 0)
        if inside:
            at = (origin - back * network.pixels + (y + dy) * width + x + dx) * LANES
            for j in range(LANES):
                features[k * LANES + j] = int16(_scaled(int64(values[at + j]) - int64(base[j]), int64(unit[j])))
        else:
            for j in range(LANES):
                features[k * LANES + j] = int16(0)
        k += 1


@kernel(forceinline=True)
def _lane_activity(work, j, activity, error_left, error_above):
    """Unit of a lane, and the features that do not come from single neighbours; the first one or two never change."""
    at = work.first_moving * LANES + j
    unit = _unit(activity)
    work.unit[j] = int32(unit)
    work.features[at] = int16(_logarithm(activity))
    work.features[at + LANES] = int16((activity << 6) >> _exponent(activity, 19))
    work.features[at + 2 * LANES] = int16(_logarithm(int64(work.base[j]) + 1))
    work.features[at + 3 * LANES] = int16(_scaled(error_left, unit))
    work.features[at + 4 * LANES] = int16(_scaled(error_above, unit))


@kernel(forceinline=True)
def _base_of(data, f, y, x):
    """Base of one pixel of the plane."""
    if y == 0 and x == 0:
        before = data.references[f, 0]
        return int64(data.plane[before, 0]) if data.chained and before >= 0 else int64(data.first)
    left, above, corner, _, _, _ = _around(y, x, data.width)
    return _edge_base(int64(data.plane[f, left]), int64(data.plane[f, above]), int64(data.plane[f, corner]))


@kernel(forceinline=True)
def _error_at(data, f, y, x):
    return int64(data.plane[f, y * data.width + x]) - _base_of(data, f, y, x)


@kernel
def image_samples(data, positions, pixels, out, low, up):
    """Features of some pixels, as the coder has them, and between which values they lie: in units, from the base.

    positions, pixels : int64[n]; out : float32[n, features]; low, up : float32[n], half a value to each side; below 0
    there is nothing.
    """
    data = borrowed(data)
    width = data.width
    height = data.plane.shape[1] // width
    for s in range(positions.shape[0]):
        f, p = positions[s], pixels[s]
        y = p // width
        x = p - y * width
        base = _base_of(data, f, y, x)
        activity, error_left, error_above = int64(_FIRST_ACTIVITY), int64(0), int64(0)
        if p > 0:
            error_left = _error_at(data, f, y, x - 1) if x > 0 else int64(0)
            error_above = _error_at(data, f, y - 1, x) if y > 0 else int64(0)
            a, b, c, d, e, g = _around(y, x, width)
            row = data.plane[f]
            activity = _activity(
                int64(row[a]), int64(row[b]), int64(row[c]), int64(row[d]), int64(row[e]), int64(row[g]),
                error_left, error_above,
            )  # fmt: skip
        unit = _unit(activity)
        out[s, 0] = float32((data.dose[f] - 4096) >> 5)
        k = 1
        if data.chained:
            out[s, 1] = float32(64 if data.references[f, 0] >= 0 else 0)
            k = 2
        out[s, k] = float32(_logarithm(activity))
        out[s, k + 1] = float32((activity << 6) >> _exponent(activity, 19))
        out[s, k + 2] = float32(_logarithm(base + 1))
        out[s, k + 3] = float32(_scaled(error_left, unit))
        out[s, k + 4] = float32(_scaled(error_above, unit))
        k += 5
        for i in range(data.neighbours.shape[0]):
            reference, dy, dx = data.neighbours[i, 0], data.neighbours[i, 1], data.neighbours[i, 2]
            other = data.references[f, reference - 1] if reference > 0 else f
            yy, xx = y + dy, x + dx
            value = float32(0)
            if other >= 0 and 0 <= yy < height and 0 <= xx < width:
                value = float32(_scaled(int64(data.plane[other, yy * width + xx]) - base, unit))
            out[s, k] = value
            k += 1
        own = int64(data.plane[f, p])
        one = float32(int64(1) << unit)
        up[s] = float32(2 * (own - base) + 1) / (2 * one)
        low[s] = float32(2 * (own - base) - 1) / (2 * one) if own > 0 else NOTHING_BELOW
