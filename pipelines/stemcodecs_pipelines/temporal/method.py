"""``compress --method tcs``: movies as one measurement for every B frames, decoded to an estimate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.methods.base import Encoding, Learning, Method, option

if TYPE_CHECKING:
    import numpy as np

    from stemcodecs.codecs.tcs import Tcs
    from stemcodecs.readers.scan import Region, Scan
    from stemcodecs_pipelines.temporal.distance import MovieDistance

__all__ = ["TcsMethod", "TcsOptions"]

SCRATCH, NETWORK_SCRATCH = 26, 64
"""Bytes that decoding takes for a value of one measurement, as measured: four to six arrays of its frames, and what a
network holds between its layers."""
BIRNAT_SCRATCH = 160 << 20
"""What BIRNAT takes at least: attention within a part of 128 × 128 pixels, as measured."""
TIME_BINS = 4
"""Where the options do not say how many: with 2 × 2 pixels, as many numbers as one frame."""
FITTING = {
    "bins": ("interpolate", "gap-tv", "network"),
    "tiled": ("gap-tv", "network", "birnat"),
    "random": ("gap-tv", "network", "birnat"),
}
TRIED = {"bins": ("interpolate", "network"), "tiled": ("gap-tv", "network"), "random": ("gap-tv", "network")}
"""Decoders of a measurement, and those that are tried where none is asked for: bins need no GAP-TV, and
BIRNAT is behind the compact network at four times its cost."""


@dataclass(frozen=True, kw_only=True)
class TcsOptions:
    """Options of ``tcs``."""

    frames: int = option(10, "frames of a measurement", least=2, most=128)
    measurement: Literal["auto", "bins", "tiled", "random"] = option(
        "auto",
        "space-time bins, or sums behind balanced or random masks; auto takes what gives the frames of a sample best",
    )
    decoder: Literal["interpolate", "gap-tv", "network", "birnat"] | None = option(
        None,
        "how readers get frames back",
        otherwise="what gives the frames of a sample best; network and birnat need onnxruntime to be read",
    )
    time_bins: int | None = option(
        None, "of bins: time bins of a measurement", otherwise="4, or as many as frames where these are fewer", least=1
    )
    space_bins: int = option(2, "of bins: rows and columns that are summed", least=1, most=16)
    step: int | Literal["auto"] = option(
        "auto", "quantisation step of the sums, 1 keeps them exactly; auto: the noise of a sum", least=1, most=65536
    )
    seed: int = option(0, "of the masks", least=0)
    incoherent: Literal["exact", "measured"] = option(
        "exact", "frames at a scene cut, or too fast to share a measurement: kept exactly, or measured all the same"
    )


class TcsMethod(Method[TcsOptions]):
    """Sums of frames behind masks or in bins, from which a decoder estimates the frames."""

    name = "tcs"
    summary = "movies: every few frames as one exact sum, decoded to an estimate"
    Options = TcsOptions
    worth_comparing = ("frames=10", "frames=20", "frames=30")
    movies_only = True

    def __init__(self, options: TcsOptions, text: str) -> None:
        super().__init__(options, text)
        if options.time_bins is not None and options.time_bins > options.frames:
            raise ConfigurationError(
                f"time_bins={options.time_bins} are more than frames={options.frames}; take as many at most"
            )
        if options.measurement != "auto":
            self._candidates()

    @property
    def guarantee(self) -> str:
        """See `Method.guarantee`."""
        return "no pointwise guarantee; the sums of frames are kept up to half a step"

    @property
    def whole_detector(self) -> bool:
        """Masks and bins begin at the corner of a frame."""
        return True

    @property
    def together(self) -> int:
        """See `Method.together`."""
        return self.options.frames

    def scratch_bytes(self, detector: tuple[int, int]) -> int:
        """See `Method.scratch_bytes`."""
        from stemcodecs.temporal.coding import MOST_AT_ONCE
        from stemcodecs.temporal.runtime import AT_ONCE

        codecs = self._candidates()
        values = self.options.frames * detector[0] * detector[1]
        if not any(codec.weights for codec in codecs):
            return SCRATCH * values
        least = BIRNAT_SCRATCH if any(codec.decoder == "birnat" for codec in codecs) else 0
        return max(least, NETWORK_SCRATCH * values) * (AT_ONCE if values <= MOST_AT_ONCE else 1)

    def build(self, scan: Scan, learning: Learning) -> Encoding:
        """The codec for a movie; a few measurements are tried first where the options leave a choice.

        Raises
        ------
        ConfigurationError
            The options do not fit the movie.
        UnsupportedDtypeError
            Its frames are not uint8 or uint16.
        """
        from stemcodecs.temporal.coding import check_movie
        from stemcodecs.temporal.coherence import MOST_REPLACED, replaced
        from stemcodecs_pipelines.temporal.sampled_quality import noise_step, samples_of, squared_distance, step_scale

        check_movie(scan.dtype, len(scan.shape))
        candidates = self._candidates()
        samples = samples_of(scan, self.options.frames)
        step = noise_step(samples) if self.options.step == "auto" else self.options.step
        stepped = [replace(codec, step=step * step_scale(codec)) for codec in candidates]
        if len(stepped) == 1:
            return Encoding(serializer=stepped[0])
        if self.options.incoherent == "exact":
            # Those at a scene cut will not be measured.
            samples = [s for s in samples if replaced(s) <= MOST_REPLACED] or samples
        found = [(squared_distance(codec, samples), codec) for codec in stepped]
        best = min(found, key=lambda pair: pair[0])[1]
        # Of the squares an estimate may fall below 0: by no more than it may be wrong.
        tried = ", ".join(f"{codec.measurement} with {codec.decoder} {max(0, e) ** 0.5:.2f}" for e, codec in found)
        needed = "; readers need onnxruntime (decoder=gap-tv does without)" if best.weights else ""
        learning.report(
            f"distance from the frames without noise, about, of {len(samples)} "
            f"{'sample' if len(samples) == 1 else 'samples'}: {tried}{needed}",
            1,
            1,
        )
        return Encoding(serializer=best)

    def _candidates(self) -> list[Tcs]:
        """Codecs that the options allow, with the measurements in the order of the options."""
        o = self.options
        kinds = ("bins", "tiled") if o.measurement == "auto" else (o.measurement,)
        if o.decoder is None:
            fit = [(kind, decoder) for kind in kinds for decoder in TRIED[kind]]
        else:
            fit = [(kind, o.decoder) for kind in kinds if o.decoder in FITTING[kind]]
        if not fit:
            raise ConfigurationError(
                f"decoder={o.decoder} does not fit measurement={o.measurement}; masks are decoded by gap-tv, "
                "network or birnat, bins by interpolate, gap-tv or network"
            )
        out = [codec for kind, decoder in fit if (codec := self._codec(kind, decoder)) is not None]
        if not out and any(self._weights(kind, decoder) for kind, decoder in fit):
            raise ConfigurationError(
                f"decoder={o.decoder} needs onnxruntime; install it with: pip install 'stemcodecs[learned]', or take "
                "decoder=gap-tv"
            )
        if not out:
            words = " or ".join(", ".join(f"{k}={v}" for k, v in self._measured(kind).items()) for kind, _ in fit)
            raise ConfigurationError(
                f"no weights of {o.decoder} for {words} come with stemcodecs; take decoder=gap-tv, and read the store "
                "with weights of your own by stemcodecs.movies.with_decoder"
            )
        return out

    def _measured(self, kind: str) -> dict[str, Any]:
        """What is measured, if it is of this kind."""
        o = self.options
        common: dict[str, Any] = {"measurement": kind, "frames": o.frames}
        if kind == "bins":
            return common | {"time_bins": o.time_bins or min(TIME_BINS, o.frames), "space_bins": o.space_bins}
        return common | {"seed": o.seed}

    def _weights(self, kind: str, decoder: str) -> str | None:
        """Digest of the weights of a network that come with stemcodecs."""
        from stemcodecs.temporal.sampling import Sampling
        from stemcodecs.temporal.weights import NETWORKS, shipped_for

        return shipped_for(Sampling(**self._measured(kind)), NETWORKS[decoder])

    def _codec(self, kind: str, decoder: str) -> Tcs | None:
        """Codec with this decoder; None where no weights for it come with stemcodecs, or nothing could run them."""
        from stemcodecs.codecs.tcs import Tcs
        from stemcodecs.temporal.weights import NETWORKS

        named: dict[str, Any] = {"decoder": decoder, "incoherent": self.options.incoherent}
        if decoder in NETWORKS:
            weights = self._weights(kind, decoder)
            if weights is None or not find_spec("onnxruntime"):
                return None
            named["weights"] = weights
        return Tcs(**self._measured(kind), **named)

    def compare(self, source: np.ndarray[Any, Any], decoded: np.ndarray[Any, Any], region: Region) -> MovieDistance:
        """How far the frames lie from their source."""
        from stemcodecs_pipelines.temporal.distance import measure

        return measure(source, decoded, region, self.options.frames)
