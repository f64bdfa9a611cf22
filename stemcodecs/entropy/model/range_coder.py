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
from stemcodecs.entropy.kernels.borrowed import borrowed

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


# Coder states are tuples of int64, which stay in registers: (low, range, cache, pending bytes, position) of an encoder,
# (code, range, position) of a decoder. Contexts are the rows of an array, and `c` says which: views would be counted.


@kernel(forceinline=True)
def _start_encode():
    # The first byte that comes out is the empty cache: always 0, and the decoder skips it.
    return int64(0), int64(0xFFFFFFFF), int64(0), int64(1), int64(0)


@kernel
def _fill(out, position, n, byte):
    # Apart, since it is rare: a loop becomes a call to fill memory, which costs more than the bits of a byte.
    for _ in range(n):
        out[position] = uint8(byte)
        position += 1
    return position


@kernel(forceinline=True)
def _shift_low(state, out):
    low, width, cache, pending, position = state
    # A byte of 255 may still become 256 by a later carry: such bytes are only counted until it is decided.
    if low < 0xFF000000 or low > 0xFFFFFFFF:
        carry = low >> 32
        out[position] = uint8((cache + carry) & 0xFF)
        if pending > 1:
            position = _fill(out, position + 1, pending - 1, (0xFF + carry) & 0xFF)
        else:
            position += 1
        pending = int64(0)
        cache = (low >> 24) & 0xFF
    return (low << 8) & 0xFFFFFFFF, width, cache, pending + 1, position


@kernel(forceinline=True)
def _widened(state, out):
    while state[1] < _TOP:
        low, width, cache, pending, position = state
        state = _shift_low((low, (width << 8) & 0xFFFFFFFF, cache, pending, position), out)
    return state


@kernel(forceinline=True)
def _encode_bit(state, out, contexts, c, i, bit):
    low, width, cache, pending, position = state
    # The probability never reaches 0 or 1: it stops at 31/4096 on either side, so that a surprise costs seven bits.
    p = int64(contexts[c, i])
    bound = (width >> _PROBABILITY_BITS) * p
    if bit == 0:
        width = bound
        contexts[c, i] = uint32(p + (((1 << _PROBABILITY_BITS) - p) >> _ADAPT))
    else:
        low += bound
        width -= bound
        contexts[c, i] = uint32(p - (p >> _ADAPT))
    return _widened((low, width, cache, pending, position), out)


@kernel(forceinline=True)
def _encode_plain(state, out, value, n_bits):
    for i in range(n_bits - 1, -1, -1):
        low, width, cache, pending, position = state
        width >>= 1
        if (value >> i) & 1:
            low += width
        state = _widened((low, width, cache, pending, position), out)
    return state


@kernel
def _finish_encode(state, out):
    # Four bytes of low and the cached one: whatever follows in the file, the decoder has its 32 bits.
    for _ in range(5):
        state = _shift_low(state, out)
    return state[4]


@kernel(forceinline=True)
def _byte_at(data, at):
    # Zeros behind the end: a section that was cut decodes to something, which its reader then refuses.
    return int64(data[at]) if at < data.shape[0] else int64(0)


@kernel(forceinline=True)
def _start_decode(data):
    code = int64(0)
    for at in range(1, 5):
        code = (code << 8) | _byte_at(data, at)
    return code, int64(0xFFFFFFFF), int64(5)


@kernel(forceinline=True)
def _refilled(state, data):
    code, width, position = state
    while width < _TOP:
        width = (width << 8) & 0xFFFFFFFF
        code = ((code << 8) | _byte_at(data, position)) & 0xFFFFFFFF
        position += 1
    return code, width, position


@kernel(forceinline=True)
def _decode_bit(state, data, contexts, c, i):
    code, width, position = state
    p = int64(contexts[c, i])
    bound = (width >> _PROBABILITY_BITS) * p
    if code < bound:
        width = bound
        contexts[c, i] = uint32(p + (((1 << _PROBABILITY_BITS) - p) >> _ADAPT))
        bit = int64(0)
    else:
        code -= bound
        width -= bound
        contexts[c, i] = uint32(p - (p >> _ADAPT))
        bit = int64(1)
    return _refilled((code, width, position), data), bit


@kernel(forceinline=True)
def _decode_plain(state, data, n_bits):
    value = int64(0)
    for _ in range(n_bits):
        code, width, position = state
        width >>= 1
        bit = int64(code >= width)
        code -= width * bit
        value = (value << 1) | bit
        state = _refilled((code, width, position), data)
    return state, value


# A number v: zero flag (bit 0), sign (bit 1), then |v| = 2**e + rest: e in unary (bits 2..33), the top two bits of the
# rest with contexts (bits 34 + 2e and + 1 by the bit above), the others plain.


@kernel(forceinline=True)
def _encode_number(state, out, contexts, c, value):
    if value == 0:
        return _encode_bit(state, out, contexts, c, 0, 1)
    state = _encode_bit(state, out, contexts, c, 0, 0)
    state = _encode_bit(state, out, contexts, c, 1, 1 if value < 0 else 0)
    magnitude = abs(value)
    e = 0
    while (magnitude >> (e + 1)) != 0:
        e += 1
    # After 31 ones the prefix is as long as it can be: a 0 behind them would say nothing.
    for i in range(min(e + 1, 31)):
        state = _encode_bit(state, out, contexts, c, 2 + i, 1 if i < e else 0)
    if e >= 1:
        # The highest bit of the rest has a shape worth learning; those below are noise, and plain.
        bit = (magnitude >> (e - 1)) & 1
        state = _encode_bit(state, out, contexts, c, 33 + e, bit)
        state = _encode_plain(state, out, magnitude & ((1 << (e - 1)) - 1), e - 1)
    return state


@kernel
def _decode_number(state, data, contexts, c):
    state, zero = _decode_bit(state, data, contexts, c, 0)
    if zero == 1:
        return state, int64(0)
    state, negative = _decode_bit(state, data, contexts, c, 1)
    e = int64(0)
    # The bound keeps the shifts below within 63 bits, whatever the bytes are.
    more = int64(1)
    while e < 31 and more == 1:
        state, more = _decode_bit(state, data, contexts, c, 2 + e)
        e += more
    magnitude = int64(1)
    if e >= 1:
        state, bit = _decode_bit(state, data, contexts, c, 33 + e)
        state, rest = _decode_plain(state, data, e - 1)
        magnitude = (((magnitude << 1) | bit) << (e - 1)) | rest
    return state, -magnitude if negative else magnitude


@kernel
def _encode_sequence(values, which, contexts, out):
    out, contexts = borrowed(out), borrowed(contexts)
    state = _start_encode()
    for i in range(values.shape[0]):
        state = _encode_number(state, out, contexts, which[i], values[i])
    return _finish_encode(state, out)


@kernel
def _decode_sequence(data, which, contexts, values):
    data, contexts = borrowed(data), borrowed(contexts)
    state = _start_decode(data)
    for i in range(values.shape[0]):
        state, values[i] = _decode_number(state, data, contexts, which[i])


def _check(values: np.ndarray[Any, Any], largest: int) -> None:
    # The kernels check nothing: a larger number has no end of ones, or is written beyond the room that there is.
    if values.size and (int(values.min()) < -largest or int(values.max()) > largest):
        raise ValueError(f"a number beyond {largest} cannot be coded")


def encode_numbers(values: np.ndarray[Any, Any], which: np.ndarray[Any, Any] | None = None) -> bytes:
    """Code integers below 2**32 in magnitude; ``which`` (small ints) names the adaptive context of each."""
    values = np.ascontiguousarray(values, np.int64).ravel()
    _check(values, 2**32 - 1)
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
    out, contexts = borrowed(out), borrowed(contexts)
    state = _start_encode()
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            prediction, busy = map_prediction(image, y, x)
            state = _encode_number(state, out, contexts, busy, image[y, x] - prediction)
    return _finish_encode(state, out)


@kernel
def _decode_map_kernel(data, contexts, image):
    data, contexts = borrowed(data), borrowed(contexts)
    state = _start_decode(data)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            prediction, busy = map_prediction(image, y, x)
            state, difference = _decode_number(state, data, contexts, busy)
            image[y, x] = prediction + difference


def encode_map(image: np.ndarray[Any, Any]) -> bytes:
    """Code a 2-D map of integers below 2**31 by prediction from its neighbours."""
    image = np.ascontiguousarray(image, np.int64)
    _check(image, 2**31)
    out = np.empty(8 * image.size + 64, np.uint8)
    n = _encode_map_kernel(image, new_contexts(6), out)
    return out[:n].tobytes()


def decode_map(data: bytes | memoryview, shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Inverse of :func:`encode_map`; returns int64 of ``shape``."""
    image = np.zeros(shape, np.int64)
    _decode_map_kernel(np.frombuffer(data, np.uint8), new_contexts(6), image)
    return image
