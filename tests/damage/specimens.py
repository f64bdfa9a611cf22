"""Small chunks of every codec, in every kind and mode, and the ways to read them: whole, in part, by either face."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import numpy as np
import zarr
from zarr.core.array_spec import ArrayConfig, ArraySpec
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.dtype import parse_dtype
from zarr.storage import LocalStore, StorePath

from stemcodecs.codecs.bit_pack import BitPack, NumcodecsBitPack
from stemcodecs.codecs.learned import Learned, NumcodecsLearned
from stemcodecs.codecs.pca import NumcodecsPca, Pca
from stemcodecs.codecs.pixel_histogram import NumcodecsPixelHistogram, PixelHistogram
from stemcodecs.codecs.poisson_histogram import NumcodecsPoissonHistogram, PoissonHistogram
from stemcodecs.codecs.poisson_quantize import NumcodecsPoissonQuantize, PoissonQuantize
from stemcodecs.codecs.tcs import NumcodecsTcs, Tcs
from stemcodecs.counts.counts_map import CountsMap
from stemcodecs.entropy.chunk import encode
from stemcodecs.entropy.chunk.decode import decode_array
from stemcodecs.entropy.chunk.header import read_header
from stemcodecs.entropy.chunk.shared_calibration import behind_bytes
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.entropy.values.calibration import (
    Corrections,
    FloatCalibration,
    IntegerCalibration,
    restore_calibrated,
)
from stemcodecs.entropy.values.number_map import NumberMap
from stemcodecs.learned.prefix import LENGTH
from stemcodecs.lowrank import LowRankModel, exact_basis
from tests.entropy.specimens import specimens as entropy_specimens
from tests.learned.random_l3c import l3c_chunk, random_l3c, shared_l3c
from tests.learned.random_networks import random_chunk
from tests.strategies import simulated_scan

__all__ = ["Chunk", "Specimen", "all_specimens", "array_spec", "bits", "check_specimens"]

Array = np.ndarray[Any, Any]
Selection = tuple[slice, ...]


def array_spec(shape: tuple[int, ...], dtype: Any) -> ArraySpec:
    """What Zarr tells a codec about a chunk."""
    native = np.dtype(dtype).newbyteorder("=")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        kind = parse_dtype(native, zarr_format=3)
    return ArraySpec(
        shape=shape, dtype=kind, fill_value=native.type(0), config=ArrayConfig.from_dict({}),
        prototype=default_buffer_prototype(),
    )  # fmt: skip


class Chunk:
    """A stored chunk, as a codec is given it for a partial read."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def get(self, prototype: Any, byte_range: Any = None) -> Any:
        part = self.data
        if byte_range is not None:
            end = getattr(byte_range, "end", None)
            part = part[getattr(byte_range, "start", getattr(byte_range, "offset", None)) : end]
        return cpu.Buffer.from_bytes(part)


class Face3(Protocol):
    """A serializer of Zarr format 3."""

    def _decode_sync(self, chunk_data: Any, chunk_spec: ArraySpec) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Specimen:
    """A chunk and how it is read.

    Attributes
    ----------
    family : str
        How its bytes are laid out: which checksums there are, and where.
    data : bytes
        The chunk.
    values : ndarray
        What it decodes to.
    face3, face2 : codec
        Of Zarr format 3, and of numcodecs.
    filter3, filter2 : codec, optional
        Before it, ``poisson_quantize``.
    """

    family: str
    data: bytes
    values: Array
    face3: Face3
    face2: Any
    filter3: Any = None
    filter2: Any = None

    @cached_property
    def spec(self) -> ArraySpec:
        """What the array declares."""
        return array_spec(self.values.shape, self.values.dtype)

    @cached_property
    def codes_spec(self) -> ArraySpec:
        """What the serializer is told: codes, if there is a filter."""
        return self.spec if self.filter3 is None else self.filter3.resolve_metadata(self.spec)

    def whole(self, data: bytes) -> Array:
        """As Zarr format 3 decodes a chunk."""
        found = self.face3._decode_sync(cpu.Buffer.from_bytes(data), self.codes_spec)
        if self.filter3 is not None:
            found = self.filter3._decode_sync(found, self.spec)
        return np.asarray(found.as_numpy_array())

    def numcodecs(self, data: bytes, out: Array | None) -> Array:
        """As Zarr format 2 decodes a chunk, into ``out`` if it is given."""
        if self.filter2 is None:
            return np.asarray(self.face2.decode(data, out))
        return np.asarray(self.filter2.decode(self.face2.decode(data), out))

    @property
    def partial(self) -> bool:
        """Whether parts can be read."""
        return hasattr(self.face3, "_decode_partial_single")

    async def part(self, data: bytes, selection: Selection, folder: Path | None) -> Array:
        """As Zarr format 3 reads a part, from memory or from a file in a folder."""
        chunk: Any = Chunk(data)
        if folder is not None:
            (folder / "chunk").write_bytes(data)
            chunk = StorePath(LocalStore(folder), "chunk")
        face: Any = self.face3
        found = await face._decode_partial_single(chunk, selection, self.spec)
        return np.asarray(found.as_numpy_array())


def _pixel_histogram() -> dict[str, Specimen]:
    found = {}
    for name, (_, data) in entropy_specimens().items():
        values = decode_array(data)
        found[f"pixel_histogram {name}"] = Specimen(
            family="pixel_histogram", data=data, values=values, face3=PixelHistogram(), face2=NumcodecsPixelHistogram()
        )
    array, data = entropy_specimens()["neighbour"]
    header = read_header(data)
    shared = SharedModel(detector=header.layout.detector, mean_frame_sum=float(array.sum()) / 70, model=header.model)
    configuration = shared.configuration()
    codec = PixelHistogram(mode="neighbour", **configuration)
    found["pixel_histogram shared"] = Specimen(
        family="pixel_histogram", data=codec.encode_chunk(array), values=array, face3=codec,
        face2=NumcodecsPixelHistogram(mode="neighbour", **configuration),
    )  # fmt: skip
    gain = np.random.default_rng(9).normal(1, 0.05, array.shape[-2:]).astype(np.float32)
    corrected = array.astype(np.float32) * gain
    behind = behind_bytes(NumberMap(), FloatCalibration(gain=gain.ravel().astype(np.float64)), header.layout.detector)
    n = gain.size
    lines = np.arange(3 * n) % 7 - 3
    last = Corrections(first=np.zeros(n, np.int64), lengths=np.full(n, 3), steps=lines)
    near = FloatCalibration(gain=gain.ravel().astype(np.float64), corrections=last)
    positions = np.arange(array.reshape(-1, n).shape[0])
    plain = array.reshape(-1, n).astype(np.uint16)
    values = restore_calibrated(plain.copy(), NumberMap(), near, np.dtype(np.float32), positions).reshape(array.shape)
    shifted = (1000 - array.astype(np.int64) - positions.reshape(*array.shape[:-2], 1, 1) % 9).astype(np.int32)
    backwards = IntegerCalibration(reversed=True, base=1001)
    detector = header.layout.detector
    models = {
        "gains": (replace(shared, behind=behind), corrected),
        "corrections": (
            replace(shared, behind=behind_bytes(NumberMap(), near, detector, extended=True), extended=True), values
        ),
        "offsets": (
            replace(
                shared, behind=behind_bytes(NumberMap(), backwards, detector, extended=True), extended=True, scaled=True
            ),
            shifted,
        ),
    }  # fmt: skip
    for name, (model, mapped) in models.items():
        codec = PixelHistogram(mode="neighbour", **model.configuration())
        found[f"pixel_histogram shared {name}"] = Specimen(
            family="pixel_histogram", data=codec.encode_chunk(mapped), values=mapped, face3=codec,
            face2=NumcodecsPixelHistogram(mode="neighbour", **model.configuration()),
        )  # fmt: skip
    assert [found[f"pixel_histogram shared {name}"].data[4] for name in models] == [3, 3, 6]
    return found


def _poisson() -> dict[str, Specimen]:
    counts = simulated_scan((5, 14, 5, 6), 20.0, seed=7)
    escapes = counts.astype(np.int32)
    escapes[..., 2, 3], escapes[0, 0, 0, 0] = -1, 2**31 - 1
    marked = counts.astype(np.float32)
    marked[..., 1, 1] = np.nan
    cases: dict[str, tuple[dict[str, Any], Array]] = {
        "midpoint": ({"r": 1}, counts.astype(np.uint16)),
        "centroid": ({"r": 1, "decoder": "centroid"}, counts.astype(np.uint16)),
        "huang": ({"preset": "huang-255"}, np.minimum(counts, 255).astype(np.uint8)),
        "escapes": ({"saturation": 1000}, escapes),
        "floats": ({}, marked),
    }
    found = {}
    for name, (options, array) in (cases | _mapped(counts)).items():
        codec = PoissonHistogram(**options)
        data = codec.encode_chunk(array)
        found[f"poisson_histogram {name}"] = Specimen(
            family="poisson_histogram", data=data, values=codec.decode_chunk(data), face3=codec,
            face2=NumcodecsPoissonHistogram(**options),
        )  # fmt: skip
    array = counts.astype(np.uint16)
    quantize = PoissonQuantize(preset="huang-255", saturation=4096)
    quantize2 = NumcodecsPoissonQuantize(dtype="<u2", preset="huang-255", saturation=4096)
    codes = quantize2.encode(array)
    bits = 8 * codes.dtype.itemsize
    data = BitPack(bits=bits).encode_chunk(codes)
    found["poisson_quantize bit_pack"] = Specimen(
        family="bit_pack", data=data, values=np.asarray(quantize2.decode(codes)), face3=BitPack(bits=bits),
        face2=NumcodecsBitPack(bits=bits), filter3=quantize, filter2=quantize2,
    )  # fmt: skip
    return found


def _mapped(counts: Array) -> dict[str, tuple[dict[str, Any], Array]]:
    """Values that a map leads to the counts, but for marks."""
    random = np.random.default_rng(13)
    gain = random.normal(0.4, 0.05, 30).astype(np.float32)
    floats = FloatCalibration(gain=gain.astype(np.float64))
    steps = IntegerCalibration(gain=np.full(30, 1000), offset=np.full(30, 7))
    corrected = counts.astype(np.float32) * gain.reshape(5, 6)
    corrected[..., 1, 1:4], corrected[2, 3, 0, 0], corrected[1, 1, 3, 3] = np.nan, -0.0, 0.123
    wide = (1000 * counts + 7).astype(np.int64)
    wide[..., 2, 2], wide[0, 0, 0, 1] = -1, 2**62
    cases: dict[str, tuple[Any, Array]] = {"mapped floats": (floats, corrected), "mapped integers": (steps, wide)}
    # So many pixels that a pattern tells its scale.
    doses = random.normal(1, 0.05, (5, 7, 1, 1)).astype(np.float32)
    divided = FloatCalibration(gain=np.tile(floats.gain, 2), scale_divides=True)
    cases["mapped doses"] = divided, corrected.reshape(5, 7, 10, 6) / doses
    added = IntegerCalibration(offset=random.integers(0, 9, 30), base=2**33)
    shifted = 2**33 + counts + added.offset.reshape(5, 6) + random.integers(0, 9, (*counts.shape[:2], 1, 1))
    shifted[..., 2, 2], shifted[0, 0, 0, 1] = -1, 2**62
    cases["mapped offsets"] = added, shifted
    return {
        name: ({"decoder": "centroid", "map": _map_of(c, array.shape[-2:], scaled=c in (divided, added))}, array)
        for name, (c, array) in cases.items()
    }


def _map_of(calibration: Any, detector: tuple[int, ...], *, scaled: bool) -> str:
    height, width = detector
    nothing = np.zeros(height * width, np.int64)
    return CountsMap(detector=(height, width), calibration=calibration, zero=nothing, scaled=scaled).to_uri()


def _bit_pack() -> dict[str, Specimen]:
    random = np.random.default_rng(11)
    cases = {
        5: random.integers(0, 32, (6, 7, 5)).astype(np.uint8),
        9: random.integers(0, 512, (40, 7)).astype(np.int16),
        31: random.integers(0, 2**31, (6, 7, 5)).astype(np.uint32),
    }
    return {
        f"bit_pack {bits}": Specimen(
            family="bit_pack", data=BitPack(bits=bits).encode_chunk(array), values=array, face3=BitPack(bits=bits),
            face2=NumcodecsBitPack(bits=bits),
        )
        for bits, array in cases.items()
    }  # fmt: skip


def _learned() -> dict[str, Specimen]:
    """Networks with and without scan neighbours, logistic and normal, wide counts, a shared one; and histograms."""
    counts = simulated_scan((5, 14, 5, 6), 9.0, seed=13)
    bright = simulated_scan((8, 9, 4, 5), 3000.0, seed=14)
    marked = counts.astype(np.int32)
    marked[..., 2, 3], marked[0, 0, 0, 0] = -1, 2**31 - 1
    cases: dict[str, tuple[Array, tuple[int, int]]] = {
        "pattern": (counts.astype(np.uint16), (1, 1)),
        "scan": (bright.astype(np.uint16), (2, 2)),
        "marks": (marked, (1, 1)),
    }
    found = {}
    cases |= {"means": (counts.astype(np.uint16), (2, 2)), "normal": cases["pattern"]}
    for name, (array, tile) in cases.items():
        data = random_chunk(array, 4, tile, means=3 if name == "means" else 0, normal=name == "normal")
        assert data is not None
        found[f"learned {name}"] = Specimen(
            family="learned", data=data, values=array, face3=Learned(), face2=NumcodecsLearned()
        )
    model = random_l3c(marked, 2)
    assert model is not None
    data = l3c_chunk(marked, model)
    assert data is not None
    found["learned l3c"] = Specimen(
        family="learned", data=data, values=marked, face3=Learned(), face2=NumcodecsLearned()
    )  # fmt: skip
    pyramid = shared_l3c(model).configuration()
    found["learned l3c shared"] = Specimen(
        family="learned", data=Learned(**pyramid).encode_chunk(marked), values=marked, face3=Learned(**pyramid),
        face2=NumcodecsLearned(**pyramid),
    )  # fmt: skip
    header = read_header(found["learned pattern"].data[LENGTH:])
    shared = SharedModel(detector=header.layout.detector, mean_frame_sum=float(counts.sum()) / 70, model=header.model)
    for name, array in (("shared", counts.astype(np.uint16)), ("histograms", counts[:1].astype(np.float64) + 0.1)):
        codec = Learned(**shared.configuration())
        found[f"learned {name}"] = Specimen(
            family="learned", data=codec.encode_chunk(array), values=array, face3=codec,
            face2=NumcodecsLearned(**shared.configuration()),
        )  # fmt: skip
    return found


def _with_gaps(counts: Array, mark: float) -> Array:
    counts = counts.copy()
    counts[:, 1, 1:4], counts[5, 3, 3], counts[60, 0, 0] = mark, mark, mark
    return counts


def _pca() -> dict[str, Specimen]:
    random = np.random.default_rng(12)
    rate = random.random((70, 3)) @ random.gamma(0.7, 2.0, (3, 20)) * 4
    counts = random.poisson(rate).reshape(70, 4, 5)
    counts[3, 2, 2] = 100_000
    model = LowRankModel.from_basis(exact_basis(counts, rank=2))
    array = counts.astype(np.uint32)
    cases: dict[str, tuple[Any, Array]] = {
        "none": ("none", array),
        "none floats": ("none", array.astype(np.float32)),
        "bounded": ("bounded", array),
        "lossless": ("lossless", array),
        "whole": ("lossless", counts[:9].astype(np.int32) - 3),
        "marked none": ("none", _with_gaps(counts.astype(np.int32), -1)),
        "marked bounded": ("bounded", _with_gaps(array, 2**32 - 1)),
        "marked lossless": ("lossless", _with_gaps(array.astype(np.float64), np.nan)),
    }
    found = {}
    gain = random.normal(0.4, 0.05, 20).astype(np.float32)
    floats = _with_gaps(counts.astype(np.float32) * gain.reshape(4, 5), np.nan)
    # So many pixels that a pattern tells its scale.
    doses = random.normal(1, 0.05, (10, 1, 1)).astype(np.float32)
    added = IntegerCalibration(offset=random.integers(0, 9, 20))
    cases["mapped offsets"] = "bounded", counts + added.offset.reshape(4, 5) + random.integers(0, 9, (70, 1, 1))
    cases |= {
        "mapped none": ("none", floats), "mapped bounded": ("bounded", floats), "mapped lossless": ("lossless", floats),
        "mapped doses": ("bounded", floats.reshape(10, 28, 5) / doses),
    }  # fmt: skip
    wide = LowRankModel.from_basis(exact_basis(counts.reshape(10, 28, 5), rank=2))
    for name, (residual, values) in cases.items():
        scaled = name.endswith("doses")
        calibration = FloatCalibration(gain=np.tile(gain, 7 if scaled else 1).astype(np.float64), scale_divides=True)
        used, alone = (added, True) if name.endswith("offsets") else (calibration, scaled)
        mapped = _map_of(used, values.shape[-2:], scaled=alone) if name.startswith("mapped") else None
        codec = Pca.from_model(wide if scaled else model, residual=residual, map=mapped)
        data = codec.encode_chunk(values)
        found[f"pca {name}"] = Specimen(
            family="pca", data=data, values=codec.decode_chunk(data), face3=codec,
            face2=NumcodecsPca(**codec.configuration()),
        )  # fmt: skip
    return found


def _tcs() -> dict[str, Specimen]:
    random = np.random.default_rng(13)
    movie = random.poisson(random.gamma(4.0, 5.0, (20, 18)), (7, 20, 18)).astype(np.uint8)
    cut = movie.copy()
    cut[2:] = 255 - movie[2:, ::-1]
    bins = {"measurement": "bins", "time_bins": 2, "space_bins": 2, "decoder": "interpolate"}
    cases: dict[str, tuple[dict[str, Any], Array]] = {
        "tiled": ({}, movie),
        "random steps": ({"measurement": "random", "seed": 5, "step": 4}, movie),
        "bins": (bins, movie),
        "sixteen bits": ({}, movie.astype(np.uint16) * 200),
        "cut": ({}, cut),
        "sums": ({"decoder": "measurement"}, cut),
    }
    found = {}
    for name, (options, array) in cases.items():
        written = Tcs(frames=4, **{k: v for k, v in options.items() if v != "measurement"})
        data = written.encode_chunk(np.stack([array, array[::-1]]))
        codec = Tcs(frames=4, **options)
        found[f"tcs {name}"] = Specimen(
            family="tcs", data=data, values=codec.decode_chunk(data), face3=codec,
            face2=NumcodecsTcs(**codec.configuration()),
        )  # fmt: skip
    return found


@cache
def all_specimens() -> dict[str, Specimen]:
    """Every specimen by name."""
    makers: tuple[Callable[[], dict[str, Specimen]], ...] = (
        _pixel_histogram,
        _poisson,
        _bit_pack,
        _learned,
        _pca,
        _tcs,
    )
    # Tiny arrays would be stored by the generic coder otherwise.
    with mock.patch.object(encode, "SMALL", 0):
        return {name: specimen for make in makers for name, specimen in make().items()}


def bits(array: Array) -> bytes:
    """Values bit by bit, however they lie in memory."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("=")).tobytes()


def check_specimens() -> None:
    """Every specimen is whole, by every way to read it."""
    for name, specimen in all_specimens().items():
        expected = specimen.values
        assert bits(specimen.whole(specimen.data)) == bits(expected), name
        assert bits(specimen.numcodecs(specimen.data, None)) == bits(expected), name
        if specimen.partial:
            selection = (slice(0, 1),)
            found = asyncio.run(specimen.part(specimen.data, selection, None))
            assert bits(found) == bits(expected[selection]), name
