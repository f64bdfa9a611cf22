"""Codecs: one per file, a Zarr format 3 class and a numcodecs class on one kernel."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stemcodecs.codecs.pixel_histogram import NumcodecsPixelHistogram, PixelHistogram

if TYPE_CHECKING:
    from stemcodecs.codecs.bit_pack import BitPack, NumcodecsBitPack
    from stemcodecs.codecs.learned import Learned, NumcodecsLearned
    from stemcodecs.codecs.pca import NumcodecsPca, Pca
    from stemcodecs.codecs.poisson_histogram import NumcodecsPoissonHistogram, PoissonHistogram
    from stemcodecs.codecs.poisson_quantize import NumcodecsPoissonQuantize, PoissonQuantize
    from stemcodecs.codecs.tcs import NumcodecsTcs, Tcs

__all__ = [
    "BitPack",
    "Learned",
    "NumcodecsBitPack",
    "NumcodecsLearned",
    "NumcodecsPca",
    "NumcodecsPixelHistogram",
    "NumcodecsPoissonHistogram",
    "NumcodecsPoissonQuantize",
    "NumcodecsTcs",
    "Pca",
    "PixelHistogram",
    "PoissonHistogram",
    "PoissonQuantize",
    "Tcs",
]

_MODULES = {
    "BitPack": "bit_pack",
    "Learned": "learned",
    "Pca": "pca",
    "PoissonHistogram": "poisson_histogram",
    "PoissonQuantize": "poisson_quantize",
    "Tcs": "tcs",
}


def __getattr__(name: str) -> Any:
    # Together they take a fifth of a second to import, and most programs use one.
    module = _MODULES.get(name.removeprefix("Numcodecs"))
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
