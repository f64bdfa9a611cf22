"""The numbers of a report as tables: what each method stores, what lossy ones cost, and what is in neither."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stemcodecs_pipelines.compare.page.number_text import NOTHING, column, count, size_unit, visible
from stemcodecs_pipelines.compare.page.ranking import Ranked, column_of, left_out
from stemcodecs_pipelines.compare.report import Group, Loss, Report, State

__all__ = ["Column", "MethodLine", "Table", "left_out_table", "length_unit", "loss_table", "methods_table"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """Head of a column, and its cells from top to bottom."""

    head: str
    cells: Sequence[str]
    numbers: bool = True


@dataclass(frozen=True, kw_only=True)
class MethodLine:
    """One line: the name of the method, whose it is, and the other cells."""

    number: int | None
    name: str
    ours: bool
    cells: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of methods in groups.

    Attributes
    ----------
    name : str
        Unique in the page.
    caption : str
    numbered : bool
        Whether its methods have numbers.
    heads : sequence of Column
    groups : sequence of (str, sequence of MethodLine)
        A heading, which may be empty, and its lines.
    """

    name: str
    caption: str
    numbered: bool = True
    heads: Sequence[Column]
    groups: Sequence[tuple[str, Sequence[MethodLine]]]


def methods_table(report: Report, ranked: Sequence[Ranked]) -> Table:
    """Sizes, speeds and guarantees of all methods that kept their word."""
    rows = [r.row for r in ranked]
    unit, size = size_unit([r.size for r in ranked])
    sampled = any(row.bits_error for row in rows)
    bits = column_of(ranked, [row.bits_per_value for row in rows], 4 if sampled else 3)
    if sampled:
        errors = column_of(ranked, [row.bits_error for row in rows], 2)
        bits = [f"{b} ± {e}" if b != NOTHING else b for b, e in zip(bits, errors, strict=True)]
    columns = [
        Column(head=f"Size, {unit}", cells=column([r.size / size for r in ranked])),
        Column(head="Ratio", cells=column_of(ranked, [r.ratio for r in ranked])),
        Column(head="Bits a value", cells=bits),
        Column(head="Encode, MB/s", cells=column_of(ranked, [row.encode_rate for row in rows], 2)),
        Column(head="Decode, MB/s", cells=column_of(ranked, [row.decode_rate for row in rows], 2)),
        Column(head="Guarantee", cells=[visible(row.guarantee) or NOTHING for row in rows], numbers=False),
    ]
    kept = [c for c in columns if any(cell != NOTHING for cell in c.cells)]
    estimated = "" if report.sample.whole else " Sizes are those of the whole source, estimated from the sample;"
    estimated += "" if report.sample.whole else " ± is the standard error of the sample."
    return Table(
        name="methods",
        caption=f"Every method, by size. Speeds are megabytes of the source a second on one core.{estimated}",
        heads=kept,
        groups=_grouped(ranked, kept),
    )


_PERCENT = 100.0

_RESOLUTION = "Resolution"

_LOSSES: tuple[tuple[str, Callable[[Loss], float | None], bool], ...] = (
    ("Largest error, σ", lambda loss: loss.largest_error, False),
    ("Bias of total, %", lambda loss: _times(loss.total_bias, _PERCENT), True),
    ("Added noise, σ", lambda loss: loss.added_noise, False),
    ("Dose equivalent, %", lambda loss: _times(loss.dose_equivalent, _PERCENT), False),
    ("SSIM, mean pattern", lambda loss: loss.ssim_mean_pattern, False),
    ("SSIM, images", lambda loss: loss.ssim_images, False),
    ("Diffraction MSE", lambda loss: loss.diffraction_mse, False),
    (_RESOLUTION, lambda loss: loss.resolution, False),
    ("Phase MSE, mrad²", lambda loss: _times(loss.phase_mse, 1e6), False),
)
"""Columns of the table of losses: head, value, and whether its sign is written."""

_MORE_DIGITS = {"SSIM, mean pattern": 5, "SSIM, images": 5, "Dose equivalent, %": 4}
"""Columns whose values crowd below 1 or 100 %: they need more decimals to differ."""

_ORDER = (Group.OURS_LOSSLESS, Group.PEERS_LOSSLESS, Group.OURS_LOSSY, Group.PEERS_LOSSY)
"""What keeps every value comes before what does not, as in the numbers of the ranking."""


def loss_table(report: Report, ranked: Sequence[Ranked]) -> Table | None:
    """What each lossy method does to the counts; None where nothing was measured.

    Columns in which nothing was measured are left out.
    """
    lossy = [r for r in ranked if r.row.loss is not None]
    columns = []
    for head, value, sign in _LOSSES:
        values = [value(loss) for r in lossy if (loss := r.row.loss) is not None]
        if any(v is not None for v in values):
            if head == _RESOLUTION:
                unit, size = length_unit(report)
                head, values = f"{head}, {unit}", [_times(v, 1 / size) for v in values]
            cells = column(values, _MORE_DIGITS.get(head, 3), sign=sign)
            if head.startswith("SSIM"):
                cells = [_below_one(value, cell) for value, cell in zip(values, cells, strict=True)]
            columns.append(Column(head=head, cells=cells))
    if not columns:
        return None
    missing = f" {NOTHING}: not measured." if any(NOTHING in c.cells for c in columns) else ""
    return Table(
        name="losses",
        caption=f"What each lossy method does to the counts.{missing}",
        heads=columns,
        groups=_grouped(lossy, columns),
    )


def length_unit(report: Report) -> tuple[str, float]:
    """Unit of lengths in an object, and what one of them is in the unit of the report."""
    return ("nm", 1e-9) if report.resolution_unit == "m" else (visible(report.resolution_unit), 1.0)


def left_out_table(report: Report) -> Table | None:
    """Methods that are in no ranking, with the reason; None where there are none."""
    rows = left_out(report)
    if not rows:
        return None
    stated = ["nothing was measured" if row.state is State.DONE else str(row.state.value) for row in rows]
    columns = [
        Column(head="What became of it", cells=stated, numbers=False),
        Column(head="Why, or what to do", cells=[visible(row.note) or NOTHING for row in rows], numbers=False),
    ]
    lines = [
        MethodLine(number=None, name=visible(row.name), ours=row.group.ours, cells=[c.cells[i] for c in columns])
        for i, row in enumerate(rows)
    ]
    return Table(
        name="left-out",
        caption=f"Methods that are not compared ({count(len(rows))}).",
        numbered=False,
        heads=columns,
        groups=[("", lines)],
    )


def _grouped(ranked: Sequence[Ranked], columns: Sequence[Column]) -> list[tuple[str, list[MethodLine]]]:
    groups: list[tuple[str, list[MethodLine]]] = []
    for group in _ORDER:
        lines = [
            MethodLine(number=r.number, name=visible(r.row.name), ours=group.ours, cells=[c.cells[i] for c in columns])
            for i, r in enumerate(ranked)
            if r.row.group is group
        ]
        if lines:
            groups.append((str(group.value), lines))
    return groups


def _below_one(value: float | None, cell: str) -> str:
    """What is less than 1 is not written as 1."""
    return "> 0.99999" if value is not None and round(value, 5) == 1 and value < 1 else cell


def _times(value: Any, factor: float) -> float | None:
    return None if value is None else float(value) * factor
