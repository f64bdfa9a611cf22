"""``compress --method poisson``: quantise within the shot noise, in one pass, with the bound checked value by value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError, VerificationError
from stemcodecs.quantize import PoissonQuantizer
from stemcodecs.quantize.guarantee import Deviation
from stemcodecs.readers.scan import Region, Scan
from stemcodecs_pipelines.methods.registry import Encoding, Method, check_form

__all__ = ["build", "measure", "specialise"]

_NUMBERS = ("r", "gain")
_WHOLE = ("offset", "exact_below", "saturation")
OPTIONS = ("preset", *_NUMBERS, *_WHOLE, "decoder", "mode", "bits")


def build(scan: Scan, options: Mapping[str, str]) -> Encoding:
    """The codec for a scan; nothing is learned beforehand, so the scan is read once.

    Raises
    ------
    ConfigurationError
        An option is unknown or unusable, or does not fit the scan's dtype.
    UnsupportedDtypeError
        The scan's dtype holds no counts.
    """
    from stemcodecs.codecs.bit_pack import BitPack
    from stemcodecs.codecs.poisson_histogram import PoissonHistogram
    from stemcodecs.codecs.poisson_quantize import PoissonQuantize

    quantizer = _quantizer(options)
    quantizer.levels(scan.dtype)
    configuration: Any = quantizer.to_dict()
    if "bits" in options:
        # The stream of a detector's chip: every code in the same number of bits.
        return Encoding(serializer=BitPack(bits=_whole("bits", options)), filters=(PoissonQuantize(**configuration),))
    return Encoding(serializer=PoissonHistogram(mode=options.get("mode", "auto"), **configuration))


def specialise(method: Method, options: Mapping[str, str]) -> Method:
    """The bound depends on the options.

    Raises
    ------
    ConfigurationError
        An option is unknown or unusable.
    """
    quantizer = _quantizer(options)
    found = partial(measure, quantizer)
    return replace(method, guarantee=quantizer.guarantee(), check=found, measure=found)


def measure(
    quantizer: PoissonQuantizer, source: np.ndarray[Any, Any], decoded: np.ndarray[Any, Any], region: Region
) -> Deviation:
    """Check the bound for every value of a block, in exact arithmetic, and say how far the values lie apart.

    Raises
    ------
    VerificationError
        With the coordinates of the first value that breaks the bound.
    """
    check_form(source, decoded, region)
    corner = tuple(s.start for s in region)
    deviation = Deviation.of(source, decoded, quantizer, corner)
    if deviation.first_violation is not None:
        index = deviation.first_violation
        local = tuple(i - c for i, c in zip(index, corner, strict=True))
        raise VerificationError(
            f"the store breaks its bound at {index}: {decoded[local]} instead of {source[local]} "
            f"({deviation.violations} values in this block); repair it with stemcodecs repair",
            index,
        )
    return deviation


def _quantizer(options: Mapping[str, str]) -> PoissonQuantizer:
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ConfigurationError(f"poisson has no option {unknown[0]!r}; it has: {', '.join(OPTIONS)}")
    if "bits" in options:
        _whole("bits", options)
        if {"decoder", "mode"} & set(options):
            raise ConfigurationError("bits= sends codes as they are; leave out decoder= and mode=")
    # Centroids are learned chunk by chunk; a fixed-width stream has no room for them.
    arguments: dict[str, Any] = {"decoder": "midpoint" if "bits" in options else "centroid"}
    for name, text in options.items():
        if name in _WHOLE:
            arguments[name] = _whole(name, options)
        elif name not in ("mode", "bits"):
            # Numbers stay text: 0.1 then means one tenth, not the nearest float.
            arguments[name] = text
    return PoissonQuantizer(**arguments)


def _whole(name: str, options: Mapping[str, str]) -> int:
    try:
        return int(options[name])
    except ValueError:
        raise ConfigurationError(f"{name} = {options[name]!r} must be a whole number") from None
