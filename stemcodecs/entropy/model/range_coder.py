"""An adaptive binary range coder for the few kilobytes of a model: maps, tables, weights.

The coder is the range coder of LZMA: 32-bit range, 12-bit adaptive probabilities. Numbers are binarised as Exp-Golomb
codes whose bits have adaptive contexts. It is integer arithmetic throughout, and any bytes decode to
*something* without reading out of bounds: what the something means is checked by the caller.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64, uint8, uint32

from stemcodecs.compiled import kernel

CONTEXT_SIZE = 96
"""Adaptive bits of one context: zero flag, sign, 32 prefix bits, and the top two bits below each leading one."""

_PROBABILITY_BITS = 12
# After about 32 bits a state has forgotten what it began with: models are short, and adapt at once.
_ADAPT = 5
_TOP = 1 << 24
_HALF = 1 << (_PROBABILITY_BITS - 1)


def new_contexts(n: int) -> np.ndarray[Any, Any]:
    """Fresh adaptive state for ``n`` contexts: uint32[n, CONTEXT_SIZE]."""
    return np.full((n, CONTEXT_SIZE), _HALF, np.uint32)


# Coder state, int64[6]: low, range, cache, pending bytes, position | low doubles as `code` when decoding.
_LOW, _RANGE, _CACHE, _PENDING, _POSITION = range(5)


@kernel
def _start_encode(state):
    state[_LOW] = 0
    state[_RANGE] = 0xFFFFFFFF
    state[_CACHE] = 0
    # The first byte that comes out is the empty cache: always 0, and the decoder skips it.
    state[_PENDING] = 1
    state[_POSITION] = 0


@kernel
def _shift_low(state, out):
    low = state[_LOW]
    # A byte of 255 may still become 256 by a later carry: such bytes are only counted until it is decided.
    if low < 0xFF000000 or low > 0xFFFFFFFF:
        carry = low >> 32
        byte = state[_CACHE]
        while state[_PENDING] > 0:
            out[state[_POSITION]] = uint8((byte + carry) & 0xFF)
            state[_POSITION] += 1
            byte = 0xFF
            state[_PENDING] -= 1
        state[_CACHE] = (low >> 24) & 0xFF
    state[_PENDING] += 1
    state[_LOW] = (low << 8) & 0xFFFFFFFF


@kernel
def _encode_bit(state, out, context, i, bit):
    # The probability never reaches 0 or 1: it stops at 31/4096 on either side, so that a surprise costs seven bits.
    p = int64(context[i])
    bound = (state[_RANGE] >> _PROBABILITY_BITS) * p
    if bit == 0:
        state[_RANGE] = bound
        context[i] = uint32(p + (((1 << _PROBABILITY_BITS) - p) >> _ADAPT))
    else:
        state[_LOW] += bound
        state[_RANGE] -= bound
        context[i] = uint32(p - (p >> _ADAPT))
    while state[_RANGE] < _TOP:
        state[_RANGE] = (state[_RANGE] << 8) & 0xFFFFFFFF
        _shift_low(state, out)


@kernel
def _encode_plain(state, out, value, width):
    for i in range(width - 1, -1, -1):
        state[_RANGE] >>= 1
        if (value >> i) & 1:
            state[_LOW] += state[_RANGE]
        while state[_RANGE] < _TOP:
            state[_RANGE] = (state[_RANGE] << 8) & 0xFFFFFFFF
            _shift_low(state, out)


@kernel
def _finish_encode(state, out):
    # Four bytes of low and the cached one: whatever follows in the file, the decoder has its 32 bits.
    for _ in range(5):
        _shift_low(state, out)
    return state[_POSITION]


@kernel
def _next_byte(state, data):
    at = state[_POSITION]
    state[_POSITION] = at + 1
    # Zeros behind the end: a section that was cut decodes to something, which its reader then refuses.
    return int64(data[at]) if at < data.shape[0] else int64(0)


@kernel
def _start_decode(state, data):
    state[_RANGE] = 0xFFFFFFFF
    state[_POSITION] = 1
    code = int64(0)
    for _ in range(4):
        code = (code << 8) | _next_byte(state, data)
    state[_LOW] = code


@kernel
def _decode_bit(state, data, context, i):
    p = int64(context[i])
    bound = (state[_RANGE] >> _PROBABILITY_BITS) * p
    if state[_LOW] < bound:
        state[_RANGE] = bound
        context[i] = uint32(p + (((1 << _PROBABILITY_BITS) - p) >> _ADAPT))
        bit = 0
    else:
        state[_LOW] -= bound
        state[_RANGE] -= bound
        context[i] = uint32(p - (p >> _ADAPT))
        bit = 1
    while state[_RANGE] < _TOP:
        state[_RANGE] = (state[_RANGE] << 8) & 0xFFFFFFFF
        state[_LOW] = ((state[_LOW] << 8) | _next_byte(state, data)) & 0xFFFFFFFF
    return bit


@kernel
def _decode_plain(state, data, width):
    value = int64(0)
    for _ in range(width):
        state[_RANGE] >>= 1
        bit = int64(0)
        if state[_LOW] >= state[_RANGE]:
            state[_LOW] -= state[_RANGE]
            bit = int64(1)
        value = (value << 1) | bit
        while state[_RANGE] < _TOP:
            state[_RANGE] = (state[_RANGE] << 8) & 0xFFFFFFFF
            state[_LOW] = ((state[_LOW] << 8) | _next_byte(state, data)) & 0xFFFFFFFF
    return value


# A number v: zero flag (bit 0), sign (bit 1), then |v| = 2**e + rest: e in unary (bits 2..33), the top two bits of the
# rest with contexts (bits 34 + 2e and + 1 by the bit above), the others plain.


@kernel
def _encode_number(state, out, context, value):
    if value == 0:
        _encode_bit(state, out, context, 0, 1)
        return
    _encode_bit(state, out, context, 0, 0)
    _encode_bit(state, out, context, 1, 1 if value < 0 else 0)
    magnitude = abs(value)
    e = 0
    while (magnitude >> (e + 1)) != 0:
        e += 1
    for i in range(e):
        _encode_bit(state, out, context, 2 + i, 1)
    # After 31 ones the prefix is as long as it can be: a 0 behind them would say nothing.
    if e < 31:
        _encode_bit(state, out, context, 2 + e, 0)
    if e >= 1:
        # The highest bit of the rest has a shape worth learning; those below are noise, and plain.
        bit = (magnitude >> (e - 1)) & 1
        _encode_bit(state, out, context, 33 + e, bit)
        _encode_plain(state, out, magnitude & ((1 << (e - 1)) - 1), e - 1)


@kernel
def _decode_number(state, data, context):
    if _decode_bit(state, data, context, 0) == 1:
        return int64(0)
    negative = _decode_bit(state, data, context, 1)
    e = 0
    # The bound keeps the shifts below within 63 bits, whatever the bytes are.
    while e < 31 and _decode_bit(state, data, context, 2 + e) == 1:
        e += 1
    magnitude = int64(1)
    if e >= 1:
        magnitude = (magnitude << 1) | int64(_decode_bit(state, data, context, 33 + e))
        magnitude = (magnitude << (e - 1)) | _decode_plain(state, data, e - 1)
    return -magnitude if negative else magnitude


@kernel
def _encode_sequence(values, which, contexts, out):
    state = np.zeros(6, np.int64)
    _start_encode(state)
    for i in range(values.shape[0]):
        _encode_number(state, out, contexts[which[i]], values[i])
    return _finish_encode(state, out)


@kernel
def _decode_sequence(data, which, contexts, values):
    state = np.zeros(6, np.int64)
    _start_decode(state, data)
    for i in range(values.shape[0]):
        values[i] = _decode_number(state, data, contexts[which[i]])


def encode_numbers(values: np.ndarray[Any, Any], which: np.ndarray[Any, Any] | None = None) -> bytes:
    """Code integers below 2**32 in magnitude; ``which`` (small ints) names the adaptive context of each."""
    values = np.ascontiguousarray(values, np.int64).ravel()
    contexts_of = np.zeros(values.size, np.int64) if which is None else np.asarray(which, np.int64).ravel()
    out = np.empty(8 * values.size + 64, np.uint8)
    contexts = new_contexts(int(contexts_of.max(initial=0)) + 1)
    n = _encode_sequence(values, contexts_of, contexts, out)
    return out[:n].tobytes()


def decode_numbers(
    data: bytes | memoryview, count: int, which: np.ndarray[Any, Any] | None = None
) -> np.ndarray[Any, Any]:
    """Inverse of :func:`encode_numbers`; returns int64[count]."""
    contexts_of = np.zeros(count, np.int64) if which is None else np.asarray(which, np.int64).ravel()
    values = np.empty(count, np.int64)
    contexts = new_contexts(int(contexts_of.max(initial=0)) + 1)
    _decode_sequence(np.frombuffer(data, np.uint8), contexts_of, contexts, values)
    return values


@kernel
def _activity(a, b):
    d = abs(a - b)
    if d < 3:
        return d
    return 3 if d < 6 else (4 if d < 14 else 5)


@kernel
def map_prediction(image, y, x):
    """Prediction of a smooth noisy map from the pixels above and to the left, and how busy it is there."""
    if y == 0 and x == 0:
        return int64(0), 5
    if y == 0:
        return image[y, x - 1], 2
    if x == 0:
        return image[y - 1, x], 2
    w, n, nw = image[y, x - 1], image[y - 1, x], image[y - 1, x - 1]
    ne = image[y - 1, x + 1] if x + 1 < image.shape[1] else n
    # The nearest two count most; north-east balances west, or the prediction would lag to the left. No gradient of
    # neighbours: the map is noisy.
    prediction = (3 * w + 3 * n + 2 * ne + 4) >> 3
    # How far neighbours differ tells how far the next one will: six contexts, by the largest difference.
    spread = max(_activity(w, nw), max(_activity(n, nw), _activity(n, ne)))
    return prediction, spread


@kernel
def _encode_map_kernel(image, contexts, out):
    state = np.zeros(6, np.int64)
    _start_encode(state)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            prediction, busy = map_prediction(image, y, x)
            _encode_number(state, out, contexts[busy], image[y, x] - prediction)
    return _finish_encode(state, out)


@kernel
def _decode_map_kernel(data, contexts, image):
    state = np.zeros(6, np.int64)
    _start_decode(state, data)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            prediction, busy = map_prediction(image, y, x)
            image[y, x] = prediction + _decode_number(state, data, contexts[busy])


def encode_map(image: np.ndarray[Any, Any]) -> bytes:
    """Code a 2-D map of integers below 2**31 by prediction from its neighbours."""
    image = np.ascontiguousarray(image, np.int64)
    out = np.empty(8 * image.size + 64, np.uint8)
    n = _encode_map_kernel(image, new_contexts(6), out)
    return out[:n].tobytes()


def decode_map(data: bytes | memoryview, shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Inverse of :func:`encode_map`; returns int64 of ``shape``."""
    image = np.zeros(shape, np.int64)
    _decode_map_kernel(np.frombuffer(data, np.uint8), new_contexts(6), image)
    return image
