"""The last step of a compression: metadata, coordinates, images and provenance around the chunks.

Everything is made by Zarr in memory and copied in an order that keeps the store unreadable until it
is whole: the root ``zarr.json`` comes last, then the journal goes.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import zarr
from zarr.storage import MemoryStore

from stemcodecs.errors import IncompleteStoreError
from stemcodecs.store import JOURNAL, Location
from stemcodecs_pipelines.store.block_coder import DATA
from stemcodecs_pipelines.store.job import Job
from stemcodecs_pipelines.store.journal import Record
from stemcodecs_pipelines.store.stored_models import model_bytes, model_documents
from stemcodecs_pipelines.store.virtual_images import image_sums

__all__ = ["finish"]

ROOT = "zarr.json"
LAYOUT = 1
"""Version of the store's layout."""
_IMAGE_CHUNK = 1 << 18
"""Least values in one chunk of an image, so that a large scan has few of them."""
_LONG_NAMES = {
    "sum_image": "sum of all detector pixels",
    "bright_field": "sum of the bright-field disk",
    "annular_dark_field": "sum outside the bright-field disk",
    "com_y": "centre of mass along det_y, in detector pixels",
    "com_x": "centre of mass along det_x, in detector pixels",
}


def finish(job: Job, place: Location) -> None:
    """Complete a store whose blocks are all written.

    Parameters
    ----------
    job : Job
        The job.
    place : Location
        The store.

    Raises
    ------
    IncompleteStoreError
        A block has no record.
    """
    writer = _Writer(place)
    store = writer.store
    with warnings.catch_warnings():
        # Consolidated metadata and our own codec are outside Zarr's specification so far.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        root = zarr.create_group(store)
        data = dict(job.metadata)
        data["attributes"] = {"long_name": "detector counts" if _counts(job) else "detector values"}
        _put(store, f"{DATA}/zarr.json", json.dumps(data, indent=2).encode())
        for key, document in model_documents(job.metadata, place).items():
            _put(store, key, document)
        _coordinates(root, job)
        stored, digest = _blocks(root, job, place, writer)
        root.attrs["stemcodecs"] = _provenance(job, stored + model_bytes(job.metadata, place), digest)
        zarr.consolidate_metadata(store)
    writer.finish()
    place.remove(JOURNAL)


class _Writer:
    """Copies what Zarr made in memory to the store; the root's metadata last of all."""

    def __init__(self, place: Location) -> None:
        self.place = place
        self.objects: dict[str, Any] = {}
        self.store = MemoryStore(self.objects)

    def flush(self) -> None:
        """Write the chunks made so far and forget them."""
        for key in [k for k in self.objects if not k.endswith("zarr.json")]:
            self._write(key)

    def finish(self) -> None:
        """Write everything else; from here on the store is complete."""
        self.flush()
        for key in sorted(k for k in self.objects if k != ROOT):
            self._write(key)
        # What the root's presence promises is on the disk before the root is.
        self.place.sync()
        self._write(ROOT)
        self.place.sync_root()

    def _write(self, key: str) -> None:
        self.place.write(key, self.objects.pop(key).as_numpy_array().data)


def _put(store: MemoryStore, key: str, document: bytes) -> None:
    from zarr.core.buffer import cpu

    store._store_dict[key] = cpu.Buffer.from_bytes(document)


def _counts(job: Job) -> bool:
    return np.dtype(job.plan.dtype).kind in "ui"


def _coordinates(root: zarr.Group, job: Job) -> None:
    for axis in job.axes:
        scale = 1.0 if axis["scale"] is None else axis["scale"]
        array = root.create_array(
            axis["name"],
            shape=(axis["size"],),
            dtype="f8",
            chunks=(axis["size"],),
            dimension_names=(axis["name"],),
        )
        array[:] = axis["offset"] + scale * np.arange(axis["size"], dtype=np.float64)
        calibration = {"scale": scale, "offset": axis["offset"]}
        units = axis["units"] or ("px" if axis["scale"] is None else None)
        array.attrs.update(calibration | ({"units": units} if units else {}))


def _blocks(root: zarr.Group, job: Job, place: Location, writer: _Writer) -> tuple[int, str]:
    """Images, mean pattern and digests from the records, one row of blocks at a time."""
    plan, scan_shape = job.plan, job.plan.shape[:-2]
    digests = {
        name: root.require_group("provenance").create_array(
            name,
            shape=(plan.blocks, 32),
            dtype="u1",
            chunks=(min(plan.blocks, 4096), 32),
            fill_value=0,
        )
        for name in ("raw_sha256", "stored_sha256")
    }
    root["provenance"].attrs["block"] = list(plan.block)
    digest = hashlib.sha256()
    pattern: np.ndarray[Any, Any] | None = None
    images = _Images(root, job) if scan_shape else None
    band = plan.blocks // plan.grid[0]
    stored = 0
    rows: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in digests}
    for index, record in _records(place, plan.blocks):
        stored += record.stored_bytes
        digest.update(record.raw_sha256.tobytes())
        for name, values in rows.items():
            values.append(getattr(record, name))
        if len(rows["raw_sha256"]) == 4096 or index == plan.blocks - 1:
            for name, values in rows.items():
                digests[name][index + 1 - len(values) : index + 1] = np.stack(values)
                values.clear()
        region = plan.region(index)
        if images is not None:
            if pattern is None:
                pattern = np.zeros(plan.shape[-2:], record.pattern.dtype)
            with np.errstate(all="ignore"):
                pattern[region[-2:]] += record.pattern
            images.add(region, record.images)
            if (index + 1) % band == 0:
                images.flush(region[0].stop)
                writer.flush()
    if pattern is not None:
        mean = root.create_array(
            "mean_pattern",
            shape=pattern.shape,
            dtype="f4",
            chunks=pattern.shape,
            dimension_names=job.dims[-2:],
        )
        mean[:] = (pattern / float(np.prod(scan_shape, dtype=np.int64))).astype(np.float32)
        mean.attrs["long_name"] = "mean over all scan positions"
    return stored, digest.hexdigest()


def _records(place: Location, count: int) -> Iterator[tuple[int, Record]]:
    for index in range(count):
        record = Record.read(place, index)
        if record is None:
            raise IncompleteStoreError(f"{place}: block {index} left no record; continue with --resume to do it again")
        yield index, record


class _Images:
    """Virtual images, assembled from one row of blocks at a time and written in larger chunks."""

    def __init__(self, root: zarr.Group, job: Job) -> None:
        self.scan = job.plan.shape[:-2]
        self.row = int(np.prod(self.scan[1:], dtype=np.int64))
        rows = job.plan.block[0]
        self.chunk = min(self.scan[0], rows * max(1, -(-_IMAGE_CHUNK // max(1, rows * self.row))))
        exact = np.dtype(job.plan.dtype).kind in "bui" and np.dtype(job.plan.dtype).itemsize <= 4
        self.dtype = np.dtype(np.int64 if exact else np.float64)
        self.start = 0
        self.pending = np.zeros((self.chunk, *self.scan[1:], 5), self.dtype)
        names = tuple(image_sums(self.pending[:0]))
        self.arrays: dict[str, Any] = {}
        for name in names if job.detectors else names[:1]:
            array = root.create_array(
                name,
                shape=self.scan,
                dtype="f4" if name.startswith("com_") else self.dtype,
                chunks=(self.chunk, *self.scan[1:]),
                dimension_names=job.dims[:-2],
            )
            array.attrs["long_name"] = _LONG_NAMES[name]
            self.arrays[name] = array

    def add(self, region: tuple[slice, ...], images: np.ndarray[Any, Any]) -> None:
        """Add a block; blocks that share positions cover other parts of the detector."""
        first = slice(region[0].start - self.start, region[0].stop - self.start)
        shape = [s.stop - s.start for s in region[:-2]]
        with np.errstate(all="ignore"):
            self.pending[(first, *region[1:-2])] += images.reshape(*shape, 5)

    def flush(self, stop: int) -> None:
        """Write what is whole: a chunk of images, or the last rows."""
        if stop - self.start < self.chunk and stop < self.scan[0]:
            return
        with np.errstate(all="ignore"):
            made = image_sums(self.pending[: stop - self.start])
        for name, array in self.arrays.items():
            array[self.start : stop] = made[name]
        self.start = stop
        self.pending[:] = 0


def _provenance(job: Job, stored: int, digest: str) -> dict[str, Any]:
    plan = job.plan
    serializer = job.metadata["codecs"][-1]
    return {
        "complete": True,
        "layout": LAYOUT,
        "version": job.version,
        "method": job.method,
        "codecs": [codec["name"] for codec in job.metadata["codecs"]],
        "codec": serializer["name"],
        "guarantee": job.chosen_method.guarantee,
        "verified": job.verify,
        "source": dict(job.source),
        "fingerprint": dict(job.fingerprint),
        "shape": list(plan.shape),
        "dtype": np.dtype(plan.dtype).name,
        "chunk": list(plan.chunk),
        "shard": list(plan.shard) if plan.shard else None,
        "blocks": plan.blocks,
        "raw_bytes": plan.raw_bytes,
        "stored_bytes": stored,
        "ratio": round(plan.raw_bytes / stored, 4),
        "bits_per_pixel": round(8 * stored / int(np.prod(plan.shape, dtype=np.int64)), 5),
        "raw_sha256": digest,
        "virtual_detectors": job.detectors.to_dict() if job.detectors else None,
    }
