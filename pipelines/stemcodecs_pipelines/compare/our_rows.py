"""Rows of the methods of the registry: coded chunk by chunk by the code of ``stemcodecs compress``."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError, UnsupportedDtypeError, VerificationError
from stemcodecs.location import JOURNAL, Location
from stemcodecs.readers.scan import Region
from stemcodecs_pipelines.compare.comparing import Comparing, Outcome, in_short
from stemcodecs_pipelines.compare.report import Group, Row, State
from stemcodecs_pipelines.compare.row_sums import RowSums
from stemcodecs_pipelines.compare.sample import ChosenBlocks, sample_as_scan
from stemcodecs_pipelines.methods.base import Encoding, Learning, Method
from stemcodecs_pipelines.methods.registry import METHODS, method_class, parse_method
from stemcodecs_pipelines.run.plan import Plan
from stemcodecs_pipelines.store.block_coder import BlockCoder, array_metadata
from stemcodecs_pipelines.store.stored_models import load_models, model_bytes

__all__ = ["left_out_row", "our_methods", "our_row", "our_slow_methods"]

Array = np.ndarray[Any, Any]

WARM_SIDE, WARM_FRAMES = 8, 64
"""Scan positions on which kernels are compiled before anything is timed."""


def our_methods() -> list[str]:
    """What ``--method`` would be given, of every method of the registry."""
    return _rows({name: method_class(name).worth_comparing for name in METHODS})


def our_slow_methods() -> list[str]:
    """The same of those that take minutes."""
    return _rows({name: method_class(name).slow_to_compare for name in METHODS})


def _rows(options: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{name}:{text}" if text else name for name, texts in options.items() for text in texts]


def left_out_row(text: str, common: Comparing) -> Outcome:
    """A method that takes minutes, by its name only."""
    method = parse_method(text)
    group = Group.OURS_LOSSLESS if method.exact else Group.OURS_LOSSY
    note = "takes minutes; --all takes it in"
    return Outcome(row=Row(name=text, group=group, guarantee=method.guarantee, state=State.LEFT_OUT, note=note))


def our_row(text: str, common: Comparing) -> Outcome:
    """Code the blocks of a sample with a method of ours, decode them, and hold them against its guarantee.

    Parameters
    ----------
    text : str
        As ``--method`` takes it.
    common : Comparing
        Source, and what its rows share.

    Raises
    ------
    KeyboardInterrupt
        The comparison was interrupted.
    """
    method = parse_method(text)
    group = Group.OURS_LOSSLESS if method.exact else Group.OURS_LOSSY
    row = Row(name=text, group=group, guarantee=method.guarantee)
    if method.movies_only and len(common.scan.shape) != 3:
        return Outcome(row=replace(row, state=State.UNSUITED, note="for movies: stacks of frames"))
    try:
        return _coded(method, row, common)
    except (ConfigurationError, UnsupportedDtypeError) as error:
        return Outcome(row=replace(row, state=State.UNSUITED, note=in_short(error)))
    except VerificationError as error:
        return Outcome(row=replace(row, state=State.LOSES, note=in_short(error)))
    except Exception as error:  # a method that fails must not take the others with it
        return Outcome(row=replace(row, state=State.FAILED, note=in_short(error)))


def _coded(method: Method[Any], row: Row, common: Comparing) -> Outcome:
    chosen = common.blocks(whole_detector=method.whole_detector, together=method.together)
    encoding, place, said = _built(method, chosen, common)
    metadata = array_metadata(chosen.plan, common.scan.dims, encoding)
    # The codecs of this process find a model that lies beside the array as they would in a store.
    load_models(metadata, place)
    known, coder = method.of_array(metadata), _ChunkCoder(encoding, metadata, chosen.plan)
    sums = RowSums(row.name, chosen, common, lossy=not method.exact and _measurable(chosen, common))
    chunk: tuple[Any, bytes] | None = None
    for region, block in sums.blocks():
        if not sums.sizes:
            _warm(block, encoding, chosen, common)
        stored = sums.encode(coder.encode, block, region, size=len, clock=coder.clock)
        decoded = sums.decode(coder.decode, stored, region, clock=coder.clock)
        known.compare(block, decoded, region)
        if sums.losses is not None:
            _add_loss(sums, block, decoded, region, common)
        if method.exact and chunk is None:
            chunk = encoding.serializer, stored
    return sums.outcome(
        replace(row, note=said, guarantee=known.guarantee), model=model_bytes(metadata, place), chunk=chunk
    )


class _ChunkCoder:
    """Blocks to the bytes of their chunks and back.

    Zarr would call the codec in threads of its own, whose time nobody knows; so it is called here, with the padded
    block that Zarr gives it. Where filters stand before it, Zarr is asked after all, and timed by the wall clock.
    """

    def __init__(self, encoding: Encoding, metadata: Mapping[str, Any], plan: Plan) -> None:
        self.codec = None if encoding.filters else encoding.serializer
        self.zarr = BlockCoder(metadata)
        self.plan = plan
        self.clock = time.perf_counter if self.codec is None else time.thread_time

    def encode(self, block: Array, region: Region) -> bytes:
        if self.codec is None:
            (stored,) = self.zarr.encode(block, region).values()
            return bytes(stored)
        if block.shape != self.plan.chunk:
            padded = np.zeros(self.plan.chunk, block.dtype)
            padded[tuple(slice(0, n) for n in block.shape)] = block
            block = padded
        return bytes(self.codec.encode_chunk(block))

    def decode(self, stored: bytes, region: Region) -> Array:
        if self.codec is None:
            return self.zarr.decode({"": stored}, region)
        decoded = self.codec.decode_chunk(stored)[tuple(slice(0, s.stop - s.start) for s in region)]
        return np.asarray(decoded, decoded.dtype.newbyteorder("="))


def _built(method: Method[Any], chosen: ChosenBlocks, common: Comparing) -> tuple[Encoding, Location, str]:
    """The codec, the place where its stored models are, and what the method said while it learned."""
    said: list[str] = []

    def report(text: str, done: int, total: int) -> None:
        # Steps of a fit are told with the same words again and again; the last words are the result.
        if done >= total and (not said or said[-1] != text):
            said.append(text)

    folder = common.folder / hashlib.sha256(method.text.encode()).hexdigest()[:16]
    folder.mkdir()
    source = common.scan
    if method.reads_everything and not chosen.whole:
        shape = "x".join(map(str, chosen.plan.chunk))
        source = common.remembered.once(
            ("sample", shape), lambda: sample_as_scan(common.scan, chosen, common.folder / f"sample-{shape}.npy")
        )
    encoding = method.build(source, Learning(workers=1, report=report, remembered=common.remembered))
    place = Location.of(folder)
    # In a store that is being written this folder is there: what is written goes through it.
    (folder / JOURNAL).mkdir()
    for key, data in encoding.stored_models.items():
        place.write(key, data)
    return encoding, place, said[-1] if said else ""


def _warm(block: Array, encoding: Encoding, chosen: ChosenBlocks, common: Comparing) -> None:
    """Code a corner of a block, so that what must be compiled is compiled."""
    sides = [min(n, WARM_SIDE) for n in block.shape[:-2]]
    if len(sides) == 1:
        sides = [min(block.shape[0], WARM_FRAMES)]
    region = (*(slice(0, n) for n in sides), slice(0, block.shape[-2]), slice(0, block.shape[-1]))
    corner = np.ascontiguousarray(block[region])
    plan = replace(chosen.plan, shape=corner.shape, chunk=corner.shape)
    coder = _ChunkCoder(encoding, array_metadata(plan, common.scan.dims, encoding), plan)
    coder.decode(coder.encode(corner, region), region)


def _measurable(chosen: ChosenBlocks, common: Comparing) -> bool:
    """Whether counts are known; the map of a scan is one of whole patterns."""
    whole = chosen.plan.chunk[-2:] == chosen.plan.shape[-2:]
    return common.counts.known and (whole or common.counts.map is None)


def _add_loss(sums: RowSums, block: Array, decoded: Array, region: Region, common: Comparing) -> None:
    form = (-1, *block.shape[-2:])
    source, known = common.counts.of(block.reshape(form))
    found, found_known = common.counts.of(decoded.reshape(form))
    # What has a count in the source and none any more is 0 in what was decoded: an error, and shown as one.
    sums.add_loss(source, found if found_known is None else np.where(found_known, found, 0), known, region)
