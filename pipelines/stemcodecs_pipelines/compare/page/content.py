"""What stands in the page, in plain data and words; the template only puts it in its place."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from stemcodecs_pipelines.compare.page.charts import bars, error_histograms, front_of, rings, speeds
from stemcodecs_pipelines.compare.page.figures import data_pictures, noun, patterns, reconstructions
from stemcodecs_pipelines.compare.page.number_text import count, percent, short, size_unit, visible
from stemcodecs_pipelines.compare.page.ranking import ranking
from stemcodecs_pipelines.compare.page.tables import left_out_table, loss_table, methods_table
from stemcodecs_pipelines.compare.report import Report

__all__ = ["content"]

# Beyond this the bar of the source itself would leave no room for the differences between methods.
_LONGEST_SOURCE = 3.0


def content(report: Report) -> Mapping[str, Any]:
    """Everything that the template names, from a report."""
    ranked = ranking(report)
    pictures, curves = data_pictures(report)
    longest, uncompressed, far = _uncompressed(report, max((r.size for r in ranked), default=1.0))
    return {
        "file": (file := visible(PurePath(report.source).name or report.source)),
        "title": f"Compression of {file}",
        "lede": _lede(report),
        "interrupted": _interrupted(report),
        "advice": [pieces(visible(sentence)) for sentence in report.recommendation.advice],
        "findings": [pieces(visible(sentence)) for sentence in report.recommendation.findings],
        "ranked": ranked,
        "lossless": bars(ranked, longest, lossless=True),
        "lossy": bars(ranked, longest, lossless=False),
        "uncompressed": uncompressed,
        "far": far,
        "speeds": speeds(ranked),
        "fronts": front_of(ranked),
        "methods": methods_table(report, ranked),
        "losses": loss_table(report, ranked),
        "left_out": left_out_table(report),
        "histograms": error_histograms(report, ranked),
        "patterns": patterns(report, ranked),
        "noun": noun(report),
        "pictures": pictures,
        "curves": curves,
        "reconstructions": reconstructions(report, ranked),
        "rings": rings(report, ranked),
        "facts": _facts(report),
        "versions": sorted((visible(name), visible(version)) for name, version in report.versions.items()),
        "command": visible(report.command),
    }


def pieces(sentence: str) -> list[tuple[bool, str]]:
    """A sentence in parts: what stands between backticks, or is a command at its end, is code."""
    parts = re.split(r"`([^`]+)`|(?<=: )(stemcodecs .+)$", sentence)
    parts = [part for i, part in enumerate(parts) if i % 3 == 0 or part is not None]
    return [(bool(i % 2), part) for i, part in enumerate(parts) if part]


def _size(number: float) -> str:
    unit, size = size_unit([number])
    return f"{short(number / size)} {unit}"


def _lede(report: Report) -> str:
    sample = report.sample
    axes = " × ".join(count(length) for length in report.shape)
    dims = ", ".join(visible(dim) for dim in report.dims)
    what = f"{axes} values of {visible(report.dtype)} ({dims}), {_size(sample.of_bytes)}."
    return f"{what} {_read(report)}"


def _read(report: Report) -> str:
    sample = report.sample
    if sample.whole:
        return f"All {count(sample.of_positions)} {noun(report)}s were read."
    return (
        f"A sample was read: {count(sample.positions)} of {count(sample.of_positions)} {noun(report)}s "
        f"({percent(sample.positions / sample.of_positions)}, {_size(sample.raw_bytes)}), in {count(sample.blocks)} "
        f"whole chunks spread over the scan."
    )


def _interrupted(report: Report) -> str:
    if report.finished:
        return ""
    return (
        f"This comparison was interrupted. It shows the {count(len(report.rows))} methods that were done by then; the "
        f"others are missing, and may be better."
    )


def _uncompressed(report: Report, largest: float) -> tuple[float, Mapping[str, str] | None, str]:
    """Bytes of the longest bar, the bar of the source itself, and words for it where it would be too long."""
    size, values = report.sample.of_bytes, math.prod(report.shape)
    bits = short(8 * size / values) if values else ""
    if size <= _LONGEST_SOURCE * largest:
        return max(size, largest), {"bits": bits, "share": f"{100 * size / max(size, largest):.2f}"}, ""
    return largest, None, f"Uncompressed it is {bits} bits a value, {short(size / largest)} times the longest bar."


def _facts(report: Report) -> list[tuple[str, str]]:
    """How it was measured: terms and their values; what is not known is left out."""
    machine = dict(report.machine)
    facts = [
        ("Source", visible(report.source)),
        ("Array", visible(report.dataset)),
        ("Sample", _read(report)),
        ("Date", visible(report.date)),
        ("Duration", _duration(report.seconds)),
        *((visible(key).capitalize(), visible(value)) for key, value in machine.items()),
    ]
    return [(term, value) for term, value in facts if value]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{short(seconds)} s" if seconds else ""
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
