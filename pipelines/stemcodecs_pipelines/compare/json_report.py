"""A report as JSON: every number, and where it comes from; without the pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from stemcodecs.errors import SourceError
from stemcodecs_pipelines.compare.report import Group, Loss, Recommendation, Report, Row, Sample, State

__all__ = ["LAYOUT", "read_json", "write_json"]

LAYOUT = 1
"""Of the document; raised when the meaning of a name in it changes."""


def write_json(report: Report, path: str | Path) -> None:
    """Write a report.

    Numbers that JSON does not know are written as text: ``"inf"`` is the resolution of two images that agree nowhere.

    Parameters
    ----------
    report : Report
        What was found.
    path : path
        File to write.
    """
    content = {
        "layout": LAYOUT,
        **{
            field.name: _plain(getattr(report, field.name))
            for field in fields(report)
            if field.name not in ("rows", "sample", "recommendation", "pictures")
        },
        "sample": asdict(report.sample),
        "recommendation": _plain(asdict(report.recommendation)),
        "rows": [_plain(asdict(row)) for row in report.rows],
    }
    Path(path).write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Report:
    """Read a report that `write_json` wrote; it has no pictures.

    Raises
    ------
    SourceError
        The file cannot be read, or is none.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content.pop("layout") != LAYOUT:
            raise ValueError("it was written by another version")
        return Report(
            **{
                **content,
                "shape": tuple(content["shape"]),
                "dims": tuple(content["dims"]),
                "sample": Sample(**content["sample"]),
                "recommendation": Recommendation(**{k: tuple(v) for k, v in content["recommendation"].items()}),
                "rows": tuple(_row(row) for row in content["rows"]),
            }
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SourceError(
            f"{path} is no report of stemcodecs compare ({' '.join(str(error).split())}); make it again with --json"
        ) from error


def _row(content: dict[str, Any]) -> Row:
    loss = content["loss"]
    return Row(
        **{
            **{name: _number(value) for name, value in content.items()},
            "group": Group(content["group"]),
            "state": State(content["state"]),
            "loss": None if loss is None else Loss(**{name: _number(value) for name, value in loss.items()}),
        }
    )


def _number(value: Any) -> Any:
    return float(value) if value in ("inf", "-inf", "nan") else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
