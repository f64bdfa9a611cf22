"""``compress --method pca``: fit a basis to the whole scan, then encode with it in the codec."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from rich import filesize

from stemcodecs.errors import ConfigurationError, VerificationError
from stemcodecs_pipelines.methods.base import Comparison, Encoding, Learning, Method, check_exact, check_form, option

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from stemcodecs.counts.counts_map import CountsMap
    from stemcodecs.lowrank import LowRankModel, PcaBasis
    from stemcodecs.readers.scan import Region, Scan
    from stemcodecs_pipelines.pca.fit import PcaPlan

__all__ = ["PcaMethod", "PcaOptions"]

INSIDE_BYTES = 1 << 20
"""Largest model that goes into the metadata of an array whose chunks can find a stored one."""
CLUSTER_BLOCK_BYTES = 64 << 20
"""Block of the fit on a cluster: each sends pixels × sketch columns to the client, whatever its size."""
SAMPLE = 128
"""Scan positions on which ranks are compared by size."""


@dataclass(frozen=True, kw_only=True)
class PcaOptions:
    """Options of ``pca``."""

    rank: int | Literal["auto"] = option(
        "auto",
        "eigen-patterns that are kept; auto finds by count splitting how many predict best",
        least=1,
        flag="--rank",
    )
    residual: Literal["none", "bounded", "lossless"] = option(
        "none",
        "what is stored besides the eigen-patterns: nothing, every count within r, or every value",
        flag="--residual",
    )
    r: float = option(0.5, "bound in σ of a bounded residual", above=0, most=64, flag="--r")
    step: float | None = option(
        None, "step of a coefficient in units of its noise", otherwise="0.5; 3 with a residual", above=0, most=64
    )


class PcaMethod(Method[PcaOptions]):
    """Coefficients of the scan's eigen-patterns, with or without what they leave."""

    name = "pca"
    summary = "coefficients of the scan's eigen-patterns, with or without a residual"
    Options = PcaOptions
    worth_comparing = ("", "residual=bounded")

    def __init__(self, options: PcaOptions, text: str) -> None:
        super().__init__(options, text)
        self.map: CountsMap | None = None

    @property
    def guarantee(self) -> str:
        """See `Method.guarantee`."""
        words = {
            "none": "no pointwise guarantee",
            "bounded": f"|N' - N| <= {self.options.r!r} * sqrt(N) for every count N",
            "lossless": "lossless: every value is restored bit by bit",
        }[self.options.residual]
        if self.map is None or self.options.residual != "bounded":
            return words
        from stemcodecs.counts.words import words_of_map

        return f"{words} behind a value: {words_of_map(self.map)}; values without such a number are exact"

    @property
    def exact(self) -> bool:
        """See `Method.exact`."""
        return self.options.residual == "lossless"

    @property
    def reads_everything(self) -> bool:
        """The fit reads the scan twice."""
        return True

    @property
    def whole_detector(self) -> bool:
        """An eigen-pattern is one of the whole detector."""
        return True

    def of_array(self, metadata: Mapping[str, Any]) -> PcaMethod:
        """See `Method.of_array`: the map that was found."""
        from stemcodecs.counts.counts_map import CountsMap

        codec = metadata["codecs"][-1]
        while "codecs" in codec.get("configuration", {}):
            codec = codec["configuration"]["codecs"][-1]
        uri = codec.get("configuration", {}).get("map")
        if uri is None:
            return self
        known = type(self)(self.options, self.text)
        known.map = CountsMap.from_uri(uri)
        return known

    def build(self, scan: Scan, learning: Learning) -> Encoding:
        """Fit the basis, which reads the scan twice, and put it into the codec, or into the store if it is large.

        Raises
        ------
        ConfigurationError
            The rank is not possible, or the fit needs more memory than it may take.
        """
        from stemcodecs.codecs.pca import Pca
        from stemcodecs.lowrank.low_rank_model import WARN_BYTES
        from stemcodecs.lowrank.stored_model import model_objects

        behind = _behind(scan, learning)
        model = _fitted(scan, self.options, behind, learning)
        kind: dict[str, Any] = {"residual": self.options.residual, "bound": self.options.r}
        if behind is not None:
            kind["map"] = behind.to_uri()
        inside = model.uri_bytes
        self_contained = Pca.from_model(model, **kind) if inside <= WARN_BYTES else None
        if self_contained is not None and inside <= INSIDE_BYTES:
            return Encoding(serializer=self_contained)
        # Metadata is text, is read whenever the store is opened, and is there twice: in the array and consolidated.
        alone = Pca(sha256=model.keep().digest, **kind)
        return Encoding(serializer=alone, stored_models=model_objects(model), self_contained=self_contained)

    def compare(self, source: np.ndarray[Any, Any], decoded: np.ndarray[Any, Any], region: Region) -> Comparison | None:
        """See `Method.compare`."""
        if self.options.residual == "lossless":
            check_exact(source, decoded, region)
        elif self.options.residual == "bounded":
            check_bounded(self.options.r, source, decoded, region, self.map)
        else:
            from stemcodecs_pipelines.pca.misfit import measure, measure_behind

            if self.map is not None:
                return measure_behind(source, decoded, region, self.map)
            return measure(source, decoded, region)
        return None


def _behind(scan: Scan, learning: Learning) -> CountsMap | None:
    """How the values of a scan become counts, if they are none as they are and a few patterns tell it."""
    from stemcodecs_pipelines.run.map_of_scan import map_of_scan

    if scan.dtype.kind not in "iuf" or len(scan.shape) < 3:
        return None
    found = map_of_scan(scan, learning.engine, learning.workers)
    # Whole numbers of 64 bits are counts as they are.
    if found.map is None or found.problem or found.map.changes_nothing or found.map.largest(scan.dtype) < 1:
        return None
    return found.map


def _fitted(scan: Scan, options: PcaOptions, behind: CountsMap | None, learning: Learning) -> LowRankModel:
    from stemcodecs_pipelines.pca.fit import LARGEST_RANK, choose_rank, pca_basis

    rank = options.rank
    where: dict[str, Any] = {"behind": behind}
    if learning.engine is not None:
        where |= {"engine": learning.engine, "block_bytes": CLUSTER_BLOCK_BYTES}
    if rank == "auto":
        plan = _affordable(scan, LARGEST_RANK, learning)
        text = f"choosing the rank by count splitting. {plan.describe()}"
        choice = choose_rank(scan, workers=plan.workers, progress=partial(learning.report, text), **where)
        rank = choice.rank
    plan = _affordable(scan, max(rank, 1), learning)
    text = f"{plan.describe()}, rank {rank}"
    basis = pca_basis(scan, rank=max(rank, 1), workers=plan.workers, progress=partial(learning.report, text), **where)
    basis = basis.truncate(min(rank, basis.rank))
    if options.residual != "none" and options.rank == "auto":
        model = _smallest(scan, basis, options, behind)
        learning.report(f"of ranks up to {basis.rank}, {model.rank} is stored smallest", 1, 1)
        return model
    return _model(basis, options)


def _model(basis: PcaBasis, options: PcaOptions) -> LowRankModel:
    from stemcodecs.lowrank import LowRankModel

    # With a residual the model only predicts: finer coefficients or eigen-patterns cost more than
    # they save. A coefficient with an error of one noise (a step of √12) is where the two are equal.
    alone = options.residual == "none"
    step = (0.5 if alone else 3.0) if options.step is None else options.step
    return LowRankModel.from_basis(basis, step=step, precision=0.05 if alone else None)


def _smallest(scan: Scan, basis: PcaBasis, options: PcaOptions, behind: CountsMap | None) -> LowRankModel:
    """The model with which a sample of the scan is stored smallest, its own size included.

    Count splitting finds the rank that predicts best. With a residual nothing is lost at a lower one, and each
    eigen-pattern and coefficient must save more in the residual than it takes.
    """
    import numpy as np

    from stemcodecs.lowrank.coding import encode_counts
    from stemcodecs_pipelines.pca.fit import CANDIDATES
    from stemcodecs_pipelines.pca.pattern_blocks import PatternBlocks

    blocks = PatternBlocks(source=scan, behind=behind)
    chosen = sorted({round(i) for i in np.linspace(0, len(blocks) - 1, SAMPLE // 64)})
    sample = np.concatenate([blocks.read(i)[: SAMPLE // len(chosen)] for i in chosen])
    bound = Fraction(repr(options.r)) if options.residual == "bounded" else None
    best, sizes = _model(basis.truncate(0), options), []
    for rank in sorted({*(r for r in CANDIDATES if r < basis.rank), basis.rank}):
        model = _model(basis.truncate(rank), options)
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

    for workers in range(learning.workers or default_workers(), 0, -1):
        plan = plan_pca(scan, rank=rank, workers=workers, **blocks)
        if learning.memory is None or plan.memory_bound <= learning.memory:
            return plan

    raise ConfigurationError(
        f"a PCA of rank {rank} of this scan takes up to {filesize.decimal(plan.memory_bound)}; "
        "give more --memory or a lower --rank"
    )


def check_bounded(
    r: float,
    source: np.ndarray[Any, Any],
    decoded: np.ndarray[Any, Any],
    region: Region,
    behind: CountsMap | None = None,
) -> None:
    """Check |N' − N| ≤ r·√N for every value, or for the count behind it.

    Raises
    ------
    VerificationError
        With the coordinates of the first value that breaks the bound.
    """
    import numpy as np

    check_form(source, decoded, region)
    for first, (a, b) in enumerate(zip(source, decoded, strict=True)):
        if behind is None and np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            continue
        broken = _broken(r, a, b) if behind is None else _broken_behind(r, a, b, behind)
        if broken.any():
            inner = np.unravel_index(int(np.argmax(broken)), a.shape)
            local = (first, *(int(i) for i in inner))
            index = tuple(i + s.start for i, s in zip(local, region, strict=True))
            raise VerificationError(
                f"the store breaks its bound of {r} sigma at {index}: {decoded[local]} "
                f"instead of {source[local]}; repair it with stemcodecs repair",
                index,
            )


def _broken(r: float, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    n = a.astype(np.float64)
    # Decided in float64 with room for rounding; what the codec got wrong would be whole counts.
    with np.errstate(invalid="ignore"):
        broken = ~(np.abs(b.astype(np.float64) - n) <= r * np.sqrt(np.maximum(n, 0)) * (1 + 1e-12))
    broken &= a != b
    if a.dtype.kind == "f":
        # No bound holds for what is not finite: it is a mark, and kept bit by bit.
        bits = f"u{a.dtype.itemsize}"
        broken = np.where(np.isfinite(a), broken, a.view(bits) != b.view(bits))
    found: np.ndarray[Any, Any] = broken
    return found


def _broken_behind(
    r: float, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], behind: CountsMap
) -> np.ndarray[Any, Any]:
    import numpy as np

    from stemcodecs.lowrank.mapped import counts_behind

    native = a.dtype.newbyteorder("=")
    mine, other = (np.ascontiguousarray(v, native).reshape(-1, behind.zero.size) for v in (a, b))
    counts, none, scales = counts_behind(mine, behind)
    found, lost = behind.counts(other, scales)
    bits = f"u{native.itemsize}"
    changed = mine.view(bits) != other.view(bits)
    apart = np.abs(found.astype(np.float64) - counts) > r * np.sqrt(np.maximum(counts, 0.0)) * (1 + 1e-12)
    broken: np.ndarray[Any, Any] = (changed & (none | lost | apart)).reshape(a.shape)
    return broken
