"""Train a network that decodes measurements: seeded, resumable, and stopped where it diverges.

What was learned to be needed, at B = 30: float32, GELU, a learning rate of 3e-4 that falls as a cosine, a gradient norm
of at most 1, and the exponential mean of the weights. bfloat16, ReLU or twice the rate killed the network.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stemcodecs.errors import ConfigurationError, SourceError
from stemcodecs_pipelines.temporal.birnat import Birnat
from stemcodecs_pipelines.temporal.networks import BinsNetwork, CompactNetwork
from stemcodecs_pipelines.temporal.training_movies import Batch, TrainingMovies

__all__ = ["Trained", "Training", "TrainingOptions"]

WARM_UP = 50
"""Steps until the learning rate is reached."""
DIVERGED = 4.0
"""The loss, averaged over some fifty steps, may be so many times its least before the training is stopped."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What decides the weights.

    Attributes
    ----------
    network : {"compact", "birnat"}
        Which network: the compact one, of masks or of bins, or that of the paper, of masks.
    frames : int
        Frames B of a measurement.
    steps, batch, crop : int
        Steps, clips in each, and rows and columns of a clip.
    rate : float
        Learning rate.
    width : int
        Channels of the network.
    seed : int
        Of the weights, the crops and the simulated movies.
    """

    network: str = "compact"
    frames: int = 10
    steps: int = 20_000
    batch: int = 8
    crop: int = 64
    rate: float = 3e-4
    width: int = 48
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A point of the loss curve.

    Attributes
    ----------
    step : int
        Steps done.
    loss : float
        Mean squared error of recent batches, of white².
    psnr : float
        Of the validation movies in dB; NaN where it was not measured.
    seconds : float
        Training time so far.
    """

    step: int
    loss: float
    psnr: float
    seconds: float


class Training:
    """A training that can be stopped and continued.

    Parameters
    ----------
    options : TrainingOptions
        What decides the weights.
    movies, held_out : TrainingMovies
        To learn from, and to validate with.
    folder : Path
        Where the checkpoint and the curve go.
    """

    def __init__(
        self, options: TrainingOptions, movies: TrainingMovies, held_out: TrainingMovies, folder: Path
    ) -> None:
        torch.manual_seed(options.seed)
        self.options, self.movies, self.held_out, self.folder = options, movies, held_out, folder
        network = _network(options, movies)
        self.network: Any = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean_network: nn.Module = copy.deepcopy(self.network)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), options.rate, weight_decay=1e-4)
        self.step, self.seconds, self.loss, self.least = 0, 0.0, math.nan, math.inf
        self.curve: list[Trained] = []

    def run(self, *, every: int = 250, report: Callable[[Trained], None] = lambda point: None) -> None:
        """Train to the end, with a checkpoint and a validation every so many steps.

        Raises
        ------
        ConfigurationError
            The loss diverges; the last checkpoint is from before.
        """
        while self.step < self.options.steps:
            begun = time.perf_counter()
            loss = self._one_step()
            self.seconds += time.perf_counter() - begun
            self.loss = loss if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * loss
            if not math.isfinite(loss) or (self.step > WARM_UP and self.loss > DIVERGED * self.least):
                raise ConfigurationError(
                    f"the training diverged at step {self.step}; start again with a lower --rate "
                    f"(the checkpoint in {self.folder} is from before)"
                )
            self.least = min(self.least, self.loss) if self.step > WARM_UP else math.inf
            last = self.step == self.options.steps
            if self.step % every == 0 or last:
                point = Trained(step=self.step, loss=self.loss, psnr=self.validate(), seconds=self.seconds)
                self.curve.append(point)
                self.save()
                report(point)
            elif self.step % 10 == 0:
                report(Trained(step=self.step, loss=self.loss, psnr=math.nan, seconds=self.seconds))

    def _one_step(self) -> float:
        o = self.options
        # Drawn from the number of the step, so that a training that was continued sees the same crops.
        batch = self.movies.batch(np.random.default_rng([o.seed, self.step]), o.batch, o.crop)
        warm = min(1.0, (self.step + 1) / WARM_UP)
        rate = o.rate * warm * (0.5 * (1 + math.cos(math.pi * self.step / o.steps)) + 1e-3)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self._loss(batch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        keep = min(0.998, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, now in zip(self.mean_network.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(now, 1 - keep)
        return float(loss.item())

    def _loss(self, batch: Batch) -> Tensor:
        wanted, weight = torch.from_numpy(batch.wanted), torch.from_numpy(batch.weight)
        found = self.network.estimates(*_inputs(batch))
        losses = [(((frames - wanted) * weight) ** 2).mean() for frames in found]
        return torch.stack(losses).mean()

    def validate(self) -> float:
        """PSNR over the frames of the held-out movies, in dB."""
        found = []
        self.mean_network.eval()
        with torch.no_grad():
            for clip in range(len(self.held_out)):
                batch = self.held_out.whole(clip)
                out = self.mean_network(*_inputs(batch)).numpy()
                squares = (((out - batch.wanted) * batch.weight) ** 2).mean(axis=(2, 3))
                found.append(-10 * np.log10(np.maximum(squares, 1e-12)))
        return float(np.mean(found))

    def save(self) -> None:
        """Write the checkpoint and the curve; a killed training finds the old ones or the new ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "options": asdict(self.options), "step": self.step, "seconds": self.seconds, "loss": self.loss,
            "least": self.least, "curve": [asdict(point) for point in self.curve],
            "network": self.network.state_dict(), "mean": self.mean_network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip
        part = self.folder / "checkpoint.pt.part"
        torch.save(state, part)
        os.replace(part, self.folder / "checkpoint.pt")
        (self.folder / "curve.json").write_text(json.dumps(state["curve"], indent=1) + "\n")

    def resume(self) -> None:
        """Continue from the checkpoint.

        Raises
        ------
        SourceError
            There is none, or it is damaged.
        ConfigurationError
            It was made with other options.
        """
        path = self.folder / "checkpoint.pt"
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True)
            made_with = state["options"]
        except FileNotFoundError:
            raise SourceError(f"{path} does not exist; leave --resume out to begin") from None
        except Exception as error:
            raise SourceError(f"{path} is damaged ({type(error).__name__}); start again without --resume") from error
        differ = sorted(name for name, value in asdict(self.options).items() if made_with.get(name) != value)
        if differ:
            raise ConfigurationError(
                f"the checkpoint was made with other {', '.join(differ)}; give the same, or another folder"
            )
        self.network.load_state_dict(state["network"])
        self.mean_network.load_state_dict(state["mean"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.loss, self.least = state["loss"], state["least"]
        self.curve = [Trained(**point) for point in state["curve"]]


def _network(options: TrainingOptions, movies: TrainingMovies) -> nn.Module:
    if options.network == "birnat":
        return Birnat(options.frames, options.width)
    if movies.sampling.measurement == "bins":
        return BinsNetwork(movies.sampling, options.width, options.width * 4 // 3)
    return CompactNetwork(options.frames, width=options.width, inner=options.width * 4 // 3)


def _inputs(batch: Batch) -> list[Tensor]:
    """What the network takes: the measurement, and the masks where there are some."""
    given = [batch.measured] if batch.masks is None else [batch.measured, batch.masks]
    return [torch.from_numpy(part) for part in given]
