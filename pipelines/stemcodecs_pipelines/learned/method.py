"""``compress --method learned``: lossless, by a network that is fitted to the scan, or to every chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.methods.base import Encoding, Learning, Method, check_exact, option

if TYPE_CHECKING:
    import numpy as np

    from stemcodecs.readers.scan import Region, Scan

__all__ = ["LearnedMethod", "LearnedOptions"]

STEPS, SECONDS = 8000, 300
PLANE_BYTES = 5
"""What a fit holds of a value besides itself."""


@dataclass(frozen=True, kw_only=True)
class LearnedOptions:
    """Options of ``learned``."""

    model: Literal["auto", "scan", "chunk"] = option(
        "auto", "one network for the whole scan, or one in every chunk; auto takes the latter where scan neighbours pay"
    )
    steps: int = option(STEPS, "steps of a fit; 8000 take about fifteen seconds of one core", least=1, most=1_000_000)
    seed: int = option(0, "of the fit: the same scan, steps and seed give the same network", least=0)
    arch: Literal["auto", "context", "images", "l3c"] = option(
        "auto",
        "context is for counts of patterns, images for movies and tilt series; auto takes what is smaller; "
        "l3c predicts from latents, as convolutional networks do: larger, to compare",
    )
    seconds: int = option(SECONDS, "with arch=l3c: time to train in, by torch (extra train)", least=1, most=86400)
    location: bool = option(True, "with arch=l3c: whether the network is told the mean of every pixel")

    def __post_init__(self) -> None:
        """Refuse what does not fit together, or would have no effect.

        Raises
        ------
        ConfigurationError
            An option is for another architecture.
        """
        if self.arch != "l3c" and (self.seconds != SECONDS or not self.location):
            raise ConfigurationError("learned: seconds and location are for arch=l3c: give that too, or leave them out")
        if self.arch == "l3c" and (self.model == "chunk" or self.steps != STEPS):
            raise ConfigurationError("learned: model=chunk and steps are not for arch=l3c, which takes seconds")
        if self.arch == "images" and self.model == "scan":
            raise ConfigurationError("arch=images looks at images before, which chunks do not share: leave model out")


class LearnedMethod(Method[LearnedOptions]):
    """A network of about two thousand parameters."""

    name = "learned"
    summary = "lossless; a tiny integer network that is fitted to the scan: smallest, and slower"
    Options = LearnedOptions
    slow_to_compare = ("arch=l3c",)

    @property
    def guarantee(self) -> str:
        """See `Method.guarantee`."""
        return "lossless: every value is restored bit by bit"

    @property
    def exact(self) -> bool:
        """See `Method.exact`."""
        return True

    @property
    def whole_detector(self) -> bool:
        """A network of the whole scan is one of the whole detector."""
        return self.options.model != "chunk" and self.options.arch != "images"

    def learning_bytes(self, scan: Scan) -> int:
        """See `Method.learning_bytes`: the patterns that a network is fitted to, and their planes."""
        from stemcodecs_pipelines.learned.scan_network import sample_values

        return sample_values(scan) * (scan.dtype.itemsize + PLANE_BYTES)

    def build(self, scan: Scan, learning: Learning) -> Encoding:
        """See `Method.build`."""
        from stemcodecs.codecs import Learned
        from stemcodecs_pipelines.learned.scan_network import fitted

        alone = Learned(
            steps=self.options.steps,
            seed=self.options.seed,
            arch="context" if self.options.arch == "l3c" else self.options.arch,
        )
        if self.options.arch == "l3c":
            from stemcodecs_pipelines.learned.l3c_scan import trained

            seconds, location = self.options.seconds, self.options.location
            return Encoding(serializer=trained(scan, alone, learning, seconds=seconds, location=location))
        # A network for images looks at the image before, which chunks do not share.
        if self.options.model == "chunk" or self.options.arch == "images":
            return Encoding(serializer=alone)
        return Encoding(serializer=fitted(scan, alone, learning, try_chunks=self.options.model == "auto"))

    def compare(self, source: np.ndarray[Any, Any], decoded: np.ndarray[Any, Any], region: Region) -> None:
        """See `Method.compare`."""
        check_exact(source, decoded, region)
