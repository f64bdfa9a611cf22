"""A specimen larger than memory: blocks of rows as tasks, threads or a cluster, one engine with the rest."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import filesize

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.run.engine import Engine, ThreadEngine
from stemcodecs_pipelines.run.plan import available_cores
from stemcodecs_pipelines.run.torch_device import import_torch
from stemcodecs_pipelines.tomography.forward import KEPT_BYTES
from stemcodecs_pipelines.tomography.problem import TomographyProblem
from stemcodecs_pipelines.tomography.reconstruct import reconstruct_rows
from stemcodecs_pipelines.tomography.settings import DescentSettings
from stemcodecs_pipelines.tomography.survey import Survey, survey
from stemcodecs_pipelines.tomography.volume import finish, growing_volume, write_rows

__all__ = ["RowPlan", "TomographyResult", "element_maps", "plan_rows"]

Array = np.ndarray[Any, Any]

BASE_BYTES = 500_000_000
"""What a process needs before it reads any data: Python, NumPy, Zarr and torch."""
LARGEST_BLOCK = 512 << 20
"""Memory of the rows that one task takes at once."""
ENTRY_BYTES = 24
"""What an interpolation weight takes in the tables of a task: weight and source, forwards and backwards."""


@dataclass(frozen=True, kw_only=True)
class RowPlan:
    """How rows are shared among tasks.

    Parameters
    ----------
    rows, block : int
        Rows of the volume, and of a task.
    workers : int
        Tasks at once.
    row_bytes : int
        Memory that a row takes while it is reconstructed.
    table_bytes : int
        Memory of the interpolation tables of a task.
    """

    rows: int
    block: int
    workers: int
    row_bytes: int
    table_bytes: int

    @property
    def blocks(self) -> int:
        """Number of tasks."""
        return -(-self.rows // self.block)

    def region(self, index: int) -> slice:
        """Rows of a task."""
        return slice(index * self.block, min((index + 1) * self.block, self.rows))

    @property
    def memory_bound(self) -> int:
        """Most memory that a process takes, where its threads run all workers, in bytes."""
        return BASE_BYTES + self.workers * (self.block * self.row_bytes + self.table_bytes)

    def describe(self) -> str:
        """One line for the user."""
        return (
            f"{self.rows} rows in {self.blocks} block{'s' * (self.blocks != 1)} of {self.block}, "
            f"{self.workers} worker{'s' * (self.workers != 1)}, memory at most {filesize.decimal(self.memory_bound)}"
        )


def plan_rows(problem: TomographyProblem, workers: int | None = None) -> RowPlan:
    """Cut the rows into blocks that fit in memory and share evenly.

    Raises
    ------
    ConfigurationError
        `workers` is not positive.
    """
    if workers is not None and workers < 1:
        raise ConfigurationError(f"{workers} workers cannot reconstruct anything; give at least one")
    angles, rows, pixels = problem.shape
    elements, lines = len(problem.sections.elements), len(problem.sections.lines)
    points = problem.geometry.detector_points
    # Values, gradient and moments of Adam, and copies turned into the laboratory; depths and shares of every line, and
    # those along and back from the rays of every point, kept for the gradient.
    floats = pixels**2 * (12 * elements + lines * (10 + 9 * points))
    row_bytes = 4 * (floats + 3 * angles * pixels * (lines + 1))
    turn = 4 * ENTRY_BYTES * pixels**2
    # One rotation is made while the others are kept, from index arrays of twice its size.
    tables = min(angles * turn, KEPT_BYTES) + 3 * turn + 6 * points * ENTRY_BYTES * pixels**2
    wanted = min(workers or available_cores(), rows)
    block = min(-(-rows // wanted), max(1, LARGEST_BLOCK // row_bytes))
    return RowPlan(
        rows=rows,
        block=block,
        workers=min(wanted, -(-rows // block)),
        row_bytes=row_bytes,
        table_bytes=tables,
    )


@dataclass(frozen=True, kw_only=True)
class TomographyResult:
    """What a reconstruction came to.

    Parameters
    ----------
    path : str
        Store with the densities.
    masses : dict
        Total mass of each element in g.
    deviance : ndarray, (epoch,)
        Mean Poisson deviance of all counts in each epoch; 1 is the noise of many counts.
    epochs : ndarray of int, (row,)
        Epochs after which each row was left as it is.
    seconds : float
        Time it took.
    """

    path: str
    masses: dict[str, float]
    deviance: Array
    epochs: Array
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What every task gets."""

    problem: TomographyProblem
    settings: DescentSettings
    scales: Survey
    plan: RowPlan
    place: Path
    told: Callable[[int], None] | None


@dataclass(frozen=True, kw_only=True)
class _Done:
    """What a task gives back."""

    index: int
    mass: Array
    deviance: Array
    epochs: Array


def reconstruct_block(job: _Job, index: int) -> _Done:
    """The task: reconstruct some rows and write their chunks."""
    rows = job.plan.region(index)
    found = reconstruct_rows(job.problem, rows, job.settings, job.scales, progress=job.told)
    write_rows(job.place, job.problem.sections.elements, rows, found.density)
    mass = found.density.sum((1, 2, 3), dtype=np.float64) * job.problem.geometry.pixel_size**3
    return _Done(index=index, mass=mass, deviance=found.deviance * (rows.stop - rows.start), epochs=found.epochs)


def element_maps(
    problem: TomographyProblem,
    out: str | os.PathLike[str],
    settings: DescentSettings | None = None,
    *,
    workers: int | None = None,
    engine: Engine | None = None,
    overwrite: bool = False,
    start: Callable[[RowPlan], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> TomographyResult:
    """Reconstruct densities of all elements into a Zarr store, block of rows by block of rows.

    Rows do not depend on each other, so the store is the same whatever the blocks, but for rounding in the last digits.

    Parameters
    ----------
    problem : TomographyProblem
        The measurement. On a cluster its maps are best what `stemcodecs.readers.open_scan` opens, which every worker
        reads by itself.
    out : path
        Local folder; one variable (y, x, z) for each element in g/cm³, coordinates in µm, and ``deviance`` (epoch).
        It appears when it is complete.
    settings : DescentSettings, optional
        How.
    workers : int, optional
        Blocks at once; default: one per core.
    engine : Engine, optional
        Where tasks run; default: threads.
    overwrite : bool
        Replace densities that are there.
    start, progress : callable, optional
        Called with the plan, and with epochs of blocks that are done; in all there are blocks × epochs.

    Raises
    ------
    DestinationError
        The place is taken or cannot be written.
    SourceError, ConfigurationError
        A value of the maps cannot be, a file changed meanwhile, or torch is missing.
    """
    import_torch("tomography")
    began = time.monotonic()
    settings = settings or DescentSettings()
    plan = plan_rows(problem, workers)
    runs = engine or ThreadEngine(plan.workers)
    in_process = isinstance(runs, ThreadEngine)
    told = progress if in_process else None  # a cluster's workers cannot call us
    mass, deviance = np.zeros(len(problem.sections.elements)), np.zeros(settings.epochs)
    epochs = np.zeros(plan.rows, np.int64)
    with growing_volume(out, problem, plan.block, overwrite=overwrite) as place:
        if start is not None:
            start(plan)
        scales = survey(problem, plan.block)
        job = _Job(problem=problem, settings=settings, scales=scales, plan=plan, place=place.absolute(), told=told)
        with _shared_cores(plan.workers) if in_process else contextlib.nullcontext():
            for done in runs.map(reconstruct_block, job, range(plan.blocks)):
                rows = plan.region(done.index)
                mass += done.mass
                deviance += done.deviance / plan.rows
                epochs[rows] = done.epochs
                if progress is not None:
                    progress(settings.epochs - (int(done.epochs.max()) if told else 0))
        problem.check_unchanged()
        masses = dict(zip(problem.sections.elements, mass.tolist(), strict=True))
        finish(place, {"mass_g": masses, "self_absorption": settings.self_absorption}, deviance, epochs)
    return TomographyResult(
        path=os.fspath(out), masses=masses, deviance=deviance, epochs=epochs, seconds=time.monotonic() - began
    )


@contextlib.contextmanager
def _shared_cores(workers: int) -> Iterator[None]:
    """Let each of our threads use its share of torch's, rather than all of them at once."""
    torch = import_torch()
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // workers))
    try:
        yield
    finally:
        torch.set_num_threads(before)
