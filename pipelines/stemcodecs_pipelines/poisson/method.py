"""``compress --method poisson``: quantise within the shot noise, in one pass, with the bound checked value by value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stemcodecs.errors import ConfigurationError, VerificationError
from stemcodecs_pipelines.methods.base import Encoding, Exact, Learning, Method, check_form, option

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from stemcodecs.counts.counts_map import CountsMap
    from stemcodecs.counts.find_map import FoundMap
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
    gain: Exact | Literal["auto"] | None = option(
        None, "ADU per count; auto measures gain and offset by photon transfer, in one pass more", otherwise="1"
    )
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
        if self.gain == "auto" and self.offset:
            raise ConfigurationError("gain=auto measures the offset too; leave out offset=")


class PoissonMethod(Method[PoissonOptions]):
    """Counts merged that their shot noise does not tell apart."""

    name = "poisson"
    summary = "every count within r σ of its own shot noise"
    Options = PoissonOptions
    worth_comparing = ("r=0.25", "r=0.5", "r=1")

    def __init__(self, options: PoissonOptions, text: str) -> None:
        super().__init__(options, text)
        self.quantizer = _quantizer(options)
        self.map: CountsMap | None = None

    @property
    def guarantee(self) -> str:
        """See `Method.guarantee`."""
        if self.map is None:
            return self.quantizer.guarantee()
        from stemcodecs.counts.words import words_of_map

        return (
            f"{self.quantizer.guarantee()}; v is the whole number behind a value: {words_of_map(self.map)}; "
            "values without such a number are exact"
        )

    @property
    def reads_everything(self) -> bool:
        """Photon transfer takes the noise of all patterns."""
        return self.options.gain == "auto"

    def of_array(self, metadata: Mapping[str, Any]) -> PoissonMethod:
        """See `Method.of_array`: gain, offset and map that were found."""
        configuration = _configuration(metadata)
        if configuration is None:
            return self
        from stemcodecs.codecs.poisson_histogram import PoissonHistogram
        from stemcodecs.quantize import PoissonQuantizer

        known = type(self)(self.options, self.text)
        codec = PoissonHistogram(**configuration)
        known.quantizer = PoissonQuantizer.from_dict(PoissonQuantizer.to_dict(codec))
        known.map = codec.counts_map
        return known

    def build(self, scan: Scan, learning: Learning) -> Encoding:
        """The codec for a scan: a few patterns tell how values become counts, with gain=auto all tell what one is.

        Raises
        ------
        ConfigurationError
            An option does not fit the scan's dtype, or gain=auto finds no Poisson counts.
        UnsupportedDtypeError
            There are no counts behind the scan's values.
        """
        from stemcodecs.codecs.bit_pack import BitPack
        from stemcodecs.codecs.poisson_histogram import PoissonHistogram
        from stemcodecs.codecs.poisson_quantize import PoissonQuantize

        quantizer = self.quantizer
        sampled = _sampled(scan, self.options, learning)
        found = sampled.map
        if found is not None:
            if self.options.bits is not None:
                raise ConfigurationError(
                    "bits= sends whole numbers as a detector does, and the values of this scan are none; leave it out"
                )
            quantizer, found = _behind(quantizer, self.options, found, scan.dtype)
        if self.options.gain == "auto":
            quantizer = _measured(scan, quantizer, found, sampled.dark, learning)
        quantizer.levels("int32" if found is not None else scan.dtype)
        configuration: Any = quantizer.to_dict()
        if self.options.bits is not None:
            # The stream of a detector's chip: every code in the same number of bits.
            return Encoding(serializer=BitPack(bits=self.options.bits), filters=(PoissonQuantize(**configuration),))
        if found is not None:
            configuration["map"] = found.to_uri()
        return Encoding(serializer=PoissonHistogram(mode=self.options.mode or "auto", **configuration))

    def compare(self, source: np.ndarray[Any, Any], decoded: np.ndarray[Any, Any], region: Region) -> Deviation:
        """Check the bound for every value of a block, in exact arithmetic, and say how far the values lie apart.

        Raises
        ------
        VerificationError
            With the coordinates of the first value that breaks the bound.
        """
        from stemcodecs.counts.deviation import deviation_behind
        from stemcodecs.quantize.guarantee import Deviation

        check_form(source, decoded, region)
        corner = tuple(s.start for s in region)
        if self.map is None:
            deviation = Deviation.of(source, decoded, self.quantizer, corner)
        else:
            deviation = deviation_behind(source, decoded, self.quantizer, self.map, corner)
        if deviation.first_violation is not None:
            index = deviation.first_violation
            local = tuple(i - c for i, c in zip(index, corner, strict=True))
            raise VerificationError(
                f"the store breaks its bound at {index}: {decoded[local]} instead of {source[local]} "
                f"({deviation.violations} values in this block); repair it with stemcodecs repair",
                index,
            )
        return deviation


def _configuration(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of the quantiser in an array's metadata, in shards or not."""
    codecs = metadata["codecs"]
    while codecs:
        for codec in codecs:
            if codec["name"] in ("stemcodecs.poisson_histogram", "stemcodecs.poisson_quantize"):
                kept = {k: v for k, v in codec.get("configuration", {}).items() if k not in ("mode", "code_dtype")}
                return kept
        codecs = codecs[-1].get("configuration", {}).get("codecs", ())
    return None


def _sampled(scan: Scan, options: PoissonOptions, learning: Learning) -> FoundMap:
    """What a few patterns tell: the map to the counts behind the values, none where these are taken as they are.

    Raises
    ------
    UnsupportedDtypeError
        They cannot be taken as they are, and there is no map.
    """
    from stemcodecs.counts.find_map import FoundMap
    from stemcodecs.errors import UnsupportedDtypeError
    from stemcodecs_pipelines.run.map_of_scan import map_of_scan

    narrow = scan.dtype.kind in "iu" and scan.dtype.itemsize <= 4
    # A user who says what a count is knows better.
    said = options.offset != 0 or options.gain not in (None, "auto") or options.saturation is not None
    as_it_is = scan.dtype.kind not in "iuf" or len(scan.shape) < 3
    if as_it_is or (narrow and (said or (options.bits is not None and options.gain != "auto"))):
        return FoundMap(plain=True)
    found = learning.remembered.once(
        ("map of counts", scan.path, scan.dataset), lambda: map_of_scan(scan, learning.engine, learning.workers)
    )
    if narrow and options.bits is not None:
        return FoundMap(plain=True, dark=found.dark)
    placed = options.offset != 0 or options.gain == "auto"
    if found.plain or (found.map is not None and (placed or not found.problem)):
        return found
    rest = "" if found.map is not None else "; store it losslessly with pixel_histogram"
    raise UnsupportedDtypeError(f"poisson cannot store this scan: {found.problem}{rest}")


def _behind(
    quantizer: PoissonQuantizer, options: PoissonOptions, found: CountsMap, dtype: np.dtype[Any]
) -> tuple[PoissonQuantizer, CountsMap]:
    """Quantiser of the counts behind the values, and the map with the offset that the user gave."""
    from dataclasses import replace

    from stemcodecs.counts.counts_map import MOST_COUNTS
    from stemcodecs.marks import mark_of

    if found.scaled and (options.offset or options.saturation is not None):
        what = "was divided by a dose" if dtype.kind == "f" else "has an offset"
        raise ConfigurationError(
            f"every pattern of this scan {what} of its own, so that a value is another count in each; "
            "leave out offset= and saturation="
        )
    if options.offset:
        found = found.beginning_at(options.offset)
    # Levels above would decode to values that the dtype does not hold.
    top = found.largest(dtype)
    mark = None if found.reversed else mark_of(dtype)
    if mark is not None:
        top = min(top, found.counts_at(mark) - 1)
    if options.saturation is not None:
        top = min(top, found.counts_at(options.saturation) - 1)
    if top < 1:
        raise ConfigurationError("offset= and saturation= leave no counts between them; give others")
    saturation = None if top >= MOST_COUNTS else top + 1
    return replace(quantizer, offset=0, saturation=saturation), found


def _measured(
    scan: Scan, quantizer: PoissonQuantizer, found: CountsMap | None, dark: int, learning: Learning
) -> PoissonQuantizer:
    """The quantiser with gain and offset by photon transfer."""
    from dataclasses import replace
    from math import ceil

    from stemcodecs_pipelines.poisson.scan_counts import photon_transfer

    noise = photon_transfer(scan, found, dark, learning)
    # A counting detector has a gain of one, and an offset that is a whole number, where the error allows these. Else
    # the offset is rounded up: no value is taken for more counts than it is.
    near = round(noise.offset)
    offset = near if abs(noise.offset - near) <= 2 * noise.offset_error else ceil(noise.offset)
    gain: int | str = 1 if abs(noise.gain - 1) <= 2 * noise.gain_error else f"{noise.gain:.5g}"
    return replace(quantizer, gain=gain, offset=offset)


def _quantizer(options: PoissonOptions) -> PoissonQuantizer:
    from stemcodecs.quantize import PoissonQuantizer

    # Centroids are learned chunk by chunk; a fixed-width stream has no room for them.
    decoder = options.decoder or ("centroid" if options.bits is None else "midpoint")
    chosen: dict[str, Any] = {"preset": options.preset, "offset": options.offset, "decoder": decoder}
    # What was left out stays out of the array's metadata too.
    for name in ("r", "gain", "exact_below", "saturation"):
        if (value := getattr(options, name)) is not None and value != "auto":
            chosen[name] = value
    return PoissonQuantizer(**chosen)
