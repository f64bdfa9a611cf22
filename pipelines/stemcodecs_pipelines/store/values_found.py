"""What the codec found behind the values of a scan, in words: noted in the store when it is complete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from stemcodecs.location import Location
from stemcodecs_pipelines.run.plan import Plan
from stemcodecs_pipelines.store.block_coder import BlockCoder

__all__ = ["values_found"]

_LOOKED_AT = 3
_FIRST_READ = 1 << 16


def values_found(metadata: Mapping[str, Any], plan: Plan, place: Location) -> str | None:
    """One line, such as "counts times a gain per pixel; offset 100 ADU"; None where values are counts, or unknown.

    Parameters
    ----------
    metadata : dict
        Zarr metadata of the array.
    plan : Plan
        Its blocks, of which the beginnings of a few are read.
    place : Location
        The store, with all blocks written.
    """
    from stemcodecs.counts.counts_map import CountsMap
    from stemcodecs.counts.words import words_of_map

    name, configuration = _innermost(metadata)
    if "map" in configuration:
        return words_of_map(CountsMap.from_uri(configuration["map"]))
    words: dict[str, Callable[[Location, str], str | None]] = {
        "stemcodecs.pixel_histogram": partial(_of_histograms, configuration=configuration),
        "stemcodecs.pca": _of_low_rank,
    }
    if name not in words:
        return None
    found = [words[name](place, key) for key in _some_keys(metadata, plan)]
    # Of chunks that differ, what most say, and of these the first.
    return Counter(found).most_common(1)[0][0]


def _innermost(metadata: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Name and configuration of the serializer, in shards or not."""
    codec = metadata["codecs"][-1]
    while "codecs" in codec.get("configuration", {}):
        codec = codec["configuration"]["codecs"][-1]
    return codec["name"], codec.get("configuration", {})


def _some_keys(metadata: Mapping[str, Any], plan: Plan) -> Iterator[str]:
    coder = BlockCoder(metadata)
    last = plan.blocks - 1
    for index in sorted({round(last * k / (_LOOKED_AT - 1)) for k in range(_LOOKED_AT)}):
        # A shard begins with one of its chunks.
        yield coder.key(plan.coordinates(index))


def _of_histograms(place: Location, key: str, configuration: Mapping[str, Any]) -> str | None:
    from stemcodecs.counts.words import words_of_values
    from stemcodecs.entropy.chunk.header import COUNTS, header_length, read_header
    from stemcodecs.entropy.chunk.shared_calibration import shared_calibration
    from stemcodecs.entropy.model.shared_model import load_shared
    from stemcodecs.entropy.values.calibration import SharedCalibration

    head = place.read_first(key, _FIRST_READ)
    length = header_length(head)
    if length > len(head):
        head = place.read_first(key, length)
    header = read_header(head)
    if header.kind != COUNTS:
        return None
    known = header.calibration
    if isinstance(known, SharedCalibration):
        shared = load_shared(configuration["model"], configuration["model_sha256"])
        known = shared_calibration(shared, header.dtype, known)[1]
    return words_of_values(header.numbers, known, header.dtype.newbyteorder("="))


def _of_low_rank(place: Location, key: str) -> str | None:
    from stemcodecs.lowrank.pca_chunk import starts_with_marks

    marks = starts_with_marks(place.read_first(key, 8))
    return "counts; gaps, dead and saturated pixels are kept exactly" if marks else None
