"""``stemcodecs train tcs``: movies in, weights, their card and the loss curve out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stemcodecs.errors import ConfigurationError, DestinationError, UnsupportedDtypeError
from stemcodecs.temporal.sampling import Sampling
from stemcodecs_pipelines.temporal.training_movies import VALIDATION_SEED, TrainingMovies

if TYPE_CHECKING:
    from stemcodecs_pipelines.temporal.train import TrainingOptions

__all__ = ["draw_curve", "train_tcs"]

TRAINING_SEED = 1_000_000
"""Seeds of the simulated movies begin here; far from those of examples and benchmarks."""
HELD_OUT = 8
"""Clips that are validated with."""


def train_tcs(
    folder: Path,
    options: dict[str, Any],
    *,
    movies: Sequence[str] = (),
    motion: str = "mixed",
    clips: int = 300,
    measurement: str = "tiled",
    mask_seed: int = 0,
    time_bins: int = 4,
    resume: bool = False,
    every: int = 250,
    side: int = 128,
    report: Callable[[str, int, int, float, float], None] = lambda what, done, total, loss, psnr: None,
) -> Path:
    """Train a network, and export it.

    Parameters
    ----------
    folder : Path
        For the checkpoint, the curve and the weights.
    options : dict
        Of `stemcodecs_pipelines.temporal.train.TrainingOptions`.
    movies : sequence of str
        The user's own movies, whose last clips are held out; simulated ones unless given.
    motion, clips
        Of the simulated movies.
    measurement, mask_seed, time_bins
        What the network is for: masks and their seed, or bins of 2 × 2 pixels.
    resume : bool
        Continue from the checkpoint.
    every : int
        Steps from one validation and checkpoint to the next.
    side : int
        Rows and columns of a clip.
    report : callable
        Told what is done, how much of how much, and while training the loss and the PSNR (NaN where it was not
        measured).

    Returns
    -------
    Path
        The file of weights.

    Raises
    ------
    ConfigurationError
        torch or onnx is missing, an option is not allowed, or the training diverges.
    DestinationError
        The folder holds another training.
    """
    try:
        from stemcodecs_pipelines.temporal.export import export_onnx
        from stemcodecs_pipelines.temporal.train import Training, TrainingOptions
    except ImportError as error:
        raise ConfigurationError(
            f"training needs {error.name}; install it with: pip install 'stemcodecs[train]'"
        ) from None
    if not resume and (folder / "checkpoint.pt").exists():
        raise DestinationError(f"{folder} holds a training; give --resume to continue it, or another folder")
    chosen = TrainingOptions(**options)
    if chosen.crop % 4 or not 8 <= chosen.crop <= side:
        raise ConfigurationError(f"--crop {chosen.crop} must be a multiple of 4 from 8 to {side}")
    sampling = _sampling(chosen, measurement, mask_seed, time_bins)
    if movies:
        own = TrainingMovies.of_movies([_movie(place) for place in movies], sampling, side=side)
        learn, held_out = own.split(min(HELD_OUT, max(1, len(own) // 5)))
        data: dict[str, Any] = {"movies": [Path(place).name for place in movies], "clips": len(learn)}
    else:

        def simulated(count: int, seed: int) -> TrainingMovies:
            return TrainingMovies.simulated(
                count, sampling, motion=motion, seed=seed, side=side,
                progress=lambda done: report("simulate", done, count, math.nan, math.nan),
            )  # fmt: skip

        learn = simulated(clips, TRAINING_SEED + chosen.seed * 100_000)
        held_out = simulated(HELD_OUT, VALIDATION_SEED)
        data = {"simulated": motion, "clips": clips, "first_seed": TRAINING_SEED + chosen.seed * 100_000}
    training = Training(chosen, learn, held_out, folder)
    if resume:
        training.resume()
    training.run(every=every, report=lambda point: report("train", point.step, chosen.steps, point.loss, point.psnr))
    return export_onnx(training, folder, data | {"side": side, "held_out": len(held_out)})


def _sampling(options: TrainingOptions, measurement: str, mask_seed: int, time_bins: int) -> Sampling:
    if measurement != "bins":
        return Sampling(measurement=measurement, frames=options.frames, seed=mask_seed)
    if options.network == "birnat":
        raise ConfigurationError("--network birnat is for masks; take compact for bins, or --measurement tiled")
    return Sampling(measurement="bins", frames=options.frames, time_bins=time_bins, space_bins=2)


def _movie(place: str) -> np.ndarray[Any, Any]:
    from stemcodecs.readers import open_scan

    with open_scan(place) as scan:
        if scan.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)) or len(scan.shape) != 3:
            raise UnsupportedDtypeError(
                f"{place}: a movie to learn from is (time, y, x) of uint8 or uint16, not {scan.dtype}{scan.shape}"
            )
        return scan.read(tuple(slice(0, n) for n in scan.shape))


def draw_curve(folder: Path) -> Path:
    """Loss and validation PSNR over the steps, as a picture beside ``curve.json``.

    Raises
    ------
    ConfigurationError
        matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigurationError("drawing needs matplotlib; install it with: pip install 'stemcodecs[plot]'") from None
    points = json.loads((folder / "curve.json").read_text(encoding="utf-8"))
    steps = [point["step"] for point in points]
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot()
    left.semilogy(steps, [point["loss"] for point in points], label="training")
    left.semilogy(steps, [10 ** (-point["psnr"] / 10) for point in points], "--", label="validation")
    left.set_xlabel("step")
    left.set_ylabel("mean squared error of white²")
    left.legend()
    path = folder / "curve.png"
    figure.savefig(path, dpi=120)
    return path
