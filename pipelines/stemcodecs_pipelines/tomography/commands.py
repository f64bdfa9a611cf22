"""``stemcodecs tomography``: densities of elements from fluorescence maps over angles."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemcodecs.errors import ConfigurationError, DestinationError, SourceError
from stemcodecs_pipelines.run.command_options import Scheduler, SectionedCommand, Slurm, Wait, Workers
from stemcodecs_pipelines.run.terminal import reported, say

if TYPE_CHECKING:
    import numpy as np

__all__ = ["register"]

MEASUREMENT, DESCENT = "Measurement", "Reconstruction"
PICTURES = (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".tif")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="tomography", cls=SectionedCommand)(reported(_tomography))


def _tomography(
    maps: Annotated[
        list[str],
        typer.Argument(
            metavar="LINE=MAPS...", help="Counts of each line over angles (angle, y, x), e.g. Ca=ca.npy Fe-K=fe.zarr."
        ),
    ],
    energy: Annotated[float, typer.Option(help="Energy of the beam, keV.", rich_help_panel=MEASUREMENT)],
    angles: Annotated[
        str,
        typer.Option(
            metavar="FILE|FROM:TO",
            help="Angles in degrees: .npy or text, or a range cut evenly without its end, e.g. 0:360.",
            rich_help_panel=MEASUREMENT,
        ),
    ],
    pixel_size: Annotated[float, typer.Option(help="Step of the scan, µm.", rich_help_panel=MEASUREMENT)],
    photons: Annotated[float, typer.Option(help="Photons in the beam for each pixel.", rich_help_panel=MEASUREMENT)],
    detector_distance: Annotated[
        float, typer.Option(help="From the axis of rotation to the detector, mm.", rich_help_panel=MEASUREMENT)
    ],
    detector_diameter: Annotated[
        float, typer.Option(help="Of the detector's sensitive area, mm.", rich_help_panel=MEASUREMENT)
    ],
    detector_points: Annotated[
        int, typer.Option(min=1, help="Points of the detector to which rays run.", rich_help_panel=MEASUREMENT)
    ] = 3,
    transmission: Annotated[
        str | None,
        typer.Option(help="Fraction of the beam that goes through, (angle, y, x).", rich_help_panel=MEASUREMENT),
    ] = None,
    elements: Annotated[
        str | None,
        typer.Option(
            help="Elements without a line of their own, e.g. O; seen in transmission only.", rich_help_panel=MEASUREMENT
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over all angles.", rich_help_panel=DESCENT)] = 20,
    tv: Annotated[
        float, typer.Option(help="Weight of total variation, e.g. 0.03 for weak maps.", rich_help_panel=DESCENT)
    ] = 0.0,
    stop_at_noise: Annotated[
        bool,
        typer.Option("--stop-at-noise", help="Leave a row when it fits as noise allows.", rich_help_panel=DESCENT),
    ] = False,
    no_self_absorption: Annotated[
        bool,
        typer.Option("--no-self-absorption", help="As if all fluorescence got out.", rich_help_panel=DESCENT),
    ] = False,
    seed: Annotated[int, typer.Option(help="Chooses the order of the angles.", rich_help_panel=DESCENT)] = 0,
    out: Annotated[str, typer.Option(metavar="ZARR", help="Zarr store to write.")] = "densities.zarr",
    plot: Annotated[str | None, typer.Option(metavar="PNG", help="Picture to draw (needs matplotlib).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier results.")] = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    slurm: Slurm = False,
    wait: Wait = 60.0,
) -> None:
    """Reconstruct densities of elements, with self-absorption, from fluorescence maps over angles."""
    if plot is not None:
        _check_picture(Path(plot), overwrite)
    from stemcodecs_pipelines.run.cluster import cluster_engine
    from stemcodecs_pipelines.run.torch_device import import_torch
    from stemcodecs_pipelines.tomography.cross_sections import cross_sections
    from stemcodecs_pipelines.tomography.element_maps import element_maps
    from stemcodecs_pipelines.tomography.geometry import Geometry
    from stemcodecs_pipelines.tomography.problem import TomographyProblem
    from stemcodecs_pipelines.tomography.settings import DescentSettings
    from stemcodecs_pipelines.tomography.volume import check_free

    import_torch("tomography")
    check_free(out, overwrite=overwrite)
    settings = DescentSettings(
        epochs=epochs,
        total_variation=tv,
        stop_at_noise=stop_at_noise,
        self_absorption=not no_self_absorption,
        seed=seed,
    )
    files = _by_line(maps)
    silent = [symbol.strip() for symbol in elements.split(",")] if elements else []
    symbols = list(dict.fromkeys(line.partition("-")[0] for line in files))
    sections = cross_sections([*symbols, *silent], energy, list(files))
    with contextlib.ExitStack() as stack:
        counts = [stack.enter_context(_open(path)) for path in files.values()]
        passed = None if transmission is None else stack.enter_context(_open(transmission))
        problem = TomographyProblem(
            counts=counts,
            transmission=passed,
            sections=sections,
            geometry=Geometry(
                angles=_angles(angles, counts[0].shape[0]),
                pixel_size=pixel_size * 1e-4,
                photons=photons,
                detector_distance=detector_distance * 0.1,
                detector_diameter=detector_diameter * 0.1,
                detector_points=detector_points,
            ),
        )
        engine, workers = stack.enter_context(
            cluster_engine(scheduler=scheduler, slurm=slurm, workers=workers, wait=60 * wait, report=say)
        )
        bar = stack.enter_context(_epoch_bar(epochs))
        result = element_maps(
            problem,
            out,
            settings,
            workers=workers,
            engine=engine,
            overwrite=overwrite,
            start=bar.start,
            progress=bar.advance,
        )
    if plot is not None:
        from stemcodecs_pipelines.tomography.plot import draw_densities
        from stemcodecs_pipelines.tomography.volume import open_volume

        draw_densities(open_volume(out), plot)
    masses = ", ".join(f"{symbol} {mass:.4g} g" for symbol, mass in result.masses.items())
    typer.echo(f"{out}: {masses}; deviance {result.deviance[-1]:.3g} per count after {result.epochs.max()} epochs")


def _by_line(maps: list[str]) -> dict[str, str]:
    files: dict[str, str] = {}
    for text in maps:
        line, equals, path = text.partition("=")
        if not (line and equals and path):
            raise ConfigurationError(f"{text}: name the line that it holds, e.g. Ca={text.lstrip('=') or 'ca.npy'}")
        if line in files:
            raise ConfigurationError(f"line {line} is named twice; give each its own maps")
        files[line] = path
    return files


def _open(path: str) -> Any:
    from stemcodecs.readers import open_scan

    return open_scan(path)


def _angles(text: str, count: int) -> np.ndarray[Any, Any]:
    """Angles in radian."""
    import numpy as np

    if not Path(text).exists() and ":" in text:
        first, _, last = text.partition(":")
        try:
            return np.deg2rad(np.linspace(float(first), float(last), count, endpoint=False))
        except ValueError:
            raise ConfigurationError(f"--angles {text}: give a range in degrees, e.g. 0:360, or a file") from None
    try:
        values = np.load(text) if text.endswith(".npy") else np.loadtxt(text, delimiter=",", ndmin=1)
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(
            f"--angles {text}: no list of angles ({type(error).__name__}); give .npy, text, or 0:360"
        ) from (error)
    return np.deg2rad(np.asarray(values, np.float64).reshape(-1))


def _check_picture(plot: Path, overwrite: bool) -> None:
    if plot.suffix.lower() not in PICTURES:
        raise DestinationError(f"{plot} must be a picture: {', '.join(PICTURES)}")
    if plot.exists() and not overwrite:
        raise DestinationError(f"{plot} exists already; give --overwrite or another --plot")
    if not plot.absolute().parent.is_dir():
        raise DestinationError(f"the folder {plot.parent} does not exist; create it first")
    import importlib.util

    # Found out now, not after the reconstruction.
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigurationError("drawing needs matplotlib; install it with: pip install 'stemcodecs[plot]'")


class _Epochs:
    """The plan as a line, then a bar over the epochs of all blocks."""

    def __init__(self, epochs: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.epochs = epochs
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = TextColumn("tomography"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self.progress = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task = self.progress.add_task("")

    def start(self, plan: Any) -> None:
        self.console.print(plan.describe(), markup=False)
        self.progress.update(self.task, total=plan.blocks * self.epochs)
        self.progress.start()

    def advance(self, epochs: int) -> None:
        self.progress.advance(self.task, epochs)


@contextlib.contextmanager
def _epoch_bar(epochs: int) -> Any:
    bar = _Epochs(epochs)
    try:
        yield bar
    finally:
        bar.progress.stop()
