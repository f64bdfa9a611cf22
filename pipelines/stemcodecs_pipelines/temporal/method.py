"""``compress --method tcs``: movies as one measurement for every B frames, decoded to an estimate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.methods.base import Encoding, Learning, Method, option

if TYPE_CHECKING:
    import numpy as np

    from stemcodecs.codecs.tcs import Tcs
    from stemcodecs.readers.scan import Region, Scan
    from stemcodecs_pipelines.temporal.distance import MovieDistance

__all__ = ["TcsMethod", "TcsOptions"]

SAMPLES = 3
"""Measurements of the movie that are tried."""


@dataclass(frozen=True, kw_only=True)
class TcsOptions:
    """Options of ``tcs``."""

    frames: int = option(10, "frames of a measurement", least=2, most=128)
    measurement: Literal["auto", "bins", "tiled", "random"] = option(
        "auto",
        "space-time bins, or sums behind balanced or random masks; auto takes what gives the frames of a sample best",
    )
    decoder: Literal["interpolate", "gap-tv", "network"] | None = option(
        None,
        "how readers get frames back",
        otherwise="interpolate for bins, gap-tv for masks; network needs onnxruntime to be read",
    )
    time_bins: int = option(4, "of bins: time bins of a measurement", least=1)
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

        check_movie(scan.dtype, len(scan.shape))
        candidates = self._candidates()
        samples = _samples(scan, self.options.frames)
        step = _noise_step(samples) if self.options.step == "auto" else self.options.step
        stepped = [replace(codec, step=step * _step_scale(codec)) for codec in candidates]
        if len(stepped) == 1:
            return Encoding(serializer=stepped[0])
        found = [(_error(codec, samples), codec) for codec in stepped]
        best = min(found, key=lambda pair: pair[0])[1]
        tried = ", ".join(f"{codec.measurement} with {codec.decoder} {error:.2f}" for error, codec in found)
        learning.report(f"root mean squared distance from {len(samples)} samples: {tried}", 1, 1)
        return Encoding(serializer=best)

    def _candidates(self) -> list[Tcs]:
        """Codecs that the options allow, with the measurements in the order of the options."""
        from stemcodecs.codecs.tcs import Tcs

        o = self.options
        common: dict[str, Any] = {"frames": o.frames, "incoherent": o.incoherent}
        out = []
        if o.measurement in ("auto", "bins") and o.decoder != "network":
            bins: dict[str, Any] = {"time_bins": min(o.time_bins, o.frames), "space_bins": o.space_bins}
            out.append(Tcs(**common, **bins, measurement="bins", decoder=o.decoder or "interpolate"))
        if o.measurement != "bins" and o.decoder != "interpolate":
            masks = "tiled" if o.measurement == "auto" else o.measurement
            # Only where it is asked for: a store must open where stemcodecs is, and onnxruntime is an extra.
            weights = _shipped_weights(masks, o.frames, o.seed) if o.decoder == "network" else None
            if o.decoder == "network" and weights is None:
                raise ConfigurationError(
                    f"no weights for measurement={masks}, frames={o.frames}, seed={o.seed} come with stemcodecs, or "
                    "onnxruntime is not installed (pip install 'stemcodecs[learned]'); take decoder=gap-tv, and read "
                    "the store with weights of your own by stemcodecs.movies.with_decoder"
                )
            decoder: Any = "gap-tv" if weights is None else "network"
            out.append(Tcs(**common, measurement=masks, seed=o.seed, decoder=decoder, weights=weights))
        if not out:
            raise ConfigurationError(
                f"decoder={o.decoder} does not fit measurement={o.measurement}; masks are decoded by gap-tv or "
                "network, bins by interpolate or gap-tv"
            )
        return out

    def compare(self, source: np.ndarray[Any, Any], decoded: np.ndarray[Any, Any], region: Region) -> MovieDistance:
        """How far the frames lie from their source."""
        from stemcodecs_pipelines.temporal.distance import measure

        return measure(source, decoded, region, self.options.frames)


def _shipped_weights(measurement: str, frames: int, seed: int) -> str | None:
    """Digest of shipped weights for such measurements, where they can be run."""
    from importlib.util import find_spec

    from stemcodecs.temporal.weights import shipped_for

    return shipped_for(measurement, frames, seed) if find_spec("onnxruntime") else None


def _samples(scan: Scan, frames: int) -> list[np.ndarray[Any, Any]]:
    """Measurements from the beginning, the middle and the end of a movie."""
    length = scan.shape[-3]
    starts = sorted({max(0, round(i * (length - frames) / (SAMPLES - 1))) for i in range(SAMPLES)})
    first = tuple(slice(n // 2, n // 2 + 1) for n in scan.shape[:-3])
    whole = tuple(slice(0, n) for n in scan.shape[-2:])
    return [
        scan.read((*first, slice(t, min(t + frames, length)), *whole)).reshape(-1, *scan.shape[-2:]) for t in starts
    ]


def _noise_step(samples: list[np.ndarray[Any, Any]]) -> int:
    """Noise of a frame by the differences of consecutive ones, of which motion is a part: at least 1."""
    import numpy as np

    squares = [np.square(np.diff(s.astype(np.float32), axis=0)).mean() / 2 for s in samples if len(s) > 1]
    return max(1, int(np.sqrt(min(squares, default=0.0))))


def _step_scale(codec: Tcs) -> int:
    """How much noisier a sum is than a value: the root of how many it sums."""
    opened = codec.sampling.opened((codec.space_bins * 4, codec.space_bins * 4))
    return max(1, int(opened.mean() ** 0.5))


def _error(codec: Tcs, samples: list[np.ndarray[Any, Any]]) -> float:
    """Root mean square of what is decoded less the frames as they are: their noise is the same for every codec."""
    import numpy as np

    measured = replace(codec, incoherent="measured")
    squares = [
        np.square(measured.decode_chunk(measured.encode_chunk(s)).astype(np.float32) - s).mean() for s in samples
    ]
    return float(np.sqrt(np.mean(squares)))
