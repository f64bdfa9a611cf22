"""Methods in the order of their sizes, each with the number that it has everywhere in the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stemcodecs_pipelines.compare.page.number_text import column
from stemcodecs_pipelines.compare.report import Report, Row, State

__all__ = ["Ranked", "column_of", "left_out", "ranking"]


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A method that did what it promises.

    Attributes
    ----------
    number : int
        1 is the smallest lossless one; lossy ones follow after all of these.
    row : Row
    ratio : float
        Bytes of the source over bytes stored.
    size : float
        Bytes of the whole source when stored so; an estimate when a sample was read.
    """

    number: int
    row: Row
    ratio: float
    size: float


def ranking(report: Report) -> list[Ranked]:
    """Every method whose size is known and that kept its word: lossless ones by size, then lossy ones by size."""
    done = [row for row in report.rows if _counts(row)]
    done.sort(key=lambda row: (not row.group.lossless, row.stored_bytes or 0, not row.group.ours, row.name))
    whole = report.sample.of_bytes / max(report.sample.raw_bytes, 1)
    return [
        Ranked(
            number=i,
            row=row,
            ratio=report.sample.raw_bytes / (row.stored_bytes or 1),
            size=(row.stored_bytes or 0) * whole,
        )
        for i, row in enumerate(done, 1)
    ]


def left_out(report: Report) -> Sequence[Row]:
    """The methods that are in no ranking, in the order of the report."""
    return [row for row in report.rows if not _counts(row)]


def column_of(ranked: Sequence[Ranked], values: Sequence[float | None], digits: int = 3) -> list[str]:
    """Numbers of a column, one a method; lossless and lossy ones apart, which may be of very different size."""
    texts: dict[int, str] = {}
    for lossless in (True, False):
        places = [i for i, r in enumerate(ranked) if r.row.group.lossless == lossless]
        texts.update(zip(places, column([values[i] for i in places], digits), strict=True))
    return [texts[i] for i in range(len(ranked))]


def _counts(row: Row) -> bool:
    return row.state is State.DONE and bool(row.stored_bytes)
