"""The methods of ``compress --method``: how a scan becomes a codec, and what is guaranteed.

A new codec becomes a method by one entry in `METHODS`. Its `build` may look at the scan (a fitted
model travels in the codec's configuration); its `check` states the guarantee as code, and every
block is checked against it after it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from stemcodecs.errors import ConfigurationError, VerificationError
from stemcodecs.readers.scan import Region, Scan
from stemcodecs_pipelines.run.engine import Engine
from stemcodecs_pipelines.run.plan import Plan

__all__ = [
    "METHODS",
    "Comparison",
    "Encoding",
    "Learning",
    "Method",
    "check_exact",
    "check_form",
    "merged",
    "parse_method",
]

Check = Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any], Region], object]


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Codecs of one array, as :func:`zarr.create_array` takes them.

    Parameters
    ----------
    serializer : object
        Array-to-bytes codec.
    filters : tuple of object
        Array-to-array codecs before it.
    beside : dict
        Objects of the store, by key: a model that is too large for the array's metadata.
    self_contained : object, optional
        The serializer with its model inside, for shards, where Zarr finds nothing beside the array; None if it is
        too large for that too.
    """

    serializer: Any
    filters: tuple[Any, ...] = ()
    beside: Mapping[str, bytes] = field(default_factory=dict)
    self_contained: Any = None


@dataclass(frozen=True, kw_only=True)
class Learning:
    """Where a method that looks at the whole scan first does so, and whom it tells.

    Parameters
    ----------
    engine : Engine, optional
        Where its tasks run; default threads of this process.
    workers, memory : int, optional
        How many at once, and the bytes that they may take.
    report : callable, optional
        Called with a line that says what is done, steps done and steps in all; first with no step done.
    """

    engine: Engine | None = None
    workers: int | None = None
    memory: int | None = None
    report: Callable[[str, int, int], None] = lambda text, done, total: None


class Comparison(Protocol):
    """How far decoded values lie from their source."""

    def merge(self, other: Any) -> Any:
        """Both blocks together."""

    def summary(self) -> str:
        """One line for people."""


def merged(one: Comparison | None, other: Comparison | None) -> Comparison | None:
    """Comparisons of two parts of a scan, of which either may have measured nothing."""
    if one is None or other is None:
        return other if one is None else one
    both: Comparison = one.merge(other)
    return both


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to store a scan.

    Parameters
    ----------
    name : str
        What ``--method`` takes.
    summary : str
        One line for the help.
    guarantee : str
        What a reader of the store may rely on; written into its attributes.
    build : callable
        ``build(scan, options, learning)`` gives the `Encoding`; `options` come from ``name:key=value,…``.
    check : callable
        ``check(source, decoded, region)`` raises `VerificationError` where the guarantee is broken.
    exact : bool
        The guarantee is bit-exactness, so that the digest of the source is that of the decoded
        values.
    measure : callable, optional
        As `check`, and returns how far the decoded values lie from the source, for the report of ``verify``.
    specialise : callable, optional
        ``specialise(method, options)`` gives the method with the guarantee of these options.
    whole_detector : bool
        Its chunks must not cut patterns.
    """

    name: str
    summary: str
    guarantee: str
    build: Callable[[Scan, Mapping[str, str], Learning], Encoding]
    check: Check
    exact: bool = False
    measure: Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any], Region], Comparison] | None = None
    specialise: Callable[[Method, Mapping[str, str]], Method] | None = None
    whole_detector: bool = False

    def compare(self, source: np.ndarray[Any, Any], decoded: np.ndarray[Any, Any], region: Region) -> Comparison | None:
        """Check the guarantee on a block, and say how far the values lie apart if the method measures it.

        Raises
        ------
        VerificationError
            The guarantee is broken, or the block is not of this source.
        """
        if self.measure is not None:
            return self.measure(source, decoded, region)
        self.check(source, decoded, region)
        return None


def check_form(source: np.ndarray[Any, Any], decoded: np.ndarray[Any, Any], region: Region) -> None:
    """Compare shape and dtype.

    Raises
    ------
    VerificationError
        They differ.
    """
    if source.shape != decoded.shape or source.dtype != decoded.dtype:
        corner = tuple(s.start for s in region)
        raise VerificationError(
            f"the block at {corner} is {decoded.dtype}{decoded.shape}, "
            f"the source has {source.dtype}{source.shape}; this is not its source",
            corner,
        )


def check_exact(source: np.ndarray[Any, Any], decoded: np.ndarray[Any, Any], region: Region) -> None:
    """Compare every value bit by bit.

    Raises
    ------
    VerificationError
        With the coordinates of the first value that differs, in the whole scan.
    """
    check_form(source, decoded, region)
    bits = np.dtype(f"u{source.dtype.itemsize}")  # floats too: NaN payloads and −0 count
    for first, (a, b) in enumerate(zip(source.view(bits), decoded.view(bits), strict=True)):
        # Row by row, so that the comparison takes next to no memory.
        if not np.array_equal(a, b):
            inner = np.unravel_index(int(np.argmax(a != b)), a.shape)
            local = (first, *(int(i) for i in inner))
            index = tuple(i + s.start for i, s in zip(local, region, strict=True))
            raise VerificationError(
                f"the store differs from its source at {index}: "
                f"{decoded[local]} instead of {source[local]}; repair it with stemcodecs repair",
                index,
            )


def _pixel_histogram(scan: Scan, options: Mapping[str, str], learning: Learning) -> Encoding:
    from stemcodecs.codecs import PixelHistogram

    unknown = sorted(set(options) - {"mode", "model"})
    if unknown:
        raise ConfigurationError(f"pixel_histogram has no option {unknown[0]!r}; it has: mode, model")
    mode, model = options.get("mode", "auto"), options.get("model", "chunk")
    if model not in ("chunk", "scan"):
        raise ConfigurationError(f"model={model} is unknown; choose model=chunk (the default) or model=scan")
    codec = PixelHistogram(mode=mode)
    if model == "scan":
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
        codec = fitted.codec()
    return Encoding(serializer=codec)


def _specialise_pixel_histogram(method: Method, options: Mapping[str, str]) -> Method:
    """A model of the whole scan is one of the whole detector."""
    return replace(method, whole_detector=options.get("model") == "scan")


def _pca(scan: Scan, options: Mapping[str, str], learning: Learning) -> Encoding:
    from stemcodecs_pipelines.pca.method import build

    return build(scan, options, learning)


def _specialise_pca(method: Method, options: Mapping[str, str]) -> Method:
    from stemcodecs_pipelines.pca.method import specialise

    return specialise(method, options)


def _poisson(scan: Scan, options: Mapping[str, str], learning: Learning) -> Encoding:
    from stemcodecs_pipelines.poisson.method import build

    return build(scan, options)


def _specialise_poisson(method: Method, options: Mapping[str, str]) -> Method:
    from stemcodecs_pipelines.poisson.method import specialise

    return specialise(method, options)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="pixel_histogram",
            summary="lossless; learned histograms for every detector pixel; mode=auto|pixel|neighbour|scan, "
            "model=chunk|scan (one model for all chunks: a pass more, and chunks may be small)",
            guarantee="lossless: every value is restored bit by bit",
            build=_pixel_histogram,
            check=check_exact,
            exact=True,
            specialise=_specialise_pixel_histogram,
        ),
        Method(
            name="poisson",
            summary="counts within r sigma of their shot noise; r=, preset=, gain=, offset=, saturation=, "
            "exact_below=, decoder=midpoint|centroid, bits= (fixed width, as from a detector's chip)",
            guarantee="|v' - v| <= r sigma for every value",
            build=_poisson,
            check=check_exact,
            specialise=_specialise_poisson,
        ),
        Method(
            name="pca",
            summary="eigen-patterns of the scan; rank=, residual=none|bounded|lossless, r=, step=",
            guarantee="no pointwise guarantee",
            build=_pca,
            check=check_form,
            specialise=_specialise_pca,
            whole_detector=True,
        ),
    )
}


def parse_method(text: str) -> tuple[Method, dict[str, str]]:
    """Read ``name`` or ``name:key=value,key=value``.

    Raises
    ------
    ConfigurationError
        No such method, or not of this form.
    """
    name, _, tail = text.partition(":")
    if name not in METHODS:
        raise ConfigurationError(f"no method {name!r}; there is: {', '.join(METHODS)}")
    options: dict[str, str] = {}
    for part in filter(None, tail.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key or not value:
            raise ConfigurationError(
                f"cannot read the method option {part!r}; write --method {name}:key=value,key=value"
            )
        options[key] = value
    method = METHODS[name]
    return (method if method.specialise is None else method.specialise(method, options)), options
