"""From counted histograms to integer frequencies, and from frequencies to the tables that the kernels look up."""

from __future__ import annotations

import numpy as np
from numba import int64, uint32

from stemcodecs.compiled import kernel

SYMBOLS = 256
STRIDE = SYMBOLS + 16
"""Distance of tables of symbols in memory: with a power of two their first entries would compete for a few cache lines.
"""
PATCH_BITS = 30.0
"""What a value outside its histogram costs: it is coded as a likely one and written again as a patch."""


@kernel
def normalise(histograms, bits, frequencies):
    """Quantise histograms to frequencies that sum to ``2**bits[k]``, at the least total code length.

    A symbol so rare that giving it the least frequency would cost more than patching it gets none.

    histograms : int64[n, 256]; bits : int64[n]; frequencies : int32[n, 256], the result. An empty histogram becomes one
    certain symbol.
    """
    heap = np.empty(SYMBOLS)
    for k in range(histograms.shape[0]):
        total = 1 << bits[k]
        h = histograms[k]
        f = frequencies[k]
        f[:] = 0
        n = 0.0
        for i in range(SYMBOLS):
            n += h[i]
        if n == 0:
            f[0] = total
            continue
        # Least frequency costs all others log2(1 - 1/total) each; a patch costs PATCH_BITS instead of `bits`.
        least = n / total / np.log(2.0) / (PATCH_BITS - bits[k])
        kept = 0.0
        peak = 0
        for i in range(SYMBOLS):
            if h[i] > h[peak]:
                peak = i
            if h[i] > least:
                kept += h[i]
        if kept == 0:
            f[peak] = total
            continue
        s = 0
        for i in range(SYMBOLS):
            if h[i] > least:
                f[i] = max(int64(1), int64(h[i] * total / kept + 0.5))
                s += f[i]
        while s != total:
            step = 1 if s < total else -1
            best = -1
            least_cost = 1e300
            for i in range(SYMBOLS):
                heap[i] = 1e300
                if f[i] > 0 and f[i] + step > 0:
                    heap[i] = h[i] * (np.log(f[i]) - np.log(f[i] + step))
                if heap[i] < least_cost:
                    least_cost = heap[i]
                    best = i
            f[best] += step
            s += step


@kernel
def build_encode_tables(frequencies, tables, likeliest):
    """Encode entries ``frequency << 16 | start`` (uint32[n * STRIDE]) and each table's likeliest symbol (uint16[n])."""
    for k in range(frequencies.shape[0]):
        start = uint32(0)
        peak = 0
        for i in range(SYMBOLS):
            f = uint32(frequencies[k, i])
            tables[k * STRIDE + i] = (f << uint32(16)) | start
            start += f
            if frequencies[k, i] > frequencies[k, peak]:
                peak = i
        likeliest[k] = peak


@kernel
def build_decode_tables(frequencies, starts, tables):
    """Decode entries ``(frequency - 1) << 20 | bias << 8 | symbol``; table k begins at ``starts[k]``."""
    for k in range(frequencies.shape[0]):
        at = starts[k]
        for i in range(SYMBOLS):
            f = frequencies[k, i]
            base = (uint32(f - 1) << uint32(20)) | uint32(i)
            for bias in range(f):
                tables[at + bias] = base | (uint32(bias) << uint32(8))
            at += f
