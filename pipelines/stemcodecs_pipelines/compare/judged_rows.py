"""What the loss of each row costs in a ptychographic reconstruction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from stemcodecs_pipelines.compare.comparing import Outcome
from stemcodecs_pipelines.compare.report import Loss, Row

if TYPE_CHECKING:
    from stemcodecs_pipelines.ptychography.judge import Verdict
    from stemcodecs_pipelines.ptychography.problem import PtychographyProblem

__all__ = ["JudgedRows", "judge_rows"]

Array = np.ndarray[Any, Any]

ITERATIONS = 10
"""Of every reconstruction: all are equal, and none has to be finished to be compared."""


@dataclass(frozen=True, kw_only=True)
class JudgedRows:
    """Reconstructions from what each row decodes to.

    Attributes
    ----------
    resolution, phase_mse : mapping
        By the name of a row, see `Loss`.
    reconstructions : mapping
        Phases in rad; ``source`` is that of the source itself.
    frc : mapping
        Frequencies, correlation, threshold.
    unit : str
        See `stemcodecs_pipelines.compare.report.Report.resolution_unit`.
    remark : str
        Why there are none; may be empty.
    """

    resolution: Mapping[str, float] = field(default_factory=dict)
    phase_mse: Mapping[str, float] = field(default_factory=dict)
    reconstructions: Mapping[str, Array] = field(default_factory=dict)
    frc: Mapping[str, tuple[Array, Array, Array]] = field(default_factory=dict)
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
    patterns = [problem.patterns, *(np.load(place, mmap_mode="r") for _, place in kept if place is not None)]
    found: dict[str, Verdict] = {}
    progress(0, len(names), "")
    for name, verdict in zip(names, verdicts(problem, patterns, iterations=ITERATIONS), strict=True):
        found[name] = verdict
        progress(len(found), len(names), f"reconstruction of {name}")
    return JudgedRows(
        unit="m" if problem.pixel_size else "pixel",
        resolution={name: verdict.resolution for name, verdict in found.items()},
        phase_mse={name: verdict.phase_mse for name, verdict in found.items()},
        reconstructions={name: np.angle(verdict.image) for name, verdict in found.items()},
        frc={
            # The first ring is the mean, which was taken out.
            name: (verdict.frc.frequencies[1:], verdict.frc.correlation[1:], verdict.frc.half_bit[1:])
            for name, verdict in found.items()
        },
    )
