"""``compress --method pca``: fit a basis to the whole scan, then encode with it in the codec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from stemcodecs.errors import ConfigurationError, VerificationError
from stemcodecs.readers.scan import Region, Scan
from stemcodecs_pipelines.methods.registry import Encoding, Learning, Method, check_exact, check_form

if TYPE_CHECKING:
    from stemcodecs.lowrank import LowRankModel, PcaBasis
    from stemcodecs_pipelines.pca.fit import PcaPlan

__all__ = ["build", "check_bounded", "specialise"]

Residual = Literal["none", "bounded", "lossless"]

INSIDE_BYTES = 1 << 20
"""Largest model that goes into the metadata of an array whose chunks can find it beside."""
CLUSTER_BLOCK_BYTES = 64 << 20
"""Block of the fit on a cluster: each sends pixels × sketch columns to the client, whatever its size."""
SAMPLE = 128
"""Scan positions on which ranks are compared by size."""
OPTIONS = ("rank", "residual", "r", "step")


def build(scan: Scan, options: Mapping[str, str], learning: Learning) -> Encoding:
    """Fit the basis, which reads the scan twice, and put it into the codec, or beside the array if it is large.

    Raises
    ------
    ConfigurationError
        An option is unknown or unusable, or the fit needs more memory than it may take.
    """
    from stemcodecs.codecs.pca import Pca
    from stemcodecs.lowrank.low_rank_model import WARN_BYTES
    from stemcodecs.lowrank.stored_model import model_objects

    _check(options)
    residual = _residual(options)
    bound = _number(options, "r", 0.5)
    model = _fit(scan, options, residual, learning)
    inside = model.uri_bytes
    self_contained = Pca.from_model(model, residual=residual, bound=bound) if inside <= WARN_BYTES else None
    if self_contained is not None and inside <= INSIDE_BYTES:
        return Encoding(serializer=self_contained)
    # Metadata is text, is read whenever the store is opened, and is there twice: in the array and consolidated.
    beside = Pca(sha256=model.keep().digest, residual=residual, bound=bound)
    return Encoding(serializer=beside, beside=model_objects(model), self_contained=self_contained)


def _fit(scan: Scan, options: Mapping[str, str], residual: Residual, learning: Learning) -> LowRankModel:
    from stemcodecs_pipelines.pca.fit import LARGEST_RANK, choose_rank, pca_basis

    rank = _rank(options)
    where: dict[str, Any] = {}
    if learning.engine is not None:
        where = {"engine": learning.engine, "block_bytes": CLUSTER_BLOCK_BYTES}
    if rank == "auto":
        plan = _affordable(scan, LARGEST_RANK, learning)
        text = f"choosing the rank by count splitting. {plan.describe()}"
        choice = choose_rank(scan, workers=plan.workers, progress=partial(learning.report, text), **where)
        rank = choice.rank
    plan = _affordable(scan, max(rank, 1), learning)
    text = f"{plan.describe()}, rank {rank}"
    basis = pca_basis(scan, rank=max(rank, 1), workers=plan.workers, progress=partial(learning.report, text), **where)
    basis = basis.truncate(min(rank, basis.rank))
    if residual != "none" and _rank(options) == "auto":
        model = _smallest(scan, basis, options, residual)
        learning.report(f"of ranks up to {basis.rank}, {model.rank} is stored smallest", 1, 1)
        return model
    return _model(basis, options, residual)


def _model(basis: PcaBasis, options: Mapping[str, str], residual: Residual) -> LowRankModel:
    from stemcodecs.lowrank import LowRankModel

    # With a residual the model only predicts: finer coefficients or eigen-patterns cost more than
    # they save. A coefficient with an error of one noise (a step of √12) is where the two are equal.
    step = _number(options, "step", 0.5 if residual == "none" else 3.0)
    return LowRankModel.from_basis(basis, step=step, precision=0.05 if residual == "none" else None)


def _smallest(scan: Scan, basis: PcaBasis, options: Mapping[str, str], residual: Residual) -> LowRankModel:
    """The model with which a sample of the scan is stored smallest, its own size included.

    Count splitting finds the rank that predicts best. With a residual nothing is lost at a lower one, and each
    eigen-pattern and coefficient must save more in the residual than it takes.
    """
    from stemcodecs.lowrank.coding import encode_counts
    from stemcodecs_pipelines.pca.fit import CANDIDATES
    from stemcodecs_pipelines.pca.pattern_blocks import PatternBlocks

    blocks = PatternBlocks(source=scan)
    chosen = sorted({round(i) for i in np.linspace(0, len(blocks) - 1, SAMPLE // 64)})
    sample = np.concatenate([blocks.read(i)[: SAMPLE // len(chosen)] for i in chosen])
    bound = Fraction(options.get("r", "0.5")) if residual == "bounded" else None
    best, sizes = _model(basis.truncate(0), options, residual), []
    for rank in sorted({*(r for r in CANDIDATES if r < basis.rank), basis.rank}):
        model = _model(basis.truncate(rank), options, residual)
        coded = encode_counts(sample, model, bound)
        if coded is None:
            break  # no counts: chunks are stored whole
        sizes.append(len(coded) * blocks.positions / len(sample) + model.uri_bytes)
        if sizes[-1] == min(sizes):
            best = model
        elif len(sizes) > 2 and min(sizes[-2:]) > sizes[-3]:
            break  # it will only grow from here
    return best


def _affordable(scan: Scan, rank: int, learning: Learning) -> PcaPlan:
    """The plan of a fit with as many workers as memory allows."""
    blocks = {} if learning.engine is None else {"block_bytes": CLUSTER_BLOCK_BYTES}
    from stemcodecs_pipelines.pca.fit import default_workers, plan_pca
    from stemcodecs_pipelines.run.plan import format_bytes

    for workers in range(learning.workers or default_workers(), 0, -1):
        plan = plan_pca(scan, rank=rank, workers=workers, **blocks)
        if learning.memory is None or plan.memory_bound <= learning.memory:
            return plan
    raise ConfigurationError(
        f"a PCA of rank {rank} of this scan takes up to {format_bytes(plan.memory_bound)}; "
        "give more --memory or a lower --rank"
    )


def specialise(method: Method, options: Mapping[str, str]) -> Method:
    """The guarantee and its check depend on the residual.

    Raises
    ------
    ConfigurationError
        An option is unknown or unusable.
    """
    _check(options)
    residual = _residual(options)
    if residual == "lossless":
        return replace(
            method,
            guarantee="lossless: every value is restored bit by bit",
            check=check_exact,
            exact=True,
        )
    if residual == "bounded":
        r = _number(options, "r", 0.5)
        return replace(
            method,
            guarantee=f"|N' - N| <= {r!r} * sqrt(N) for every count N",
            check=partial(check_bounded, r),
        )
    from stemcodecs_pipelines.pca.misfit import measure

    return replace(method, measure=measure)


def check_bounded(r: float, source: np.ndarray[Any, Any], decoded: np.ndarray[Any, Any], region: Region) -> None:
    """Check |N' − N| ≤ r·√N for every value.

    Raises
    ------
    VerificationError
        With the coordinates of the first value that breaks the bound.
    """
    check_form(source, decoded, region)
    for first, (a, b) in enumerate(zip(source, decoded, strict=True)):
        if np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            continue
        n = a.astype(np.float64)
        # Decided in float64 with room for rounding; what the codec got wrong would be whole counts.
        broken = np.abs(b.astype(np.float64) - n) > r * np.sqrt(np.maximum(n, 0)) * (1 + 1e-12)
        broken &= a != b
        if broken.any():
            inner = np.unravel_index(int(np.argmax(broken)), a.shape)
            local = (first, *(int(i) for i in inner))
            index = tuple(i + s.start for i, s in zip(local, region, strict=True))
            raise VerificationError(
                f"the store breaks its bound of {r} sigma at {index}: {decoded[local]} "
                f"instead of {source[local]}; repair it with stemcodecs repair",
                index,
            )


def _check(options: Mapping[str, str]) -> None:
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ConfigurationError(f"pca has no option {unknown[0]!r}; it has: {', '.join(OPTIONS)}")
    _rank(options)
    _residual(options)
    _number(options, "step", 1.0)
    _number(options, "r", 0.5)
    if "r" in options and options.get("residual") != "bounded":
        raise ConfigurationError("r is the bound of residual=bounded; give that too, or leave out r")


def _rank(options: Mapping[str, str]) -> int | Literal["auto"]:
    text = options.get("rank", "auto")
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise ConfigurationError(f"rank {text!r} must be a number of at least 1, or 'auto'")
    return int(text)


def _residual(options: Mapping[str, str]) -> Residual:
    text = options.get("residual", "none")
    if text in ("none", "bounded", "lossless"):
        return cast("Residual", text)
    raise ConfigurationError(f"residual {text!r} must be none, bounded or lossless")


def _number(options: Mapping[str, str], name: str, default: float) -> float:
    try:
        value = float(options.get(name, default))
    except ValueError:
        value = float("nan")
    if not 0 < value <= 64:
        raise ConfigurationError(f"{name} {options[name]!r} must be a number above 0, at most 64")
    return value
