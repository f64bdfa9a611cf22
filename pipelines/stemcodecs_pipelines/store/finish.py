"""The last step of a compression: metadata, coordinates, images and provenance around the chunks.

Everything is made by Zarr in memory and copied in an order that keeps the store unreadable until it
is whole: the root ``zarr.json`` comes last, then the journal goes.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from stemcodecs.errors import IncompleteStoreError
from stemcodecs.location import JOURNAL, Location
from stemcodecs.zarr_private import put
from stemcodecs_pipelines.store.block_coder import DATA
from stemcodecs_pipelines.store.companions import LAYOUT, object_digest, sealed
from stemcodecs_pipelines.store.job import Job
from stemcodecs_pipelines.store.journal import Record
from stemcodecs_pipelines.store.stored_models import model_bytes, model_chunks, model_documents
from stemcodecs_pipelines.store.values_found import values_found
from stemcodecs_pipelines.store.virtual_images import image_sums

__all__ = ["finish"]

ROOT = "zarr.json"
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
        # In memory: on disk Zarr would write the root first, and readers would open the store from then on.
        root = zarr.create_group(store, zarr_format=3)
        data = dict(job.metadata)
        data["attributes"] = {"long_name": "detector counts" if _counts(job) else "detector values"}
        put(store, f"{DATA}/zarr.json", json.dumps(data, indent=2).encode())
        for key, document in model_documents(job.metadata, place).items():
            put(store, key, document)
        _coordinates(root, job)
        sums = _blocks(root, job, place, writer)
        writer.flush()
        writer.note(model_chunks(job.metadata))
        root.attrs["stemcodecs"] = sealed(_provenance(job, place, sums) | {"objects": writer.digests()})
        zarr.consolidate_metadata(store, zarr_format=3)
    writer.finish()
    # A kill before this line leaves a complete store with a journal, which no reader sees.
    place.remove(JOURNAL)


class _Writer:
    """Copies what Zarr made in memory to the store, and takes digests; the root's metadata comes last of all."""

    def __init__(self, place: Location) -> None:
        self.place = place
        self.objects: dict[str, Any] = {}
        self.store = MemoryStore(self.objects)
        self.written: dict[str, str] = {}

    def flush(self) -> None:
        """Write the chunks made so far and forget them."""
        for key in [k for k in self.objects if not k.endswith("zarr.json")]:
            data = self.objects[key].as_numpy_array().data
            self.written[key] = object_digest(data)
            self._write(key)

    def note(self, keys: Iterable[str]) -> None:
        """Take the digests of objects that are in the store already."""
        self.written |= {key: object_digest(self.place.read(key) or b"") for key in keys}

    def digests(self) -> dict[str, str]:
        """SHA-256 of everything that lies beside ``data``, but for the root's metadata, by key."""
        documents = {
            key: object_digest(value.as_numpy_array().data)
            for key, value in self.objects.items()
            if key.endswith("/zarr.json")
        }
        return dict(sorted((self.written | documents).items()))

    def finish(self) -> None:
        """Write the metadata; from here on the store is complete."""
        for key in sorted(k for k in self.objects if k != ROOT):
            self._write(key)
        # What the root's presence promises is on the disk before the root is.
        self.place.sync()
        self._write(ROOT)
        self.place.sync_root()

    def _write(self, key: str) -> None:
        self.place.write(key, self.objects.pop(key).as_numpy_array().data)


def _counts(job: Job) -> bool:
    return np.dtype(job.plan.dtype).kind in "ui"


def _create(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: Any,
    chunks: tuple[int, ...],
    dims: Sequence[str] | None,
) -> zarr.Array[Any]:
    """An array that finds flipped bits when it is read, and has every chunk: one that is missing is always an error."""
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        compressors=[ZstdCodec(), Crc32cCodec()],
        fill_value=0,
        dimension_names=dims,
        config={"write_empty_chunks": True},
    )


def _coordinates(root: zarr.Group, job: Job) -> None:
    for axis in job.axes:
        scale = 1.0 if axis["scale"] is None else axis["scale"]
        shape = (axis["size"],)
        array = _create(root, axis["name"], shape, "f8", shape, (axis["name"],))
        array[:] = axis["offset"] + scale * np.arange(axis["size"], dtype=np.float64)
        calibration = {"scale": scale, "offset": axis["offset"]}
        units = axis["units"] or ("px" if axis["scale"] is None else None)
        array.attrs.update(calibration | ({"units": units} if units else {}))


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """What the records of all blocks add up to."""

    stored_bytes: int
    raw_sha256: str
    marked_pixels: Mapping[str, int]
    marked_values: int


def _blocks(root: zarr.Group, job: Job, place: Location, writer: _Writer) -> _Sums:
    """Images, mean pattern and digests from the records, one row of blocks at a time."""
    plan, scan_shape = job.plan, job.plan.shape[:-2]
    group = root.require_group("provenance")
    digests = {
        name: _create(group, name, (plan.blocks, 32), "u1", (min(plan.blocks, 4096), 32), None)
        for name in ("raw_sha256", "stored_sha256")
    }
    group.attrs["block"] = list(plan.block)
    digest = hashlib.sha256()
    pattern: np.ndarray[Any, Any] | None = None
    left_out = np.zeros(plan.shape[-2:], np.int64)
    images = _Images(root, job) if scan_shape else None
    band = plan.blocks // plan.grid[0]
    stored = 0
    rows: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in digests}
    for index, record in _records(place, plan.blocks):
        stored += record.stored_bytes
        # A digest of digests: the blocks themselves would have to be read again, in order.
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
                # Exact integers where the source has them: the order of the blocks then cannot show in the sum.
                pattern = np.zeros(plan.shape[-2:], record.pattern.dtype)
            with np.errstate(all="ignore"):
                pattern[region[-2:]] += record.pattern
            if record.left_out.size:
                left_out[region[-2:]] += record.left_out
            images.add(region, record.images)
            # A row of blocks is whole: its images are written and forgotten, or memory would grow with the scan.
            if (index + 1) % band == 0:
                images.flush(region[0].stop)
                writer.flush()
    pixels: dict[str, int] = {}
    values_out = 0
    if pattern is not None and images is not None:
        positions = int(np.prod(scan_shape, dtype=np.int64))
        never = left_out == positions
        _mean_pattern(root, job, pattern, positions - left_out)
        if never.any():
            _pixel_mask(root, job, never)
        pixels = _kinds(job, never)
        values_out = int(left_out.sum()) - positions * int(never.sum())
        images.say(int(never.sum()), values_out)
    return _Sums(stored_bytes=stored, raw_sha256=digest.hexdigest(), marked_pixels=pixels, marked_values=values_out)


def _mean_pattern(root: zarr.Group, job: Job, total: np.ndarray[Any, Any], counted: np.ndarray[Any, Any]) -> None:
    mean = _create(root, "mean_pattern", total.shape, "f4", total.shape, job.dims[-2:])
    with np.errstate(all="ignore"):
        mean[:] = np.where(counted > 0, total / counted, np.nan).astype(np.float32)
    mean.attrs["long_name"] = "mean over all scan positions"
    if (counted == 0).any():
        mean.attrs["comment"] = "NaN where a pixel is marked at every position"


def _pixel_mask(root: zarr.Group, job: Job, never: np.ndarray[Any, Any]) -> None:
    mask = _create(root, "pixel_mask", never.shape, "u1", never.shape, job.dims[-2:])
    mask[:] = never.astype(np.uint8)
    mask.attrs["long_name"] = "1 where a pixel is marked (gap, dead, saturated) at every position: in no image"


def _kinds(job: Job, never: np.ndarray[Any, Any]) -> dict[str, int]:
    """How many pixels are marked at every position, by the kind of mark."""
    kinds = {kind: int(mask.sum()) for kind, mask in job.marked_pixels.masks.items()}
    by_value = int(never.sum()) - sum(kinds.values())
    if by_value:
        kinds["not_finite" if np.dtype(job.plan.dtype).kind == "f" else "largest_value"] = by_value
    return kinds


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
        # Sums of 64-bit integers may overflow, so they are taken in floating point.
        exact = np.dtype(job.plan.dtype).kind in "bui" and np.dtype(job.plan.dtype).itemsize <= 4
        self.dtype = np.dtype(np.int64 if exact else np.float64)
        self.start = 0
        self.pending = np.zeros((self.chunk, *self.scan[1:], 5), self.dtype)
        names = tuple(image_sums(self.pending[:0]))
        self.arrays: dict[str, Any] = {}
        for name in names if job.detectors else names[:1]:
            dtype = "f4" if name.startswith("com_") else self.dtype
            array = _create(root, name, self.scan, dtype, (self.chunk, *self.scan[1:]), job.dims[:-2])
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

    def say(self, pixels: int, values: int) -> None:
        """Note what the images are without."""
        if pixels or values:
            for array in self.arrays.values():
                array.attrs["left_out"] = {"marked_pixels": pixels, "marked_values": values}


def _provenance(job: Job, place: Location, sums: _Sums) -> dict[str, Any]:
    plan = job.plan
    stored = sums.stored_bytes + model_bytes(job.metadata, place)
    serializer = job.metadata["codecs"][-1]
    found = values_found(job.metadata, plan, place)
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
        "raw_sha256": sums.raw_sha256,
        "virtual_detectors": job.detectors.to_dict() if job.detectors else None,
        "marked_pixels": dict(sums.marked_pixels),
        "marked_values": sums.marked_values,
    } | ({} if found is None else {"values": found})
