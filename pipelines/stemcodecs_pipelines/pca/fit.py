"""PCA of a whole scan, out of core.

A streaming randomised range finder reads the scan twice (more passes sharpen weak components) and
never forms a matrix of pixels × pixels or positions × positions: each worker holds one block and a
pixels × (rank + oversampling) product (Halko, Martinsson and Tropp 2011, doi:10.1137/090771806).
The rank can be chosen by count splitting: binomial thinning gives two independent Poisson scans of
half the dose, the basis of one predicts the other, and the rank with the smallest Poisson deviance
wins (Neufeld et al. 2022, doi:10.1093/biostatistics/kxac047).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Unpack

import numpy as np
from rich import filesize
from threadpoolctl import threadpool_limits

from stemcodecs.counts.counts_map import CountsMap
from stemcodecs.errors import ConfigurationError
from stemcodecs.lowrank.basis import PcaBasis, as_features, assemble, check_rank, exact_basis
from stemcodecs.lowrank.rangefinder import (
    PassSums,
    first_sketch,
    forget_products,
    next_sketch,
    nystrom,
    symmetric_product,
)
from stemcodecs.readers.scan import Scan
from stemcodecs_pipelines.pca.pattern_blocks import BlockTask, DevianceTask, PatternBlocks, in_order
from stemcodecs_pipelines.run.engine import Engine, ThreadEngine
from stemcodecs_pipelines.run.memory import keep_freed_blocks
from stemcodecs_pipelines.run.plan import BASE_BYTES, available_cores
from stemcodecs_pipelines.run.source import HowToOpen, opened

__all__ = [
    "CANDIDATES",
    "LARGEST_RANK",
    "PcaPlan",
    "RankChoice",
    "choose_rank",
    "default_workers",
    "pca_basis",
    "plan_pca",
]

SMALL = 1 << 21
"""Values of a scan below which the SVD is taken in memory, exactly."""
CANDIDATES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
LARGEST_RANK = CANDIDATES[-1]
JUDGED = 2048
"""Scan positions on which candidate ranks are judged."""

AHEAD = 4
"""Blocks per worker that may be begun before an earlier one is done."""
WAITING_BYTES = 512 << 20
"""Results that may wait for an earlier one on a cluster, where one worker can be lost for minutes."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class PcaPlan:
    """What a run will read and hold.

    Attributes
    ----------
    blocks, passes : int
        Blocks of the scan, and how often each is read.
    columns : int
        Sketch columns: rank + oversampling.
    workers : int
        Blocks in work at once.
    block_bytes, product_bytes : int
        A block as float32, and a pixels × columns product as float32.
    exact : bool
        The scan is so small that it is read into memory, for a full SVD.
    """

    blocks: int
    passes: int
    columns: int
    workers: int
    block_bytes: int
    product_bytes: int
    exact: bool = False

    @property
    def memory_bound(self) -> int:
        """Most memory that the run takes on one machine, in bytes."""
        # A worker holds the raw block as it was stored and as it is, its features, and two products; results wait for
        # their turn; the client holds a sum, and at the end four times its size, in float64.
        if self.exact:
            return BASE_BYTES + 64 * SMALL  # a few copies in float64
        worker = 3 * self.block_bytes + (2 + AHEAD) * self.product_bytes
        return BASE_BYTES + self.workers * worker + 10 * self.product_bytes

    def describe(self) -> str:
        """One line for the user."""
        if self.exact:
            return f"PCA: exact, in memory, which takes at most {filesize.decimal(self.memory_bound)}"
        return (
            f"PCA: {self.blocks} blocks read {self.passes} times, {self.columns} sketch columns, "
            f"{self.workers} worker{'s' if self.workers != 1 else ''}, memory at most "
            f"{filesize.decimal(self.memory_bound)}"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class RankChoice:
    """Outcome of count splitting.

    Attributes
    ----------
    rank : int
        The candidate with the smallest deviance.
    candidates : tuple of int
        Ranks that were tried; 0 is the mean pattern alone.
    deviance : ndarray, float64
        Poisson deviance of each candidate per judged pixel, less a constant.
    """

    rank: int
    candidates: tuple[int, ...]
    deviance: np.ndarray[Any, Any]


def plan_pca(
    scan: Any,
    *,
    rank: int,
    passes: int = 2,
    oversampling: int = 16,
    workers: int | None = None,
    block_bytes: int = 8 << 20,
) -> PcaPlan:
    """Memory and passes of :func:`pca_basis` with the same arguments, before anything is read.

    Raises
    ------
    ConfigurationError
        If the scan is not a stack of patterns.
    """
    blocks = PatternBlocks(source=scan, block_bytes=block_bytes)
    columns = min(rank + oversampling, blocks.pixels, blocks.positions)
    tile = int(np.prod(blocks.tile))
    itemsize = np.dtype(scan.dtype).itemsize
    exact = blocks.positions * blocks.pixels <= SMALL
    return PcaPlan(
        blocks=len(blocks),
        passes=1 if exact else passes,
        columns=columns,
        workers=workers or default_workers(),
        block_bytes=tile * blocks.pixels * max(4, itemsize),
        product_bytes=4 * blocks.pixels * columns,
        exact=exact,
    )


def pca_basis(
    source: Any,
    *,
    rank: int | Literal["auto"],
    centred: bool = True,
    stabilised: bool = True,
    passes: int = 2,
    oversampling: int = 16,
    seed: int = 0,
    block_bytes: int = 8 << 20,
    behind: CountsMap | None = None,
    workers: int | None = None,
    engine: Engine | None = None,
    progress: Progress | None = None,
    **how: Unpack[HowToOpen],
) -> PcaBasis:
    """Eigen-patterns of a scan that may be larger than memory.

    Small scans (up to two million values) get the exact SVD. Larger ones get the range finder,
    which is also exact where rank + oversampling reaches the number of positions or pixels.

    Parameters
    ----------
    source : Scan, path, zarr.Array, dask.array.Array or ndarray
        Counts, (…, det_y, det_x).
    rank : int or "auto"
        Components, or by count splitting (:func:`choose_rank`).
    dataset, shape, dtype, offset
        How to open a path, see :func:`stemcodecs.readers.open_scan`.
    centred : bool
        Subtract the mean pattern.
    stabilised : bool
        Work on 2·√(N + 3/8), in which every pixel has the same noise.
    passes : int
        Times that the scan is read: passes − 1 power iterations.
    oversampling : int
        Sketch columns beyond the rank.
    seed : int
        Of the random sketch. The result depends on it and on the blocks, not on the workers.
    block_bytes : int
        Size of a block as float32. A block returns a product of pixels × sketch columns: over a network take larger
        ones.
    behind : CountsMap, optional
        How values become the counts that are fitted, where they are none.
    workers : int, optional
        Threads, where no engine is given. Default: one more than there are cores.
    engine : Engine, optional
        Where tasks run, e.g. a :class:`~stemcodecs_pipelines.run.engine.DaskEngine`.
    progress : callable, optional
        Called with (blocks done, blocks in total), over all passes.

    Raises
    ------
    ConfigurationError
        If the rank is not possible, or the scan holds NaN (with ``stabilised`` so many of them, or of negative values,
        that they are no marks of gaps and dead pixels, which are left out of the fit).
    """
    options: dict[str, Any] = {
        "centred": centred,
        "stabilised": stabilised,
        "passes": passes,
        "oversampling": oversampling,
        "seed": seed,
    }
    engine = engine or ThreadEngine(workers or default_workers())
    with _patterns(source, **how) as scan:
        return _basis(scan, rank, block_bytes, behind, engine, progress, options)


def _patterns(source: Any, **how: Any) -> AbstractContextManager[Any]:
    """An array as it is; a scan, or the path of one, open."""
    return opened(source, **how) if isinstance(source, Scan | str | os.PathLike) else nullcontext(source)


def _basis(
    scan: Any,
    rank: int | Literal["auto"],
    block_bytes: int,
    behind: CountsMap | None,
    engine: Engine,
    progress: Progress | None,
    options: dict[str, Any],
) -> PcaBasis:
    # Plain values may be negative; those that are stabilised are counts.
    blocks = PatternBlocks(source=scan, block_bytes=block_bytes, of_counts=options["stabilised"], behind=behind)
    if rank == "auto":
        choice = choose_rank(scan, block_bytes=block_bytes, behind=behind, engine=engine, progress=progress, **options)
        if choice.rank == 0:
            return _fit(blocks, 1, engine, progress, None, **options).truncate(0)
        rank = choice.rank
    _check_request(blocks, rank, options["passes"], options["oversampling"])
    if plan_pca(scan, rank=rank, block_bytes=block_bytes).exact:
        patterns = np.concatenate([blocks.read(i) for i in range(len(blocks))]).reshape(-1, *blocks.detector)
        basis = exact_basis(patterns, rank=rank, centred=options["centred"], stabilised=options["stabilised"])
        if progress is not None:
            progress(len(blocks), len(blocks))
        return basis
    return _fit(blocks, rank, engine, progress, None, **options)


def choose_rank(
    source: Any,
    *,
    largest: int = LARGEST_RANK,
    centred: bool = True,
    stabilised: bool = True,
    passes: int = 2,
    oversampling: int = 16,
    seed: int = 0,
    block_bytes: int = 8 << 20,
    behind: CountsMap | None = None,
    workers: int | None = None,
    engine: Engine | None = None,
    progress: Progress | None = None,
    **how: Unpack[HowToOpen],
) -> RankChoice:
    """The rank that predicts unseen counts best, by count splitting; parameters as in
    :func:`pca_basis`.

    Raises
    ------
    ConfigurationError
        If the scan does not hold counts (whole numbers of at least 0).
    """
    engine = engine or ThreadEngine(workers or default_workers())
    with _patterns(source, **how) as scan:
        blocks = PatternBlocks(source=scan, block_bytes=block_bytes, behind=behind)
        largest = min(largest, blocks.pixels, max(1, blocks.positions // 2))
        basis = _fit(
            blocks, largest, engine, progress, seed,
            centred=centred, stabilised=stabilised, passes=passes, oversampling=oversampling, seed=seed,
        )  # fmt: skip
        candidates = tuple(r for r in CANDIDATES if r <= basis.rank)
        per_block = max(1, blocks.positions // len(blocks))
        wanted = min(len(blocks), max(1, -(-JUDGED // per_block)))
        chosen = sorted({int(i) for i in np.linspace(0, len(blocks) - 1, wanted)})
        task = DevianceTask(blocks=blocks, basis=basis, ranks=candidates, seed=seed)
        deviance = np.sum(list(in_order(engine, task, chosen)), axis=0) / (len(chosen) * per_block * blocks.pixels)
        return RankChoice(rank=candidates[int(np.argmin(deviance))], candidates=candidates, deviance=deviance)


def _check_request(blocks: PatternBlocks, rank: int, passes: int, oversampling: int) -> None:
    of = f"a scan of {blocks.positions} positions and {blocks.pixels} pixels"
    check_rank(rank, min(blocks.positions, blocks.pixels), of)
    if passes < 1 or oversampling < 0:
        raise ConfigurationError(
            f"passes={passes}, oversampling={oversampling}: need at least 1 pass, oversampling of at least 0"
        )


def default_workers() -> int:
    """Blocks in work at once: while one waits for its bytes, every core multiplies another."""
    return available_cores() + 1


def _ahead(engine: Engine, total: PassSums) -> int:
    """How many blocks may be begun before the first of them is done."""
    if isinstance(engine, ThreadEngine):
        return AHEAD * engine.workers
    return max(64, WAITING_BYTES // (total.product.nbytes // 2))


def _shared_cores(engine: Engine, tasks: int) -> AbstractContextManager[object]:
    """Give each thread that multiplies its share of the cores.

    BLAS by itself runs every product on all cores: products of two threads then wait for each other, spinning, which
    takes twice the processor time, and on a busy machine each waits for the core that is taken.
    """
    if not isinstance(engine, ThreadEngine):
        return nullcontext()  # Dask's worker processes have one thread for BLAS
    at_once = max(1, min(engine.workers, tasks))
    limits: AbstractContextManager[object] = threadpool_limits(max(1, available_cores() // at_once), user_api="blas")
    return limits


def _fit(
    blocks: PatternBlocks,
    rank: int,
    engine: Engine,
    progress: Progress | None,
    thinning: int | None,
    *,
    centred: bool,
    stabilised: bool,
    passes: int,
    oversampling: int,
    seed: int,
) -> PcaBasis:
    _check_request(blocks, rank, passes, oversampling)
    columns = min(rank + oversampling, blocks.pixels, blocks.positions)
    sketch = first_sketch(blocks.pixels, columns, seed)
    shift = None
    if centred:
        first = blocks.read(0) if thinning is None else blocks.thinned(0, thinning)[0]
        # Near the mean is near enough: it keeps float32 accurate, and is taken out exactly afterwards.
        shift = as_features(first, stabilised).mean(0)
    total = PassSums.zero(blocks.pixels, columns)
    with keep_freed_blocks(), _shared_cores(engine, len(blocks)):
        for number in range(passes):
            task = BlockTask(
                blocks=blocks,
                sketch=sketch,
                shift=shift,
                stabilised=stabilised,
                moments=number == 0,
                thinning=thinning,
            )
            for done, part in enumerate(in_order(engine, task, range(len(blocks)), _ahead(engine, total)), 1):
                total.add(part)
                part.give_back()
                if progress is not None:
                    progress(number * len(blocks) + done, passes * len(blocks))
            forget_products()
            if number < passes - 1:
                sketch = next_sketch(symmetric_product(total, sketch, centred))
                # Mean and energy are those of the first pass; only the product is of the new sketch.
                total.product[:] = 0
        components, energies = nystrom(symmetric_product(total, sketch, centred), sketch)
    mean = np.asarray(total.features) / total.positions
    energy = total.energy - (total.positions * float(mean @ mean) if centred else 0.0)
    return assemble(
        components=components,
        energies=energies,
        total=max(energy, 0.0),
        mean=(mean + (shift if shift is not None else 0)) if centred else np.zeros(blocks.pixels),
        sum_counts=np.asarray(total.counts),
        positions=blocks.positions,
        rank=rank,
        detector=blocks.detector,
        centred=centred,
        stabilised=stabilised,
    )
