"""The frame of an interleaved rANS stream: 64 lanes of 32-bit state, 16-bit words, blocks of sixteen lanes.

The steps themselves are in :mod:`stemcodecs.entropy.kernels.rans_steps`.
"""

from __future__ import annotations

import numpy as np
from numba import uint16, uint32, uint64
from numba.extending import register_jitable

from stemcodecs.compiled import kernel

LANES = 64
BLOCK = 16
LUT_SIZE = 128
"""Entries of the table that turns a rate index into a histogram."""
STATE_LOW = 1 << 15


@register_jitable
def aligned(n, dtype):
    """Zeros that begin at a cache line: a 64-byte vector across two lines costs twice. For kernels, and for Python."""
    out = np.zeros(n + 64, dtype)
    skip = (-out.ctypes.data % 64) // out.itemsize
    return out[skip : skip + n]


@kernel
def write_states(states, lanes, words, pos):
    """Put the states of the lanes in use (a bit mask) in front of the stream, lane 0 first."""
    for i in range(LANES - 1, -1, -1):
        if (lanes >> uint64(i)) & uint64(1):
            pos -= 1
            words[pos] = uint16(states[i] >> uint32(16))
            pos -= 1
            words[pos] = uint16(states[i])
    return pos


@kernel
def read_states(states, lanes, words, pos):
    """Inverse of :func:`write_states`; lanes not in use get the initial state."""
    for i in range(LANES):
        states[i] = uint32(STATE_LOW)
        if (lanes >> uint64(i)) & uint64(1):
            states[i] = uint32(words[pos]) | (uint32(words[pos + 1]) << uint32(16))
            pos += 2
    return pos
