"""State of a PCA run in one file, so that a killed run continues where it was."""

from __future__ import annotations

import os
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from stemcodecs.errors import DestinationError
from stemcodecs.lowrank.rangefinder import PassSums

__all__ = ["Checkpoint"]

EVERY = 10.0
"""Seconds between writes."""

State = tuple[int, int, np.ndarray[Any, Any], PassSums]


class Checkpoint:
    """Sketch and running sums of the pass in progress.

    Parameters
    ----------
    path : Path
        File; written beside and renamed, so that it is never half a state.
    identity : object
        What the run depends on; a file of another run is refused.
    """

    def __init__(self, path: Path, identity: object) -> None:
        self.path = path
        self.identity = repr(identity)
        self._written = time.monotonic()

    def load(self, pixels: int, columns: int) -> State | None:
        """Pass, blocks done, sketch and sums; None where there is no file.

        Raises
        ------
        DestinationError
            If the file is not a checkpoint of this run.
        """
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                if str(stored["identity"]) != self.identity:
                    raise DestinationError(
                        f"{self.path} belongs to a PCA of another scan or with other options; remove it or name another"
                    )
                sketch = stored["sketch"]
                partial = PassSums(
                    product=stored["product"],
                    features=stored["features"],
                    counts=stored["counts"],
                    energy=float(stored["energy"]),
                    positions=int(stored["positions"]),
                )
                number, block = (int(n) for n in stored["progress"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DestinationError(f"{self.path} is not a PCA checkpoint; remove it or name another") from error
        if sketch.shape != (pixels, columns) or partial.product.shape != (pixels, columns):
            raise DestinationError(f"{self.path} is a damaged PCA checkpoint; remove it")
        return number, block, sketch, partial

    def offer(self, number: int, block: int, sketch: np.ndarray[Any, Any], total: PassSums) -> None:
        """Write the state if the last one is old enough."""
        if time.monotonic() - self._written < EVERY:
            return
        partial = self.path.with_name(self.path.name + ".partial")
        with partial.open("wb") as file:
            np.savez(
                file,
                identity=np.array(self.identity),
                progress=np.array([number, block]),
                sketch=sketch,
                product=total.product,
                features=total.features,
                counts=total.counts,
                energy=np.array(total.energy),
                positions=np.array(total.positions),
            )
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)
        self._written = time.monotonic()

    def remove(self) -> None:
        """The run is complete."""
        self.path.unlink(missing_ok=True)
