"""The job of one compression: what decides the bytes of the store, fixed before the first block.

It lies in the unfinished store as ``.stemcodecs/job.json``. Workers read it from there, so that a
task is two numbers and a path, and a resumed run continues with the very same choices.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Self

from stemcodecs._version import __version__
from stemcodecs.errors import ConfigurationError, DestinationError
from stemcodecs.location import JOURNAL, Location
from stemcodecs.readers.scan import Scan
from stemcodecs_pipelines.methods.base import Encoding, Learning, Method
from stemcodecs_pipelines.run.open_sources import source_of
from stemcodecs_pipelines.run.plan import Plan
from stemcodecs_pipelines.store.block_coder import BlockCoder, array_metadata
from stemcodecs_pipelines.store.source_identity import check_same_source, fingerprint
from stemcodecs_pipelines.store.stored_models import load_models
from stemcodecs_pipelines.store.survey import MarkedPixels, survey_scan
from stemcodecs_pipelines.store.virtual_images import VirtualDetectors

__all__ = ["Job", "JobHandle", "check_resumable", "method_named", "prepare_job"]

JOB_KEY = f"{JOURNAL}/job.json"


def method_named(text: str) -> Method[Any]:
    """The method that a user, a job or a store names: the one place where the store asks the registry.

    Raises
    ------
    ConfigurationError
        The method or its options do not exist.
    """
    from stemcodecs_pipelines.methods.registry import parse_method

    return parse_method(text)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to write.

    Parameters
    ----------
    plan : Plan
        Blocks. Its number of workers does not change a byte.
    metadata : dict
        Zarr metadata of the array ``data``, codecs and their models included.
    method : str
        Method with its options, as `method_named` reads it.
    verify : bool
        Whether each block is read back and compared after it was written.
    detectors : VirtualDetectors or None
        Where the bright-field disk is; None for stacks of frames and single patterns.
    marked_pixels : MarkedPixels
        Pixels that no image has.
    axes : tuple of dict
        Name, size, scale, offset and units of each dimension.
    source : dict
        Where the data came from.
    fingerprint : dict
        By what a resumed run knows that the source is still the same.
    version : str
        Version of stemcodecs that began the store.
    """

    plan: Plan
    metadata: Mapping[str, Any]
    method: str
    verify: bool
    detectors: VirtualDetectors | None
    marked_pixels: MarkedPixels
    axes: tuple[Mapping[str, Any], ...]
    source: Mapping[str, Any]
    fingerprint: Mapping[str, Any]
    version: str = __version__

    @cached_property
    def coder(self) -> BlockCoder:
        """Encoder and decoder of the blocks."""
        return BlockCoder(self.metadata)

    @cached_property
    def chosen_method(self) -> Method[Any]:
        """Method, with the check of its guarantee."""
        return method_named(self.method).of_array(self.metadata)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions."""
        return tuple(axis["name"] for axis in self.axes)

    def to_json(self) -> bytes:
        """The job as it lies in the store; the number of workers is the run's own business."""
        content = {
            # A run that is resumed with other workers must find the same job, byte by byte.
            "plan": asdict(replace(self.plan, workers=1)),
            "metadata": self.metadata,
            "method": self.method,
            "verify": self.verify,
            "detectors": self.detectors.to_dict() if self.detectors else None,
            "marked_pixels": self.marked_pixels.to_dict(),
            "axes": self.axes,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "version": self.version,
        }
        return _written(content | {"sha256": hashlib.sha256(_written(content)).hexdigest()})

    @classmethod
    def from_json(cls, data: bytes, place: Location) -> Self:
        """Read a job back.

        Raises
        ------
        DestinationError
            The job is damaged, so that the run cannot be continued.
        """
        try:
            content = json.loads(data)
            # A damaged number would decide the bytes of the store as well as a whole one.
            unsealed = {key: value for key, value in content.items() if key != "sha256"}
            if hashlib.sha256(_written(unsealed)).hexdigest() != content["sha256"]:
                raise ValueError("checksum")
            # JSON knows lists only; shapes are compared as tuples.
            plan: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content["plan"].items()}
            found = content["detectors"]
            return cls(
                plan=Plan(**plan),
                detectors=VirtualDetectors(**found) if found else None,
                # Jobs of versions that knew no marks have none.
                marked_pixels=MarkedPixels.from_dict(
                    content.get("marked_pixels", {"shape": plan["shape"][-2:], "runs": {}})
                ),
                axes=tuple(content["axes"]),
                **{k: content[k] for k in ("metadata", "method", "verify", "source", "fingerprint", "version")},
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DestinationError(
                f"{place}: the job of the unfinished store is damaged; start again with --overwrite"
            ) from error


def _written(content: Mapping[str, Any]) -> bytes:
    # Not sorted: the order of the metadata is part of its bytes.
    return json.dumps(content, indent=1).encode()


@dataclass(frozen=True, kw_only=True)
class JobHandle:
    """What a task carries: where the job is, and how to open the source.

    Parameters
    ----------
    location : Location
        The unfinished store.
    digest : str
        SHA-256 of the job, so that a worker never works with one that it remembers from another
        run.
    scan : bytes
        Pickled `Scan`; each process opens its source once.
    resume : bool
        Blocks that are on disk already are checked and kept.
    """

    location: Location
    digest: str
    scan: bytes
    resume: bool = False

    @classmethod
    def of(cls, location: Location, scan: Scan, *, resume: bool = False) -> Self:
        """Handle of the job that lies at a location."""
        data = location.read(JOB_KEY) or b""
        return cls(
            location=location,
            digest=hashlib.sha256(data).hexdigest(),
            scan=pickle.dumps(scan),
            resume=resume,
        )

    @property
    def parts(self) -> str:
        """Folder of half-written objects: this job's own, so that no worker of another one can finish a write."""
        return f"{JOURNAL}/parts/{self.digest[:16]}"

    def job(self) -> Job:
        """The job, read once per process."""
        return _load_job(self.location, self.digest)

    def open_scan(self) -> Scan:
        """The source, opened once per process."""
        return source_of(self.scan)


@lru_cache(maxsize=4)
def _load_job(location: Location, digest: str) -> Job:
    data = location.read(JOB_KEY)
    # Between two tasks of ours another run may have replaced the store: its blocks must not be mixed with ours.
    if data is None or hashlib.sha256(data).hexdigest() != digest:
        raise DestinationError(f"{location}: its job has changed; another run took this store over")
    job = Job.from_json(data, location)
    # The coder's arrays lie in memory: their codecs find a model in this process, not beside the array.
    load_models(job.metadata, location)
    return job


def prepare_job(
    scan: Scan, plan: Plan, *, method: Method[Any], verify: bool, learning: Learning
) -> tuple[Job, Mapping[str, bytes]]:
    """Fix everything that decides the bytes of the store.

    Parameters
    ----------
    scan : Scan
        Source; a few patterns are read to find marked pixels and the bright-field disk.
    plan : Plan
        Chunks.
    method : Method
        How to store it.
    verify : bool
        Whether to read back and compare.
    learning : Learning
        Where a method that looks at the whole scan first does so.

    Returns
    -------
    Job
    dict
        Models that are stored beside the array, by key; to be written before the job.

    Raises
    ------
    ConfigurationError
        The method cannot store this scan in this way.
    """
    encoding = method.build(scan, learning)
    if encoding.stored_models and plan.shard:
        if encoding.self_contained is None:
            raise ConfigurationError(
                f"the model takes {sum(map(len, encoding.stored_models.values())) / 2**20:.1f} MiB, too much for the "
                "metadata, and Zarr finds no model beside an array inside shards; leave --shards out, or lower --rank"
            )
        encoding = Encoding(serializer=encoding.self_contained, filters=encoding.filters)
    marked, detectors = survey_scan(scan)
    job = Job(
        plan=plan,
        metadata=array_metadata(plan, scan.dims, encoding),
        method=method.text,
        verify=verify,
        detectors=detectors,
        marked_pixels=marked,
        axes=tuple(
            {"name": a.name, "size": a.size, "scale": a.scale, "offset": a.offset, "units": a.units} for a in scan.axes
        ),
        # Only the name: the store has the same bytes wherever its source lay.
        source={"path": os.path.basename(scan.path.rstrip("/")) or scan.path, **scan.metadata},
        fingerprint=fingerprint(scan),
    )
    return job, encoding.stored_models


def check_resumable(job: Job, scan: Scan, asked: Mapping[str, Any]) -> None:
    """Refuse to continue a job with another source or with other choices.

    Parameters
    ----------
    job : Job
        The job in the store.
    scan : Scan
        Source given now.
    asked : dict
        Choices given now: ``chunk``, ``shard``, ``method``; None where the user left them open.

    Raises
    ------
    SourceMismatchError
        The source is not the one that the job began with.
    ConfigurationError
        A choice differs from the job's.
    """
    check_same_source(
        job.fingerprint, scan, what="this unfinished store (give that one, or start again with --overwrite)"
    )
    have = {"chunk": job.plan.chunk, "shards": job.plan.shard, "method": job.method}
    for name, value in asked.items():
        if value is not None and have[name] != value:
            raise ConfigurationError(
                f"--{name} {value} differs from the interrupted run ({have[name]}); "
                "leave it out to continue, or start again with --overwrite"
            )
