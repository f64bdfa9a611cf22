"""What the loss of each row costs in a ptychographic reconstruction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from stemcodecs_pipelines.compare.comparing import Outcome
from stemcodecs_pipelines.compare.report import Loss, Row

if TYPE_CHECKING:
    from stemcodecs_pipelines.ptychography.problem import PtychographyProblem

__all__ = ["JudgedRows", "judge_rows", "judging_bytes"]

Array = np.ndarray[Any, Any]

ITERATIONS = 10
"""Of every reconstruction: all are equal, and none has to be finished to be compared."""
TORCH_BYTES = 400_000_000
"""PyTorch, loaded."""
ALIGNING_BYTES = 200
"""A pixel of the object: three objects, and what their alignment and their ring correlation hold in complex128."""


@dataclass(frozen=True, kw_only=True)
class JudgedRows:
    """Reconstructions from what each row decodes to.

    Attributes
    ----------
    resolution, phase_mse : dict
        By the name of a row, see `Loss`.
    reconstructions : dict
        Phases in rad; ``source`` is that of the source itself.
    frc : dict
        Frequencies, correlation, threshold.
    unit : str
        See `stemcodecs_pipelines.compare.report.Report.resolution_unit`.
    remark : str
        Why there are none; may be empty.
    """

    resolution: dict[str, float] = field(default_factory=dict)
    phase_mse: dict[str, float] = field(default_factory=dict)
    reconstructions: dict[str, Array] = field(default_factory=dict)
    frc: dict[str, tuple[Array, Array, Array]] = field(default_factory=dict)
    unit: str = "m"
    remark: str = ""

    def with_loss(self, row: Row) -> Row:
        """A row with what its reconstruction lost."""
        if row.name not in self.phase_mse:
            return row
        return replace(
            row,
            loss=replace(row.loss or Loss(), resolution=self.resolution[row.name], phase_mse=self.phase_mse[row.name]),
        )


def judge_rows(
    problem: PtychographyProblem,
    outcomes: Sequence[Outcome],
    progress: Callable[[float, int, str], None],
) -> JudgedRows:
    """Reconstruct from the source and from every row whose decoded patterns were kept, with equal settings.

    Parameters
    ----------
    problem : PtychographyProblem
        Patterns, positions and probe.
    outcomes : sequence of Outcome
        Rows that were done.
    progress : callable
        See `stemcodecs_pipelines.compare.run.compare`.
    """
    if find_spec("torch") is None:
        return JudgedRows(
            remark="Reconstructions were left out, for they need PyTorch: pip install 'stemcodecs[train]' brings it."
        )
    from stemcodecs_pipelines.ptychography.judge import verdicts

    kept = [(outcome.row.name, outcome.patterns) for outcome in outcomes if outcome.patterns is not None]
    names = ["source", *(name for name, _ in kept)]

    def scans() -> Iterator[Any]:
        # One file after the other: what was read of a mapped file is memory as long as it is open.
        yield problem.patterns
        for _, place in kept:
            yield np.load(place, mmap_mode="r")

    found = JudgedRows(unit="m" if problem.pixel_size else "pixel")
    progress(0, len(names), "")
    # What a verdict holds besides is not kept: objects may be large.
    for done, (name, verdict) in enumerate(
        zip(names, verdicts(problem, scans(), iterations=ITERATIONS), strict=True), start=1
    ):
        found.resolution[name] = verdict.resolution
        found.phase_mse[name] = verdict.phase_mse
        found.reconstructions[name] = np.angle(verdict.image).astype(np.float32)
        # The first ring is the mean, which was taken out.
        found.frc[name] = (verdict.frc.frequencies[1:], verdict.frc.correlation[1:], verdict.frc.half_bit[1:])
        progress(done, len(names), f"reconstruction of {name}")
    return found


def judging_bytes(problem: PtychographyProblem, rows: int) -> int:
    """Most memory that so many reconstructions take one after the other, with PyTorch itself."""
    from stemcodecs_pipelines.ptychography.reconstruct import needed_bytes

    pixels = math.prod(problem.object_shape)
    return TORCH_BYTES + sum(needed_bytes(problem)) + ALIGNING_BYTES * pixels + 4 * rows * pixels
