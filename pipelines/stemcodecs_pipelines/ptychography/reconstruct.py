"""The public `reconstruct`: a problem, a method and its settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.ptychography.amplitudes import DEFAULT_MEMORY, Amplitudes
from stemcodecs_pipelines.ptychography.epie import EpieSettings, epie
from stemcodecs_pipelines.ptychography.gradient import GradientSettings, gradient_descent, working_bytes
from stemcodecs_pipelines.ptychography.problem import PtychographyProblem
from stemcodecs_pipelines.ptychography.reconstruction import Reconstruction

__all__ = ["Method", "describe_memory", "needed_bytes", "reconstruct"]

Method = Literal["gradient", "epie"]
_SETTINGS: dict[str, type[GradientSettings] | type[EpieSettings]] = {"gradient": GradientSettings, "epie": EpieSettings}


def reconstruct(
    problem: PtychographyProblem,
    method: Method = "gradient",
    *,
    memory: int = DEFAULT_MEMORY,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Callable[[int, int, float], None] = lambda done, total, error: None,
    **settings: Any,
) -> Reconstruction:
    """Reconstruct object and probe.

    Parameters
    ----------
    problem : PtychographyProblem
        Patterns, positions and a first probe.
    method : {"gradient", "epie"}
        Gradient descent by automatic differentiation (needs PyTorch), or ePIE.
    memory : int
        Bytes of patterns to hold at once; a scan that is larger is read again in every iteration.
    checkpoint, resume
        See `gradient_descent`.
    progress : callable
        Called after each iteration with the iterations done, all of them, and the error.
    **settings
        Fields of `GradientSettings` or `EpieSettings`.

    Raises
    ------
    ConfigurationError
        An unknown method or setting, values that cannot be, or PyTorch is missing.
    """
    chosen = settings_of(method, settings)
    amplitudes = Amplitudes(problem, memory)
    if isinstance(chosen, GradientSettings):
        return gradient_descent(
            problem, chosen, amplitudes=amplitudes, checkpoint=checkpoint, resume=resume, progress=progress
        )
    if checkpoint is not None or resume:
        raise ConfigurationError("ePIE keeps no checkpoint; leave it out, or choose the gradient method")
    return epie(problem, chosen, amplitudes=amplitudes, progress=progress)


def settings_of(method: str, settings: dict[str, Any]) -> GradientSettings | EpieSettings:
    """Settings of a method, checked."""
    if method not in _SETTINGS:
        raise ConfigurationError(f"no method {method!r}; choose {' or '.join(_SETTINGS)}")
    known = {field.name for field in fields(_SETTINGS[method])}
    if unknown := sorted(set(settings) - known):
        raise ConfigurationError(f"{method} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    return _SETTINGS[method](**settings)


def needed_bytes(
    problem: PtychographyProblem, method: str = "gradient", memory: int = DEFAULT_MEMORY, **settings: Any
) -> tuple[int, int]:
    """Bytes of patterns that will be held, and of unknowns and work, before the run."""
    chosen = settings_of(method, settings)
    if isinstance(chosen, GradientSettings):
        working = working_bytes(problem, chosen)
    else:
        working = 8 * (2 * problem.object_shape[0] * problem.object_shape[1] + 12 * chosen.modes * problem.side**2)
    return Amplitudes(problem, memory).held_bytes, working


def describe_memory(problem: PtychographyProblem, method: str, memory: int, **settings: Any) -> str:
    """What will be held, in one line: said before the run."""
    amplitudes = Amplitudes(problem, memory)
    held, working = needed_bytes(problem, method, memory, **settings)
    how = "held in memory" if amplitudes.in_memory else "read anew in every iteration"
    return (
        f"{problem.count} patterns of {problem.side}×{problem.side}, {how}: {held / 1e6:.0f} MB; object of "
        f"{problem.object_shape[0]}×{problem.object_shape[1]}, probe and work: {working / 1e6:.0f} MB; "
        f"{(held + working) / 1e6:.0f} MB in all"
    )
