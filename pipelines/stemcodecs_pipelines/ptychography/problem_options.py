"""The options that say where and how the patterns of a scan were taken, for every command that reconstructs."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Annotated, Any

import typer

from stemcodecs.errors import ConfigurationError

__all__ = ["any_given", "with_problem_options"]

OPTICS, PLACES = "Optics", "Positions and orientation"


def _optics(help: str) -> Any:
    return typer.Option(help=help, rich_help_panel=OPTICS)


def _place(help: str, *names: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=PLACES, metavar=metavar)


def with_problem_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes ``known`` these options, in its place in the help.

    The command gets a function that makes a `Known` of them, so that a command that reconstructs only where positions
    are given reads them only then.
    """
    options = inspect.signature(_known, eval_str=True).parameters

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name) for name in options}
        command(*args, known=functools.partial(_known, **given), **kwargs)

    signature = inspect.signature(command, eval_str=True)
    parameters = list(signature.parameters.values())
    place = list(signature.parameters).index("known")
    parameters[place : place + 1] = [
        option.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for option in options.values()
    ]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def any_given(known: Callable[[], Any]) -> bool:
    """Whether one of the options was given: whoever gives one wants a reconstruction."""
    assert isinstance(known, functools.partial)
    defaults = inspect.signature(_known).parameters
    return any(value != defaults[name].default for name, value in known.keywords.items())


def _known(
    mask: Annotated[str | None, typer.Option(metavar="FILE", help="Array that is not 0 in measured pixels.")] = None,
    positions: Annotated[
        str | None, _place("Positions (y, x): .npy, .npz, .csv, HDF5; FILE::NAME chooses an array.", metavar="FILE")
    ] = None,
    position_units: Annotated[str, _place("Units of --positions: px, m, um, nm, ….")] = "px",
    scan_step: Annotated[
        str | None, _place("Step of a regular scan in nm, or that of rows and of columns.", metavar="NM[,NM]")
    ] = None,
    scan_rotation: Annotated[float, _place("Scan against detector in degrees, from x towards y.")] = 0.0,
    transpose: Annotated[bool, _place("Swap rows and columns of the patterns.", "--transpose")] = False,
    flip_y: Annotated[bool, _place("Turn the rows of the patterns around.", "--flip-y")] = False,
    flip_x: Annotated[bool, _place("Turn the columns of the patterns around.", "--flip-x")] = False,
    probe: Annotated[str | None, _optics("File with the complex probe.")] = None,
    defocus: Annotated[
        float | None, _optics("Make a probe: distance from the focus down to the specimen in nm.")
    ] = None,
    semi_angle: Annotated[
        float | None, _optics("Convergence semi-angle in mrad; without it the patterns show the aperture.")
    ] = None,
    energy: Annotated[float | None, _optics("Energy in keV.")] = None,
    particle: Annotated[str, _optics("electron or photon.")] = "electron",
    detector_angle: Annotated[float | None, _optics("Angle of a detector pixel in mrad.")] = None,
    distance: Annotated[float | None, _optics("From the specimen to the detector in m.")] = None,
    detector_pixel: Annotated[float | None, _optics("Detector pixel in µm.")] = None,
    pixel_size: Annotated[float | None, _optics("Object pixel in nm, where it is known.")] = None,
) -> Any:
    """A `Known` of what the options say.

    Raises
    ------
    ConfigurationError
        One of them cannot be.
    """
    from stemcodecs_pipelines.ptychography.geometry import Orientation
    from stemcodecs_pipelines.ptychography.read_problem import Known

    for name, value in (
        ("defocus", defocus),
        ("semi-angle", semi_angle),
        ("energy", energy),
        ("detector-angle", detector_angle),
        ("distance", distance),
        ("detector-pixel", detector_pixel),
        ("pixel-size", pixel_size),
        ("scan-rotation", scan_rotation),
    ):
        if value is not None and not math.isfinite(value):
            raise ConfigurationError(f"--{name} {value}: give a number")
    if particle not in ("electron", "photon"):
        raise ConfigurationError(f"--particle {particle}: choose electron or photon")
    return Known(
        energy_ev=_times(energy, 1e3),
        particle=particle,  # type: ignore[arg-type]
        distance=distance,
        detector_pixel=_times(detector_pixel, 1e-6),
        detector_angle=_times(detector_angle, 1e-3),
        pixel_size=_times(pixel_size, 1e-9),
        positions=positions,
        position_units=position_units,
        scan_step=_steps(scan_step),
        scan_rotation=scan_rotation,
        probe=probe,
        defocus=_times(defocus, 1e-9),
        semi_angle=_times(semi_angle, 1e-3),
        mask=mask,
        orientation=Orientation(transpose=transpose, flip_y=flip_y, flip_x=flip_x),
    )


def _times(value: float | None, unit: float) -> float | None:
    return None if value is None else value * unit


def _steps(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        parts = [float(part) * 1e-9 for part in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2) or not all(math.isfinite(p) and p != 0 for p in parts):
        raise ConfigurationError(f"--scan-step {text}: give nm, one number or that of rows and of columns")
    return parts[0], parts[-1]
