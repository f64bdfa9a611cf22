"""``stemcodecs reconstruct``: the object behind a scan, by gradient descent or by ePIE."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from stemcodecs.errors import ConfigurationError, DestinationError
from stemcodecs_pipelines.ptychography.problem_options import with_problem_options
from stemcodecs_pipelines.run.command_options import SectionedCommand, open_source, with_source_options
from stemcodecs_pipelines.run.source import HowToOpen
from stemcodecs_pipelines.run.terminal import reported, say

__all__ = ["register"]

METHOD = "Method"
PICTURES = (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".tif")


def _method(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=METHOD)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="reconstruct", cls=SectionedCommand)(
        reported(with_source_options(with_problem_options(_reconstruct)))
    )


def _reconstruct(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Store or scan, as compress takes it; CXI, .ptyd, PtychoShelves HDF5.")
    ],
    how: HowToOpen,
    known: Callable[[], Any],
    out: Annotated[str, typer.Option(metavar="ZARR", help="Zarr store to write.")] = "object.zarr",
    plot: Annotated[str | None, typer.Option(metavar="PNG", help="Picture to draw (needs matplotlib).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")] = False,
    method: Annotated[str, _method("gradient (needs PyTorch) or epie.")] = "gradient",
    iterations: Annotated[int | None, _method("Passes over the scan.")] = None,
    modes: Annotated[int, _method("Probe modes.")] = 1,
    loss: Annotated[str | None, _method("amplitude or poisson.")] = None,
    batch: Annotated[int | None, _method("Patterns a step.")] = None,
    refine_positions: Annotated[bool, _method("Let positions move.", "--refine-positions")] = False,
    slices: Annotated[int, _method("Slices of a thick object.")] = 1,
    thickness: Annotated[float | None, _method("Distance of slices in nm.")] = None,
    total_variation: Annotated[float | None, _method("Weight of the total variation.")] = None,
    seed: Annotated[int, _method("Fixes the order of the patterns.")] = 0,
    device: Annotated[str | None, _method("cpu or cuda; by default CUDA where there is one.")] = None,
    memory: Annotated[float, _method("Patterns held at once in GB.")] = 1.0,
    checkpoint: Annotated[str | None, _method("File that keeps the state of the run.")] = None,
    resume: Annotated[bool, _method("Go on from the checkpoint.", "--resume")] = False,
) -> None:
    """Reconstruct object and probe of a ptychographic scan."""
    if thickness is not None and not math.isfinite(thickness):
        raise ConfigurationError(f"--thickness {thickness}: give a number")
    settings: dict[str, Any] = {"modes": modes, "seed": seed}
    optional = {
        "iterations": iterations,
        "loss": loss,
        "batch": batch,
        "refine_positions": refine_positions or None,
        "slices": slices if slices != 1 else None,
        "slice_thickness": None if thickness is None else thickness * 1e-9,
        "total_variation": total_variation,
        "device": device,
    }
    settings |= {name: value for name, value in optional.items() if value is not None}
    _run(source, how, known(), out, plot, overwrite, method, memory, checkpoint, resume, settings)


def _run(
    source: str,
    how: HowToOpen,
    known: Any,
    out: str,
    plot: str | None,
    overwrite: bool,
    method: str,
    memory: float,
    checkpoint: str | None,
    resume: bool,
    settings: dict[str, Any],
) -> None:
    from stemcodecs_pipelines.ptychography.data_sets import read_data_set
    from stemcodecs_pipelines.ptychography.plot import draw_reconstruction, new_figure
    from stemcodecs_pipelines.ptychography.progress import error_bar
    from stemcodecs_pipelines.ptychography.read_problem import read_problem
    from stemcodecs_pipelines.ptychography.reconstruct import describe_memory, reconstruct, settings_of
    from stemcodecs_pipelines.ptychography.save import check_destination, save_reconstruction

    if not (math.isfinite(memory) and memory > 0):
        raise ConfigurationError(f"--memory {memory}: give a positive number of GB")
    settings_of(method, settings)
    if method == "gradient":
        from stemcodecs_pipelines.run.torch_device import choose_device, import_torch

        import_torch("reconstruction by gradients", "choose --method epie")
        choose_device(settings.get("device"))
    place = check_destination(out, overwrite=overwrite)
    if plot is not None:
        _check_picture(Path(plot), overwrite)
        new_figure((1, 1))
    # A file that carries its geometry is read as such, unless it is said which array of it is meant.
    plain = any(how.values()) or read_data_set(source) is None
    problem = read_problem(open_source(source, how) if plain else source, known)
    nbytes = round(memory * 1e9)
    say(describe_memory(problem, method, nbytes, **settings))
    with error_bar(method) as progress:
        result = reconstruct(
            problem,
            method,  # type: ignore[arg-type]
            memory=nbytes,
            checkpoint=checkpoint,
            resume=resume,
            progress=progress,
            **settings,
        )
    save_reconstruction(result, place, overwrite=overwrite)
    if plot is not None:
        draw_reconstruction(result, plot)
    size = "×".join(map(str, result.object.shape))
    pixel = "" if result.pixel_size is None else f" of {1e9 * result.pixel_size:.4g} nm"
    typer.echo(f"{out}: object of {size} pixels{pixel}, amplitude error {result.error:.4f} ({result.method})")


def _check_picture(plot: Path, overwrite: bool) -> None:
    if plot.suffix.lower() not in PICTURES:
        raise DestinationError(f"{plot} must be a picture: {', '.join(PICTURES)}")
    if plot.exists() and not overwrite:
        raise DestinationError(f"{plot} exists already; give --overwrite or another --plot")
    if not plot.absolute().parent.is_dir():
        raise DestinationError(f"the folder {plot.parent} does not exist; create it first")
