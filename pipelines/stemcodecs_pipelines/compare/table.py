"""A report on the terminal: what to do, what was found, and a table that fits its width."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich import box, filesize
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stemcodecs_pipelines.compare.report import Group, Loss, Report, Row, State

__all__ = ["print_report"]

Cell = Callable[[Row], str]


def print_report(report: Report, console: Console) -> None:
    """Print a report.

    Columns that do not fit the width of the console are left out, those first that say least; the page and the JSON
    have all of them.

    Parameters
    ----------
    report : Report
        What was found.
    console : Console
        Where to.
    """
    for title, lines in (("", report.recommendation.advice), ("found in the data", report.recommendation.findings)):
        if lines and title:
            console.print(Text(title, style="bold"))
        for line in lines:
            console.print(Text(f"• {line}"), soft_wrap=True)
    done = [row for row in report.rows if row.state is State.DONE]
    for lossless in (True, False):
        groups = [group for group in Group if group.lossless is lossless]
        rows = [row for row in done if row.group in groups]
        if rows:
            console.print(_fitting(report, groups, rows, _columns(report, lossless), console))
    for left_out in _not_done(report.rows):
        console.print(left_out, soft_wrap=True)
    console.print(Text(_read(report)), soft_wrap=True)


def _columns(report: Report, lossless: bool) -> list[tuple[str, Cell, int]]:
    """Title, cell and rank of the columns: the higher the rank, the sooner one is left out."""
    raw_bits = 8 * report.sample.raw_bytes / _values(report)
    columns: list[tuple[str, Cell, int]] = [
        ("bytes", lambda row: "" if row.stored_bytes is None else filesize.decimal(row.stored_bytes), 4),
        ("ratio", lambda row: "" if not row.bits_per_value else f"{raw_bits / row.bits_per_value:.2f}", 1),
        ("bits/value", lambda row: _bits(row), 0),
        # What loss costs says more than how fast it is lost.
        ("enc MB/s", lambda row: _rate(row.encode_rate), 2 if lossless else 4),
        ("dec MB/s", lambda row: _rate(row.decode_rate), 3 if lossless else 5),
    ]
    if lossless:
        return [*columns, ("layout", lambda row: "" if row.group.ours else row.note, 5)]
    measured: list[tuple[str, Callable[[Loss], float | None], str, int]] = [
        ("max σ", lambda loss: loss.largest_error, ".2f", 2),
        ("dose", lambda loss: loss.dose_equivalent, ".1%", 3),
        ("resolution", lambda loss: loss.resolution, "", 3),
        ("phase MSE", lambda loss: loss.phase_mse, ".1e", 3),
        ("added σ", lambda loss: loss.added_noise, ".2f", 5),
        ("counts", lambda loss: loss.total_bias, "+.2%", 6),
        ("SSIM images", lambda loss: loss.ssim_images, ".4f", 7),
        ("SSIM mean", lambda loss: loss.ssim_mean_pattern, ".4f", 8),
        ("MSE √N", lambda loss: loss.diffraction_mse, ".2e", 8),
    ]
    for title, value, form, rank in measured:
        columns.append((title, _cell_of(value, form or report.resolution_unit), rank))
    return columns


def _cell_of(value: Callable[[Loss], float | None], form: str) -> Cell:
    """A number in a format, or a length in a unit."""

    def cell(row: Row) -> str:
        found = None if row.loss is None else value(row.loss)
        if found is None:
            return ""
        if form not in ("m", "pixel"):
            return format(found, form)
        if math.isinf(found):
            return "none"
        return f"{found * 1e9:.4g} nm" if form == "m" else f"{found:.4g} px"

    return cell


def _fitting(
    report: Report, groups: Sequence[Group], rows: Sequence[Row], columns: list[tuple[str, Cell, int]], console: Console
) -> Table:
    """The table with as many columns as fit, and none without a number."""
    columns = [column for column in columns if any(column[1](row) for row in rows)]
    while True:
        table = _table(groups, rows, columns)
        wide = table.__rich_measure__(console, console.options.update(max_width=10_000)).maximum
        if wide <= console.width or len(columns) <= 2:
            return table
        columns.remove(max(columns, key=lambda column: column[2]))


def _table(groups: Sequence[Group], rows: Sequence[Row], columns: list[tuple[str, Cell, int]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("method", overflow="fold")
    for title, _, _ in columns:
        table.add_column(title, justify="left" if title == "layout" else "right", no_wrap=True)
    for group in groups:
        # By size, the smallest first.
        of_group = sorted((row for row in rows if row.group is group), key=lambda row: row.bits_per_value or math.inf)
        if of_group:
            table.add_row(Text(group.value, style="bold"))
        for row in of_group:
            table.add_row(Text(row.name), *(Text(cell(row)) for _, cell, _ in columns))
    return table


def _bits(row: Row) -> str:
    if row.bits_per_value is None:
        return ""
    error = f" ±{row.bits_error:.3f}" if row.bits_error else ""
    return f"{row.bits_per_value:.3f}{error}"


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"


def _values(report: Report) -> int:
    pattern = math.prod(report.shape[-2:])
    return report.sample.positions * pattern


def _not_done(rows: Sequence[Row]) -> Iterator[Text]:
    for row in rows:
        if row.state is not State.DONE:
            yield Text(f"{row.name}: {row.state.value}{f' ({row.note})' if row.note else ''}")


def _read(report: Report) -> str:
    sample = report.sample
    shape: Any = "×".join(map(str, report.shape))
    what = f"{shape} {report.dtype}, {filesize.decimal(sample.of_bytes)}"
    if not sample.whole:
        what += (
            f"; {filesize.decimal(sample.raw_bytes)} of it were read in {sample.blocks} chunks, ± is the standard "
            "error of that"
        )
    return f"{what}; speeds are those of one core; {report.seconds:.0f} s"
