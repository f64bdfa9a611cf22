"""``compress --method poisson``: quantise within the shot noise, in one pass, with the bound checked value by value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stemcodecs.errors import ConfigurationError, VerificationError
from stemcodecs_pipelines.methods.base import Encoding, Exact, Learning, Method, check_form, option

if TYPE_CHECKING:
    import numpy as np

    from stemcodecs.quantize import PoissonQuantizer
    from stemcodecs.quantize.guarantee import Deviation
    from stemcodecs.readers.scan import Region, Scan

__all__ = ["PoissonMethod", "PoissonOptions"]


@dataclass(frozen=True, kw_only=True)
class PoissonOptions:
    """Options of ``poisson``; those left out are the quantiser's to choose.

    Raises
    ------
    ConfigurationError
        Options exclude each other.
    """

    r: Exact | None = option(None, "bound in σ of the shot noise", otherwise="0.5, or that of the preset", flag="--r")
    preset: Literal["optimal", "huang-511", "huang-255", "huang-191"] = option(
        "optimal", "the fewest levels that keep the bound, or those of the on-detector compression", flag="--preset"
    )
    gain: Exact | None = option(None, "ADU per count", otherwise="1")
    offset: int = option(0, "ADU at zero counts; values below are kept exactly")
    exact_below: int | None = option(
        None, "whole counts below this keep a level each", otherwise="5 with centroids, 1 with midpoints"
    )
    saturation: int | None = option(
        None, "values (ADU) from here on are kept exactly", otherwise="the largest integer of the dtype"
    )
    decoder: Literal["midpoint", "centroid"] | None = option(
        None,
        "what a level decodes to: the middle of its bin, or the mean of the counts in it",
        otherwise="centroid; midpoint with bits",
    )
    mode: Literal["auto", "pixel", "neighbour", "scan"] | None = option(
        None, "mode of the entropy coder, as of pixel_histogram", otherwise="auto"
    )
    bits: int | None = option(
        None, "every code in this many bits, as from a detector's chip", otherwise="codes are entropy-coded"
    )

    def __post_init__(self) -> None:
        if self.bits is not None and (self.decoder is not None or self.mode is not None):
            raise ConfigurationError("bits= sends codes as they are; leave out decoder= and mode=")


class PoissonMethod(Method[PoissonOptions]):
    """Counts merged that their shot noise does not tell apart."""

    name = "poisson"
    summary = "every count within r σ of its own shot noise"
    Options = PoissonOptions

    def __init__(self, options: PoissonOptions, text: str) -> None:
        super().__init__(options, text)
        self.quantizer = _quantizer(options)

    @property
    def guarantee(self) -> str:
        """See `Method.guarantee`."""
        return self.quantizer.guarantee()

    def build(self, scan: Scan, learning: Learning) -> Encoding:
        """The codec for a scan; nothing is learned beforehand, so the scan is read once.

        Raises
        ------
        ConfigurationError
            An option does not fit the scan's dtype.
        UnsupportedDtypeError
            The scan's dtype holds no counts.
        """
        from stemcodecs.codecs.bit_pack import BitPack
        from stemcodecs.codecs.poisson_histogram import PoissonHistogram
        from stemcodecs.codecs.poisson_quantize import PoissonQuantize

        self.quantizer.levels(scan.dtype)
        configuration: Any = self.quantizer.to_dict()
        if self.options.bits is not None:
            # The stream of a detector's chip: every code in the same number of bits.
            return Encoding(serializer=BitPack(bits=self.options.bits), filters=(PoissonQuantize(**configuration),))
        return Encoding(serializer=PoissonHistogram(mode=self.options.mode or "auto", **configuration))

    def compare(self, source: np.ndarray[Any, Any], decoded: np.ndarray[Any, Any], region: Region) -> Deviation:
        """Check the bound for every value of a block, in exact arithmetic, and say how far the values lie apart.

        Raises
        ------
        VerificationError
            With the coordinates of the first value that breaks the bound.
        """
        from stemcodecs.quantize.guarantee import Deviation

        check_form(source, decoded, region)
        corner = tuple(s.start for s in region)
        deviation = Deviation.of(source, decoded, self.quantizer, corner)
        if deviation.first_violation is not None:
            index = deviation.first_violation
            local = tuple(i - c for i, c in zip(index, corner, strict=True))
            raise VerificationError(
                f"the store breaks its bound at {index}: {decoded[local]} instead of {source[local]} "
                f"({deviation.violations} values in this block); repair it with stemcodecs repair",
                index,
            )
        return deviation


def _quantizer(options: PoissonOptions) -> PoissonQuantizer:
    from stemcodecs.quantize import PoissonQuantizer

    # Centroids are learned chunk by chunk; a fixed-width stream has no room for them.
    decoder = options.decoder or ("centroid" if options.bits is None else "midpoint")
    chosen: dict[str, Any] = {"preset": options.preset, "offset": options.offset, "decoder": decoder}
    # What was left out stays out of the array's metadata too.
    for name in ("r", "gain", "exact_below", "saturation"):
        if (value := getattr(options, name)) is not None:
            chosen[name] = value
    return PoissonQuantizer(**chosen)
