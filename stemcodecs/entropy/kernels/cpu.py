"""Which instruction path the kernels take: chosen by what the processor can do, never by what the bytes say."""

from __future__ import annotations

import os
from functools import cache

from stemcodecs.errors import ConfigurationError

__all__ = ["AVX512_FEATURES", "has_avx512", "simd_path"]

AVX512_FEATURES = ("avx512f", "avx512bw", "avx512dq", "avx512vl")


@cache
def has_avx512() -> bool:
    """Whether this processor, and the target that Numba compiles for, have the AVX-512 subsets that we use."""
    from llvmlite import binding
    from numba.core import config

    chosen: str | None = getattr(config, "CPU_FEATURES", None)
    if chosen is not None:
        enabled = set(chosen.split(","))
        return all(f"+{name}" in enabled for name in AVX512_FEATURES)
    features = binding.get_host_cpu_features()
    return all(features.get(name, False) for name in AVX512_FEATURES)


def simd_path() -> bool | None:
    """The path marker that the kernels dispatch on: ``True`` for AVX-512, ``None`` for portable code.

    ``STEMCODECS_SIMD`` set to ``portable`` or ``avx512`` forces a path; both write and read the same bytes. ``sse2``
    and ``avx2`` are paths of networks (:mod:`stemcodecs.learned.path`), and mean portable code here.

    Raises
    ------
    ConfigurationError
        If ``STEMCODECS_SIMD`` names an unknown path, or AVX-512 on a processor without it.
    """
    wish = os.environ.get("STEMCODECS_SIMD", "")
    if wish not in ("", "portable", "sse2", "avx2", "avx512"):
        raise ConfigurationError(
            f"STEMCODECS_SIMD={wish!r}: set it to 'portable', 'sse2', 'avx2' or 'avx512', or unset it"
        )
    if wish == "avx512" and not has_avx512():
        raise ConfigurationError("STEMCODECS_SIMD=avx512, but this processor has no AVX-512: unset it")
    return True if wish in ("", "avx512") and has_avx512() else None
