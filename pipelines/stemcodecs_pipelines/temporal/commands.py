"""``stemcodecs train tcs``: train a network that decodes measurements of movies."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.run.terminal import reported

__all__ = ["register"]

CHOICES = {
    "network": ("compact", "birnat"),
    "motion": ("slow", "mixed", "fast"),
    "measurement": ("tiled", "random", "bins"),
}


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="Train networks.", no_args_is_help=True, rich_markup_mode=None)
    group.command(name="tcs")(reported(_train_tcs))
    app.add_typer(group, name="train")


def _train_tcs(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="For checkpoint, loss curve, weights and card.")],
    movies: Annotated[
        list[str] | None, typer.Option("--movie", help="A movie of your own; may be given again. Default: simulated.")
    ] = None,
    network: Annotated[
        str, typer.Option(help="compact, or birnat: the recurrent one of TCS-DL, some ten times as slow.")
    ] = "compact",
    motion: Annotated[str, typer.Option(help="Of simulated movies: slow, mixed or fast.")] = "mixed",
    clips: Annotated[int, typer.Option(min=1, help="Simulated movies to learn from.")] = 300,
    frames: Annotated[int, typer.Option(min=2, max=128, help="Frames B of a measurement.")] = 10,
    measurement: Annotated[str, typer.Option(help="Masks, tiled or random, or bins of 2 x 2 pixels.")] = "tiled",
    mask_seed: Annotated[int, typer.Option(min=0, help="Seed of the masks.")] = 0,
    time_bins: Annotated[int, typer.Option(min=1, help="Time bins of a measurement, of bins.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the training.")] = 20_000,
    batch: Annotated[int, typer.Option(min=1, help="Clips in a step.")] = 8,
    crop: Annotated[int, typer.Option(min=8, help="Rows and columns of a clip in a step.")] = 64,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 3e-4,
    width: Annotated[int, typer.Option(min=6, help="Channels of the network.")] = 48,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, clips and simulated movies.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the training in the folder.")] = False,
) -> None:
    """Train a network to decode movies measured by compress --method tcs."""
    for name, value in (("network", network), ("motion", motion), ("measurement", measurement)):
        if value not in CHOICES[name]:
            raise ConfigurationError(f"--{name} {value} must be one of {', '.join(CHOICES[name])}")
    if not 0 < rate < 1:
        raise ConfigurationError(f"--rate {rate} must be between 0 and 1")
    from stemcodecs_pipelines.temporal.train_tcs import draw_curve, train_tcs

    options: dict[str, Any] = {
        "network": network, "frames": frames, "steps": steps, "batch": batch, "crop": crop, "rate": rate,
        "width": width, "seed": seed,
    }  # fmt: skip
    with _Progress() as progress:
        path = train_tcs(
            Path(folder), options, movies=movies or (), motion=motion, clips=clips, measurement=measurement,
            mask_seed=mask_seed, time_bins=time_bins, resume=resume, report=progress,
        )  # fmt: skip
    if find_spec("matplotlib"):
        typer.echo(f"{draw_curve(Path(folder))}: loss of training and validation")
    made_for = f"time_bins={time_bins}, space_bins=2" if measurement == "bins" else f"seed={mask_seed}"
    typer.echo(f"{path}: weights for measurement={measurement}, frames={frames}, {made_for}")


class _Progress:
    """A bar with the loss and the last PSNR, on a terminal; elsewhere a line for each validation."""

    def __enter__(self) -> _Progress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
        self.bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.tasks: dict[str, Any] = {}
        self.psnr = math.nan
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def __call__(self, what: str, done: int, total: int, loss: float, psnr: float) -> None:
        text = what
        if what not in self.tasks:
            self.tasks[what] = self.bar.add_task(text)
        if not math.isnan(psnr):
            self.psnr = psnr
            self.console.print(f"step {done} of {total}: loss {loss:.3g}, PSNR of held-out movies {psnr:.2f} dB")
        if not math.isnan(loss):
            text = f"{what}: loss {loss:.3g}, PSNR {self.psnr:.2f} dB"
        self.bar.update(self.tasks[what], description=text, completed=done, total=total)
