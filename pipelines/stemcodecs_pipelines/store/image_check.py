"""The stored images against the source: sums taken again from its blocks, which a verification reads anyway.

Digests tell that the images are what was written; this tells that what was written follows from the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from stemcodecs.location import Location
from stemcodecs.readers.scan import Region
from stemcodecs_pipelines.run.plan import Plan
from stemcodecs_pipelines.store.virtual_images import BlockSums, VirtualDetectors, block_sums, image_sums

__all__ = ["ImageCheck", "ImageSums"]

_FLOAT_TOLERANCE = 1e-5
"""Sums of floats depend on the order of the blocks; images of integer counts must agree in every digit."""


@dataclass(frozen=True, kw_only=True)
class ImageSums:
    """How the images of a store sum a block; small enough to go to a worker.

    Parameters
    ----------
    detectors : VirtualDetectors or None
        Bright and dark field, as the store notes them.
    masked : bool ndarray of shape (det_y, det_x) or None
        Pixels that are in no image.
    """

    detectors: VirtualDetectors | None
    masked: np.ndarray[Any, np.dtype[np.bool_]] | None

    @classmethod
    def of(cls, location: Location, provenance: Mapping[str, Any]) -> Self:
        """From what a complete store says."""
        import zarr

        detectors = provenance.get("virtual_detectors")
        mask = None
        if provenance.get("marked_pixels"):
            mask = np.asarray(zarr.open_group(location.zarr_store(), mode="r")["pixel_mask"]) != 0
        return cls(detectors=VirtualDetectors(**detectors) if detectors else None, masked=mask)

    def of_block(self, block: np.ndarray[Any, Any], region: Region) -> BlockSums:
        """Sums of a block of the source, which may cover only a part of the detector."""
        rows, columns = region[-2:]
        return block_sums(
            block.reshape(-1, *block.shape[-2:]),
            self.detectors,
            corner=(rows.start, columns.start),
            masked=None if self.masked is None else self.masked[rows, columns],
        )


class ImageCheck:
    """Adds up the sums of all blocks and compares them with the images of a store of layout 2.

    Parameters
    ----------
    location : Location
        The store.
    plan : Plan
        How it is cut.

    Notes
    -----
    Takes 40 bytes per scan position, and 16 per detector pixel.
    """

    def __init__(self, location: Location, plan: Plan) -> None:
        self.location = location
        dtype = np.dtype(plan.dtype)
        self.exact = dtype.kind in "bui" and dtype.itemsize <= 4
        sums = np.int64 if self.exact else np.float64
        self.images = np.zeros((*plan.shape[:-2], 5), sums)
        self.pattern = np.zeros(plan.shape[-2:], sums)
        self.left_out = np.zeros(plan.shape[-2:], np.int64)

    def add(self, region: Region, sums: BlockSums) -> None:
        """Add a block; every block once, in any order, from one thread at a time."""
        shape = [s.stop - s.start for s in region[:-2]]
        with np.errstate(all="ignore"):
            self.images[region[:-2]] += sums.images.reshape(*shape, 5)
            self.pattern[region[-2:]] += sums.pattern
        if sums.left_out.size:
            self.left_out[region[-2:]] += sums.left_out

    def problems(self) -> list[str]:
        """What does not follow from the source, one line for each image."""
        import zarr

        if self.images.ndim < 2:
            return []
        counted = self.images[..., 0].size - self.left_out
        with np.errstate(all="ignore"):
            made = image_sums(self.images)
            made["mean_pattern"] = np.where(counted > 0, self.pattern / counted, np.nan)
        group = zarr.open_group(self.location.zarr_store(), mode="r")
        problems = []
        for name, values in made.items():
            if name in group and not self._agrees(np.asarray(group[name]), values):
                problems.append(f"{name} does not follow from the source; compress it again")
        return problems

    def _agrees(self, stored: np.ndarray[Any, Any], made: np.ndarray[Any, Any]) -> bool:
        with np.errstate(all="ignore"):
            made = made.astype(stored.dtype)
            if self.exact:
                return bool(np.array_equal(stored, made, equal_nan=stored.dtype.kind == "f"))
            finite = np.abs(made[np.isfinite(made)])
            room = _FLOAT_TOLERANCE * float(finite.max(initial=0.0))
            return bool(np.allclose(stored, made, rtol=_FLOAT_TOLERANCE, atol=room, equal_nan=True))
