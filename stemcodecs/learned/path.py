"""Which multiply-add instruction the network takes: chosen by what the processor can do, never by the bytes."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np
from numba import types

from stemcodecs.entropy.kernels.cpu import has_avx512
from stemcodecs.errors import ConfigurationError

__all__ = ["PATHS", "network_path", "vector_bits"]

PATHS: dict[str, Any] = {"portable": None, "sse2": np.uint8(16), "avx2": np.uint16(32), "avx512": np.uint32(64)}
"""Markers by the name of the path: the kernels dispatch on the *type*, the value is the bytes of a vector."""
_BITS = {types.uint8: 128, types.uint16: 256, types.uint32: 512}


def vector_bits(marker: Any) -> int:
    """Width of the multiply-add of a marker's Numba type; 0 where none is named."""
    return _BITS.get(marker, 0)


@cache
def available() -> tuple[str, ...]:
    """Paths of this processor, and of the target that Numba compiles for, the slowest first."""
    from llvmlite import binding
    from numba.core import config

    chosen: str | None = getattr(config, "CPU_FEATURES", None)
    if chosen is not None:
        features = {name[1:]: True for name in chosen.split(",") if name.startswith("+")}
    else:
        features = dict(binding.get_host_cpu_features())
    found = ["portable"] + [name for name in ("sse2", "avx2") if features.get(name, False)]
    return (*found, "avx512") if has_avx512() else tuple(found)


def network_path() -> Any:
    """The marker of the fastest path; ``STEMCODECS_SIMD`` set to a name of :data:`PATHS` forces one.

    Raises
    ------
    ConfigurationError
        If ``STEMCODECS_SIMD`` names an unknown path, or one that this processor does not have.
    """
    wish = os.environ.get("STEMCODECS_SIMD", "")
    if wish and wish not in PATHS:
        raise ConfigurationError(f"STEMCODECS_SIMD={wish!r}: set it to one of {', '.join(PATHS)}, or unset it")
    if wish and wish not in available():
        raise ConfigurationError(f"STEMCODECS_SIMD={wish}, but this processor does not have it: unset it")
    return PATHS[wish or available()[-1]]
