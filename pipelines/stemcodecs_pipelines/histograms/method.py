"""``compress --method pixel_histogram``: lossless, with a model of each chunk or one of the whole scan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stemcodecs_pipelines.methods.base import Encoding, Learning, Method, check_exact, option

if TYPE_CHECKING:
    import numpy as np

    from stemcodecs.codecs import PixelHistogram
    from stemcodecs.readers.scan import Region, Scan
    from stemcodecs_pipelines.run.plan import Plan

__all__ = ["PixelHistogramMethod", "PixelHistogramOptions"]


@dataclass(frozen=True, kw_only=True)
class PixelHistogramOptions:
    """Options of ``pixel_histogram``."""

    mode: Literal["auto", "pixel", "neighbour", "scan"] = option(
        "auto", "what predicts a count: its pixel alone, neighbours in the pattern too, or those of the scan as well"
    )
    model: Literal["chunk", "scan"] = option(
        "chunk", "a model in every chunk, or one for the whole scan: one pass more, and chunks may be small"
    )


class PixelHistogramMethod(Method[PixelHistogramOptions]):
    """Learned histograms for every detector pixel."""

    name = "pixel_histogram"
    summary = "lossless; learned histograms for every detector pixel"
    Options = PixelHistogramOptions
    worth_comparing = ("", "mode=pixel")

    @property
    def guarantee(self) -> str:
        """See `Method.guarantee`."""
        return "lossless: every value is restored bit by bit"

    @property
    def exact(self) -> bool:
        """See `Method.exact`."""
        return True

    @property
    def reads_everything(self) -> bool:
        """A model of the whole scan is fitted to all of it."""
        return self.options.model == "scan"

    @property
    def whole_detector(self) -> bool:
        """A model of the whole scan is one of the whole detector."""
        return self.options.model == "scan"

    def build(self, scan: Scan, learning: Learning) -> Encoding:
        """See `Method.build`."""
        from stemcodecs.codecs import PixelHistogram

        if self.options.model == "scan":
            return Encoding(serializer=_fitted(scan, self.options.mode, learning))
        return Encoding(serializer=PixelHistogram(mode=self.options.mode))

    def compare(self, source: np.ndarray[Any, Any], decoded: np.ndarray[Any, Any], region: Region) -> None:
        """See `Method.compare`."""
        check_exact(source, decoded, region)


def _fitted(scan: Scan, mode: str, learning: Learning) -> PixelHistogram:
    """The codec with a model of the whole scan, which is read once for it; without one where its values have none."""
    from stemcodecs.codecs import PixelHistogram
    from stemcodecs.errors import NotCountsError
    from stemcodecs_pipelines.histograms.scan_histograms import histograms

    text, done, total = "", 0, 0

    def start(plan: Plan) -> None:
        nonlocal text, total
        text, total = f"fitting: {plan.describe()}", plan.raw_bytes
        learning.report(text, 0, total)

    def progress(count: int) -> None:
        nonlocal done
        done += count
        learning.report(text, done, total)

    try:
        fitted = histograms(
            scan,
            mode=mode,
            counts=False,
            workers=learning.workers,
            memory=learning.memory,
            engine=learning.engine,
            start=start,
            progress=progress,
        )
    except NotCountsError:
        learning.report("the values are no counts that one model could be of: every chunk finds its own", 1, 1)
        return PixelHistogram(mode=mode)
    if fitted.strange:
        patterns = math.prod(scan.shape[:-2])
        learning.report(
            f"{fitted.strange} of {patterns} patterns are unlike the others: chunks of them find a model of their own",
            1,
            1,
        )
    return fitted.codec()
