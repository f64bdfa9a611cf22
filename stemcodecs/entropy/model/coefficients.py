"""Unroll the context weights of classes to one set of factors per pixel, in integers: the decoder repeats it."""

from __future__ import annotations

from numba import int64

from stemcodecs.compiled import kernel

DOSE_BITS = 12
"""Fraction bits of a frame's dose relative to the mean frame."""
WEIGHT_BITS = 12
"""Fraction bits of context weights."""
MEAN_BITS = 16
"""Fraction bits of a pixel's mean count."""
_RATIO_BITS = 20
_RATIO_LIMIT = 32 << _RATIO_BITS
_QUARTER = 1 << (MEAN_BITS - 2)
_LARGEST = (1 << 31) - 1


@kernel
def unroll_coefficients(mean, classes, width, height, oy, ox, weights, fractions, first, last, out):
    """Constant, slope with the dose, and one factor per neighbour, for every pixel and weight set.

    A specimen multiplies the beam, so a neighbour predicts by its ratio to its own mean:
    ``rate = mean * (w_0 * dose + sum(w_i * (Y_i + 1/4) / (mean_i + 1/4)))``. A neighbour that lies outside the
    detector, or is constant, leaves its weight to the dose.

    mean : int64[n_pixels], in units of 2**-16; classes : int64[n_pixels], -1 for constant pixels; oy, ox : int64[m];
    weights : int64[n_classes, n_sets, 1 + m]; fractions : int64[n_classes], fraction bits of the rate;
    first, last : range of pixels to do; out : int32[n_pixels, n_sets, 2 + m], the result.
    """
    m = oy.shape[0]
    for p in range(first, last):
        c = classes[p]
        if c < 0:
            out[p] = 0
            continue
        y = p // width
        x = p - y * width
        fraction = fractions[c]
        for s in range(weights.shape[1]):
            own = weights[c, s, 0]
            constant = int64(0)
            for i in range(m):
                w = weights[c, s, 1 + i]
                yy = y + oy[i]
                xx = x + ox[i]
                inside = yy >= 0 and yy < height and xx >= 0 and xx < width
                factor = int64(0)
                # A constant neighbour says nothing; a ratio to its mean of 0 would say too much.
                if inside and classes[yy * width + xx] >= 0:
                    if w != 0:
                        at = yy * width + xx
                        # A quarter count keeps the ratio finite; 32 keeps one hot count beside a dark pixel
                        # from promising thousands.
                        ratio = min((mean[p] << _RATIO_BITS) // (mean[at] + _QUARTER), int64(_RATIO_LIMIT))
                        factor = (w * ratio) >> (WEIGHT_BITS + _RATIO_BITS - fraction)
                        factor = min(max(factor, int64(-_LARGEST - 1)), int64(_LARGEST))
                else:
                    own += w
                out[p, s, 2 + i] = factor
                # The quarter that is added to every count, taken out of the loop over lanes.
                constant += factor >> 2
            slope = (own * mean[p]) >> (WEIGHT_BITS + MEAN_BITS + DOSE_BITS - fraction)
            out[p, s, 0] = min(max(constant, int64(-_LARGEST - 1)), int64(_LARGEST))
            out[p, s, 1] = min(max(slope, int64(-_LARGEST - 1)), int64(_LARGEST))
