"""From the outputs of a network for images to the mixture of each lane, as LLVM vector IR: integers only.

As :mod:`stemcodecs.learned.mixture_ir`, but the logistics are in the values and not in their roots: locations and
scales are in units of ``2**unit`` from the lane's base, and the window lies around their mean.
"""

from __future__ import annotations

from typing import Any

from numba import types

from stemcodecs.entropy.kernels.vector_ir import V32, constant, typed_intrinsic
from stemcodecs.learned.mixture_ir import (
    BASE,
    BIN,
    HIGHEST_SCALE,
    LEAST_WEIGHT,
    LOCATION,
    LOWEST_SCALE,
    MANTISSA,
    MOST_BIN_BITS,
    SHIFT,
    UNIT,
    WEIGHT,
    WIDTH,
    Z0,
    Lookup,
    each_quarter,
)

__all__ = ["describe_values"]

WIDE = 128
NARROW = (16, 32, 64)
_MOST_LOCATION = (1 << 18) - 1
_NARROW_SPREAD = 4
"""Spread in eighths of a value from which on a window of 16 bins is too narrow: half of it is sixteen scales."""
_FIRST_BIN_BIT = 5
"""Bins of two values from a spread of four values on."""


def _describe_quarter(m: Lookup, q: int) -> Any:
    """Mixture and window of sixteen lanes; returns the widths."""
    b = m.b
    base, unit = m.row(1, 0, q), m.row(2, 0, q)
    first = m.sigmoid(3, m.row(0, 0, q))
    weights = [first, b.sub(constant(V32, 1 << 15), first)]
    mean, widest = None, constant(V32, LOWEST_SCALE)
    for k, weight in enumerate(weights):
        location = m.clip(m.row(0, 1 + k, q), -_MOST_LOCATION, _MOST_LOCATION)
        scale = m.clip(m.row(0, 3 + k, q), LOWEST_SCALE, HIGHEST_SCALE)
        m.store_row(weight, 5, WEIGHT + k, q)
        m.store_row(location, 5, LOCATION + k, q)
        m.store_row(m.gather(4, b.and_(scale, constant(V32, 63))), 5, MANTISSA + k, q)
        m.store_row(b.add(b.ashr(scale, constant(V32, 6)), constant(V32, 14)), 5, SHIFT + k, q)
        part = b.mul(weight, b.ashr(location, constant(V32, 4)))
        mean = part if mean is None else b.add(mean, part)
        counts = b.icmp_signed(">=", weight, constant(V32, LEAST_WEIGHT))
        widest = b.select(counts, m.larger(widest, scale), widest)
    away = b.ashr(b.shl(b.ashr(mean, constant(V32, 11)), unit), constant(V32, 10))
    c = m.clip(b.add(base, away), 0, 65535)
    minus = b.sub(constant(V32, 0), widest)
    spread = b.shl(m.gather(4, b.and_(minus, constant(V32, 63))), b.add(unit, constant(V32, 3)))
    spread = b.lshr(spread, b.add(constant(V32, 11), b.ashr(minus, constant(V32, 6))))
    width, bits = constant(V32, WIDE), constant(V32, 0)
    for k in reversed(range(len(NARROW))):
        narrow = b.icmp_signed("<", spread, constant(V32, _NARROW_SPREAD << k))
        width = b.select(narrow, constant(V32, NARROW[k]), width)
    for k in range(_FIRST_BIN_BIT, _FIRST_BIN_BIT + MOST_BIN_BITS):
        bits = b.add(bits, b.zext(b.icmp_signed(">=", spread, constant(V32, 1 << k)), V32))
    z0 = b.sub(b.lshr(c, bits), b.lshr(width, constant(V32, 1)))
    m.store_row(m.larger(z0, constant(V32, 0)), 5, Z0, q)
    m.store_row(bits, 5, BIN, q)
    m.store_row(width, 5, WIDTH, q)
    m.store_row(base, 5, BASE, q)
    m.store_row(unit, 5, UNIT, q)
    return width


# For every lane, weights, locations and scales of outputs int32[5 * 64], and the window that they call for; FORMAT.md
# has it number by number.
@typed_intrinsic
def describe_values(  # type: ignore[no-untyped-def]
    _typing, outputs, base, unit, sigmoid, mantissa, mixture, quarters
):
    """Outputs of the network to ``mixture``; returns the OR of the widths, below twice the largest. Quarters of the
    lanes that are not in the bit mask are left out.
    """
    signature = types.int64(outputs, base, unit, sigmoid, mantissa, mixture, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        return each_quarter(
            Lookup(context, b, signature, args), args[6], lambda m, q: m.any_bit(_describe_quarter(m, q))
        )

    return signature, codegen
