"""The state of a descent on disk, so that a killed run goes on where it was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from stemcodecs.errors import ConfigurationError, DestinationError, SourceError
from stemcodecs_pipelines.ptychography.torch_model import TorchModel
from stemcodecs_pipelines.run.torch_device import import_torch

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(
    path: str | os.PathLike[str],
    settings: dict[str, Any],
    model: TorchModel,
    optimizers: list[Any],
    errors: list[float],
) -> None:
    """Write the state beside its place and move it there, so that a kill leaves the old or the new one.

    Raises
    ------
    DestinationError
        It cannot be written.
    """
    torch = import_torch()
    place = Path(path)
    part = place.with_name(f".{place.name}.part")
    state = {
        "settings": settings,
        "errors": errors,
        "unknowns": [model.slices.detach(), model.probe.detach(), model.offsets.detach()],
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    try:
        with open(part, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(place)
    except OSError as error:
        raise DestinationError(f"{path}: the checkpoint cannot be written ({error.strerror or error})") from error


def load_checkpoint(
    path: str | os.PathLike[str] | None, settings: dict[str, Any], model: TorchModel, optimizers: list[Any]
) -> list[float]:
    """Take up the state of a checkpoint; the errors of the iterations that were done.

    Raises
    ------
    ConfigurationError
        There is no checkpoint, or it belongs to other settings or another problem.
    SourceError
        The file is damaged.
    """
    if path is None or not Path(path).is_file():
        raise ConfigurationError(f"there is no checkpoint {path or ''} to resume from; run without --resume")
    torch = import_torch()
    try:
        state = torch.load(path, map_location=model.device, weights_only=True)
        other = [name for name in settings if state["settings"].get(name) != settings[name]]
        errors = [float(error) for error in state["errors"]]
    except Exception as error:  # torch raises its own kinds
        raise SourceError(f"{path}: not a checkpoint, or a damaged one; remove it and run without --resume") from error
    if other:
        raise ConfigurationError(f"{path}: made with another {', '.join(other)}; give what it was made with")
    with torch.no_grad():
        for unknown, kept in zip((model.slices, model.probe, model.offsets), state["unknowns"], strict=True):
            unknown.copy_(kept)
    for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    return errors
