"""The codec ``stemcodecs.pca`` through both Zarr formats: guarantees, configuration, damage."""

from __future__ import annotations

import functools
import gc
import json
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from zarr.testing.strategies import basic_indices, orthogonal_indices

from stemcodecs.codecs.pca import NumcodecsPca, Pca
from stemcodecs.counts.counts_map import CountsMap
from stemcodecs.entropy.values.calibration import FloatCalibration, IntegerCalibration
from stemcodecs.errors import (
    ConfigurationError,
    CorruptChunkError,
    FormatVersionError,
    UnsupportedDtypeError,
)
from stemcodecs.last_used import LastUsed
from stemcodecs.lowrank import LowRankModel, exact_basis, low_rank_model, open_with_model, rates, write_model
from stemcodecs.lowrank.stored_model import model_key
from tests.lowrank.process import forget_models
from tests.strategies import same_bits

Array = np.ndarray[Any, Any]
DETECTOR = (7, 6)


def simulated(positions: int = 150, mean: float = 4.0, seed: int = 0) -> Array:
    generator = np.random.default_rng(seed)
    rate = generator.random((positions, 3)) @ generator.gamma(0.7, 2.0, (3, 42)) * mean / 2
    return generator.poisson(rate).reshape(positions, *DETECTOR)


MODEL = LowRankModel.from_basis(exact_basis(simulated(), rank=3))
LINEAR = LowRankModel.from_basis(exact_basis(simulated(), rank=3, stabilised=False, centred=False))


@pytest.fixture(autouse=True)
def quiet_zarr() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        yield


@pytest.mark.parametrize("model", [MODEL, LINEAR], ids=["stabilised", "linear"])
@pytest.mark.parametrize("dtype", ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">u2", ">f4"])
@pytest.mark.parametrize("residual", ["none", "bounded", "lossless"])
def test_every_dtype(model: LowRankModel, dtype: str, residual: Any) -> None:
    chunk = simulated()[:70].reshape(7, 10, *DETECTOR).astype(dtype)
    codec = Pca.from_model(model, residual=residual)
    decoded = codec.decode_chunk(codec.encode_chunk(chunk))
    assert decoded.shape == chunk.shape
    assert decoded.dtype == chunk.dtype.newbyteorder("=")
    error = np.abs(decoded.astype(np.float64) - chunk.astype(np.float64))
    if residual == "lossless":
        assert error.max() == 0
    elif residual == "bounded":
        assert (error <= 0.5 * np.sqrt(chunk.astype(np.float64))).all()
    elif dtype != "?":
        # Denoised: nearer to the counts than noise of its own would be.
        assert error.std() < 1.2 * np.sqrt(chunk.astype(np.float64).mean())


@pytest.mark.parametrize(
    "values",
    [
        np.full((3, *DETECTOR), -1, np.int32),
        np.full((3, *DETECTOR), 2**63 + 11, np.uint64),
        np.full((3, *DETECTOR), 2**31 - 1, np.int64),
        np.array([0.5, np.nan, np.inf, -0.0, -3.0, 7.0] * 7, np.float32).reshape(1, *DETECTOR),
        np.array([0.0, -0.0, 1.0] * 14).reshape(1, *DETECTOR),
        np.zeros((4, *DETECTOR), np.uint16),
    ],
    ids=["gaps", "huge", "far", "floats", "minus-zero", "zeros"],
)
@pytest.mark.parametrize("residual", ["bounded", "lossless"])
def test_what_is_not_counts_is_kept_bit_by_bit(values: Array, residual: Any) -> None:
    codec = Pca.from_model(MODEL, residual=residual)
    assert codec.decode_chunk(codec.encode_chunk(values)).tobytes() == values.tobytes()


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    positions=st.integers(1, 140),
    mean=st.sampled_from([0.01, 1.0, 200.0, 4000.0]),
    bound=st.sampled_from([0.1, 0.5, 1.0, 2.5]),
)
def test_guarantees_hold_on_scans_unlike_the_fitted_one(seed: int, positions: int, mean: float, bound: float) -> None:
    counts = simulated(positions, mean, seed).clip(0, 65535).astype(np.uint16)
    lossless = Pca.from_model(MODEL, residual="lossless")
    assert np.array_equal(lossless.decode_chunk(lossless.encode_chunk(counts)), counts)
    bounded = Pca.from_model(MODEL, residual="bounded", bound=bound)
    decoded = bounded.decode_chunk(bounded.encode_chunk(counts)).astype(np.float64)
    assert (np.abs(decoded - counts) <= bound * np.sqrt(counts) * (1 + 1e-12)).all()


def test_residual_none_refuses_what_it_cannot_represent() -> None:
    codec = Pca.from_model(MODEL)
    noise = np.random.default_rng(0).normal(0, 9, (40, *DETECTOR))
    with pytest.raises(ConfigurationError, match="negative"):
        codec.encode_chunk(noise.round().astype(np.int16))
    with pytest.raises(ConfigurationError, match="NaN"):
        codec.encode_chunk(np.where(noise > 0, np.float32(np.nan), np.float32(1)))
    with pytest.raises(ConfigurationError, match="7 × 6"):
        codec.encode_chunk(np.zeros((3, 6, 7), np.uint8))
    with pytest.raises(UnsupportedDtypeError):
        codec.encode_chunk(np.zeros((3, *DETECTOR), complex))


def test_rates_in_floats_integers_rounded() -> None:
    counts = simulated(20)
    codec = Pca.from_model(MODEL)
    exact = codec.decode_chunk(codec.encode_chunk(counts.astype(np.float32)))
    rounded = codec.decode_chunk(codec.encode_chunk(counts.astype(np.uint16)))
    assert exact.min() >= 0
    assert np.array_equal(np.floor(exact + 0.5), rounded)
    assert not np.array_equal(exact, rounded)


@pytest.mark.parametrize("shards", [None, (16, *DETECTOR)])
def test_rates_of_an_array_of_counts(shards: tuple[int, ...] | None) -> None:
    counts = simulated(30, 0.3).astype(np.uint16)
    codec = Pca.from_model(MODEL)
    store: dict[str, Any] = {}
    array = zarr.create_array(
        store, shape=counts.shape, chunks=(8, *DETECTOR), shards=shards, dtype="u2", serializer=codec, compressors=None
    )
    array[:] = counts
    unrounded = rates(array)
    assert (unrounded.dtype, unrounded.shape) == (np.float32, counts.shape)
    assert np.array_equal(np.floor(unrounded[:] + 0.5), array[:])  # type: ignore[operator]
    assert not np.array_equal(unrounded[3:9], array[3:9])
    # What rounding to counts loses of a sparse scan.
    total = [float(np.asarray(a[:], np.float64).sum()) / counts.sum() for a in (unrounded, array)]
    assert abs(total[0] - 1) < 0.1 < abs(total[1] - 1)
    with pytest.raises(ValueError, match="read-only"):
        unrounded[0] = 1.0
    exact = zarr.create_array(
        {}, shape=(4, *DETECTOR), dtype="u2", serializer=Pca.from_model(MODEL, residual="lossless"), compressors=None
    )
    for other in (exact, zarr.create_array({}, shape=(4, 4), dtype="u2")):
        with pytest.raises(ConfigurationError, match="without a residual"):
            rates(other)


def test_configuration_round_trip_and_guarantee() -> None:
    options: list[tuple[dict[str, Any], str]] = [
        ({}, "no pointwise guarantee"),
        ({"residual": "bounded", "bound": 0.25}, "|N' - N| <= 0.25 * sqrt(N)"),
        ({"residual": "lossless"}, "restored exactly"),
    ]
    for chosen, words in options:
        codec = Pca.from_model(MODEL, **chosen)
        stored = json.loads(json.dumps(codec.to_dict()))
        assert words in stored["configuration"]["guarantee"]
        again = Pca.from_dict(stored)
        assert again.to_dict() == stored
        assert again == codec
    assert len(repr(codec)) < 300
    assert Pca.from_model(MODEL) == Pca(sha256=MODEL.digest)
    assert Pca.from_model(MODEL) != Pca.from_model(LINEAR)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"residual": "some"}, ConfigurationError),
        ({"bound": 0}, ConfigurationError),
        ({"sha256": "12"}, ConfigurationError),
        ({"colour": 1}, ConfigurationError),
        ({"version": 2}, FormatVersionError),
    ],
)
def test_bad_configurations(change: dict[str, Any], error: type[Exception]) -> None:
    configuration = Pca.from_model(MODEL).configuration() | change
    with pytest.raises(error):
        Pca.from_dict({"name": "stemcodecs.pca", "configuration": configuration})  # type: ignore[dict-item]
    with pytest.raises(ConfigurationError, match="sha256"):
        NumcodecsPca()


@pytest.mark.parametrize("kind", ["low-rank", "whole"])
def test_every_truncation_and_mutation_is_noticed(kind: str) -> None:
    codec = Pca.from_model(MODEL, residual="lossless")
    chunk = simulated(3).astype(np.float32) + (0.5 if kind == "whole" else 0)
    data = codec.encode_chunk(chunk)
    for size in range(len(data)):
        with pytest.raises(CorruptChunkError):
            codec.decode_chunk(data[:size])
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 0x41
        with pytest.raises((CorruptChunkError, FormatVersionError)):
            codec.decode_chunk(bytes(broken))


def test_chunk_of_another_model() -> None:
    data = Pca.from_model(LINEAR).encode_chunk(simulated(5))
    with pytest.raises(CorruptChunkError, match="another PCA model"):
        Pca.from_model(MODEL).decode_chunk(data)


@pytest.mark.parametrize("shards", [None, (16, *DETECTOR)])
def test_zarr_3(shards: tuple[int, ...] | None) -> None:
    counts = simulated(30).astype(np.uint16)
    array = zarr.create_array(
        {},
        shape=counts.shape,
        chunks=(8, *DETECTOR),
        shards=shards,
        dtype=counts.dtype,
        serializer=Pca.from_model(MODEL, residual="lossless"),
        compressors=None,
    )
    array[:] = counts
    assert np.array_equal(array[:], counts)
    assert np.array_equal(array[5:9, 2, 3], counts[5:9, 2, 3])


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(data=st.data(), residual=st.sampled_from(["none", "lossless"]))
def test_any_selection_is_that_of_the_whole_array(data: st.DataObject, residual: Any) -> None:
    """Zarr decodes a selection of a chunk by groups of patterns."""
    array = selectable(residual)
    whole = WHOLE[residual]
    selection = data.draw(basic_indices(shape=array.shape, allow_ellipsis=False))
    assert np.array_equal(array[selection], whole[selection])
    index, picked = data.draw(orthogonal_indices(shape=array.shape))
    assert np.array_equal(array.oindex[index], whole[picked])


WHOLE: dict[str, Array] = {}


@functools.cache
def selectable(residual: Any) -> Any:
    """Chunks of several groups of 64 patterns, with edges."""
    counts = simulated(19 * 23, 6.0).reshape(19, 23, *DETECTOR).astype(np.uint16)
    codec = Pca.from_model(MODEL, residual=residual)
    array = zarr.create_array(
        {}, shape=counts.shape, chunks=(12, 15, *DETECTOR), dtype="u2", serializer=codec, compressors=None
    )
    array[:] = counts
    WHOLE[residual] = array[:]
    assert residual == "none" or np.array_equal(WHOLE[residual], counts)
    return array


def test_one_pattern_decodes_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    array = selectable("lossless")
    predicted: list[int] = []
    predict = LowRankModel.predict

    def noted(model: LowRankModel, coefficients: Array) -> Array:
        predicted.append(len(coefficients))
        return predict(model, coefficients)

    monkeypatch.setattr(LowRankModel, "predict", noted)
    assert np.array_equal(array[3, 4], WHOLE["lossless"][3, 4])
    assert predicted == [64]


def test_zarr_3_refuses_another_detector_when_the_array_is_created() -> None:
    with pytest.raises(ConfigurationError, match="7 × 6"):
        zarr.create_array({}, shape=(9, 8, 6), dtype="u2", serializer=Pca.from_model(MODEL), compressors=None)


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_zarr_2(order: Any, dtype: str) -> None:
    counts = simulated(30).astype(dtype)
    configuration = Pca.from_model(MODEL, residual="lossless").configuration()
    array = zarr.create_array(
        {},
        shape=counts.shape,
        chunks=(8, *DETECTOR),
        dtype=counts.dtype,
        zarr_format=2,
        order=order,
        compressors=NumcodecsPca(**configuration),
    )
    array[:] = counts
    assert np.array_equal(array[:], counts)


def test_numcodecs_registry() -> None:
    codec = NumcodecsPca(**Pca.from_model(MODEL, residual="lossless").configuration())
    numcodecs.register_codec(NumcodecsPca)
    again = numcodecs.get_codec(json.loads(json.dumps(codec.get_config())))
    counts = simulated(9).astype(np.uint16)
    out = np.empty_like(counts)
    again.decode(codec.encode(counts), out=out)
    assert np.array_equal(out, counts)


@pytest.mark.slow
def test_a_fresh_process_needs_no_import(tmp_path: Path) -> None:
    counts = simulated(12).astype(np.uint16)
    codec = Pca.from_model(MODEL, residual="lossless")
    zarr.create_array(tmp_path / "a.zarr", data=counts, serializer=codec, compressors=None)
    assert sum_elsewhere(tmp_path / "a.zarr") == counts.sum()


def sum_elsewhere(place: Path) -> int:
    """Of an array that a process of its own opens with Zarr alone."""
    program = (
        "import sys, warnings; warnings.simplefilter('ignore'); import zarr; "
        "print(int(zarr.open(sys.argv[1], mode='r')[:].astype('i8').sum()))"
    )
    result = subprocess.run([sys.executable, "-c", program, str(place)], capture_output=True, text=True, check=True)
    return int(result.stdout)


@pytest.mark.slow
@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("nested", ["", "deep/down"])
def test_zarr_finds_a_model_beside_the_array(nested: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, and in one that imports nothing but Zarr."""
    counts = simulated(40).astype(np.uint16)
    root = zarr.create_group(tmp_path / "a.zarr")
    write_model(root, MODEL)
    folder = root.create_group(nested) if nested else root
    codec = Pca(sha256=MODEL.digest, residual="lossless")
    array = folder.create_array(
        "data", shape=counts.shape, chunks=(9, *DETECTOR), dtype="u2", serializer=codec, compressors=None
    )
    array[:] = counts
    assert sum_elsewhere(tmp_path / "a.zarr" / nested / "data") == counts.sum()
    forget_models(monkeypatch)
    assert np.array_equal(
        zarr.open_group(tmp_path / "a.zarr", mode="r")[f"{nested}/data".strip("/")][3:20], counts[3:20]
    )


@pytest.mark.usefixtures("pipeline")
def test_model_beside_a_sharded_array_needs_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zarr does not say where a shard's chunk lies; the message names the reader, which reads it."""
    counts = simulated(40).astype(np.uint16)
    root = zarr.create_group({})
    write_model(root, MODEL)
    codec = Pca(sha256=MODEL.digest, residual="lossless")
    array = root.create_array(
        "data", shape=counts.shape, chunks=(5, *DETECTOR), shards=(20, *DETECTOR), dtype="u2", serializer=codec,
        compressors=None,
    )  # fmt: skip
    array[:] = counts
    forget_models(monkeypatch)
    with pytest.raises(ConfigurationError, match="open_with_model"):
        root["data"][:]
    assert np.array_equal(open_with_model(root)[:], counts)


@pytest.mark.usefixtures("pipeline")
def test_damaged_or_missing_models_beside_the_array(monkeypatch: pytest.MonkeyPatch) -> None:
    store: dict[str, Any] = {}
    root = zarr.create_group(store)
    write_model(root, MODEL)
    codec = Pca(sha256=MODEL.digest)
    array = root.create_array("data", shape=(9, *DETECTOR), dtype="u2", serializer=codec, compressors=None)
    array[:] = simulated(9).astype(np.uint16)
    forget_models(monkeypatch)
    key = f"{model_key(MODEL.digest)}/c/0"
    whole = store[key]
    for broken in (whole[:-9], whole[:50] + whole[51:] + whole[:1]):
        store[key] = broken
        with pytest.raises(CorruptChunkError):
            root["data"][:]
        with pytest.raises(CorruptChunkError):
            open_with_model(root)
    del root["models"]
    with pytest.raises(ConfigurationError, match="not found"):
        root["data"][:]
    with pytest.raises(ConfigurationError, match="copied without"):
        open_with_model(root)


@pytest.mark.slow
def test_a_model_in_use_stays_and_others_go(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_models(monkeypatch)
    monkeypatch.setattr(low_rank_model, "_kept", LastUsed(1))
    counts = simulated(9).astype(np.uint16)
    codec = Pca(sha256=LowRankModel.from_bytes(MODEL.to_bytes()).keep().digest, residual="lossless")
    LINEAR.keep()
    gc.collect()
    # Nothing but the codec holds the model now, and an equal codec finds it there.
    assert np.array_equal(codec.decode_chunk(codec.encode_chunk(counts)), counts)
    assert np.array_equal(Pca.from_dict(codec.to_dict()).decode_chunk(codec.encode_chunk(counts)), counts)
    # It does not travel with the codec.
    assert len(pickle.dumps(codec)) < 500
    assert pickle.loads(pickle.dumps(codec)) == codec
    del codec
    gc.collect()
    assert LowRankModel.kept(MODEL.digest) is None


FIXTURES = Path(__file__).parent.parent / "fixtures" / "pca"
GOLDEN = {
    ("v1", "none"): "none",
    ("v1", "bounded"): "bounded",
    ("v1", "lossless"): "lossless",
    ("v1", "whole"): "lossless",
    ("v2", "gaps_none"): "none",
    ("v2", "gaps_bounded"): "bounded",
    ("v2", "nan_lossless"): "lossless",
    ("v3", "gain_none"): "none",
    ("v3", "steps_none"): "none",
    ("v3", "monitor_bounded"): "bounded",
    ("v3", "monitor_lossless"): "lossless",
}


def golden_chunk(name: str) -> Array:
    counts = np.load(FIXTURES / "v1" / "counts.npy")
    if name.startswith("gaps"):
        return marked(counts.astype(np.int32), -1)
    if name.startswith("nan"):
        return marked(counts.astype(np.float32), np.nan)
    if name.startswith(("gain", "monitor")):
        scaled = counts.astype(np.float32) * golden_gain()
        if name.startswith("monitor"):
            scaled /= np.random.default_rng(8).normal(1, 0.05, (*counts.shape[:2], 1, 1)).astype(np.float32)
        return marked(scaled, np.nan)
    if name.startswith("steps"):
        return marked(17 * counts.astype(np.int32) + 100, -1)
    return counts.astype(np.float32) + np.float32(0.25) if name == "whole" else counts


def golden_gain() -> Array:
    return np.random.default_rng(7).normal(0.4, 0.05, (7, 6)).astype(np.float32)


def golden_map(name: str) -> str | None:
    """How its values become counts."""
    calibration: Any = {
        "gain": FloatCalibration(gain=golden_gain().reshape(-1).astype(np.float64)),
        "monitor": FloatCalibration(gain=golden_gain().reshape(-1).astype(np.float64), scale_divides=True),
        "steps": IntegerCalibration(gain=np.full(42, 17), offset=np.full(42, 100)),
    }.get(name.split("_")[0])
    if calibration is None:
        return None
    nothing, scaled = np.zeros(42, np.int64), name.startswith("monitor")
    return CountsMap(detector=(7, 6), calibration=calibration, zero=nothing, scaled=scaled).to_uri()


def marked(counts: Array, mark: float) -> Array:
    """A dead column, and here and there a value that is none."""
    counts = counts.copy()
    counts[..., 2], counts[..., 3, 4] = mark, mark
    counts.reshape(-1)[::997] = mark
    counts[-1] = 0
    return counts


@pytest.mark.parametrize(("version", "name"), GOLDEN, ids="-".join)
def test_golden_bytes(version: str, name: str) -> None:
    folder = FIXTURES / version
    configuration = json.loads((folder / f"{name}.json").read_text())
    codec = Pca.from_dict({"name": "stemcodecs.pca", "configuration": configuration})
    data = (folder / f"{name}.chunk").read_bytes()
    assert data[4] == int(version[1:])
    decoded = codec.decode_chunk(data)
    assert same_bits(decoded, np.load(folder / f"{name}.npy"))
    if GOLDEN[version, name] == "lossless":
        assert same_bits(decoded, golden_chunk(name))


def test_mapped_chunks_need_their_map() -> None:
    """Counts mean nothing without the very map, and damage is found at every byte."""
    values = golden_chunk("monitor_bounded")
    codec = Pca.from_model(MODEL, residual="bounded", map=golden_map("monitor"))
    data = codec.encode_chunk(values)
    for wrong in (None, golden_map("gain")):
        with pytest.raises(CorruptChunkError):
            Pca.from_model(MODEL, residual="bounded", map=wrong).decode_chunk(data)
    for n in range(0, len(data), 7):
        with pytest.raises(CorruptChunkError):
            codec.decode_chunk(data[:n])
    with pytest.raises(CorruptChunkError, match="do not agree"):
        codec.decode_chunk(Pca.from_model(MODEL, residual="bounded").encode_chunk(golden_chunk("counts")))
    with pytest.raises(ConfigurationError, match="not one of uint16"):
        codec.encode_chunk(golden_chunk("counts"))
    # What the map does not give is stored whole, and restored exactly.
    others = np.random.default_rng(3).normal(3, 1, values.shape).astype(np.float32)
    assert same_bits(codec.decode_chunk(codec.encode_chunk(others)), others)
    other = NumcodecsPca(**codec.configuration())
    for laid_out in (values, np.asfortranarray(values), values.astype(">f4")):
        back = other.decode(other.encode(laid_out))
        assert back.flags.f_contiguous == laid_out.flags.f_contiguous
        assert back.astype(np.float32).tobytes() == codec.decode_chunk(data).tobytes()


def write_golden_bytes() -> None:
    """Only for a new format version: ``python -m tests.codecs.test_pca``; fixtures of old
    versions stay.
    """
    for (version, name), residual in GOLDEN.items():
        folder = FIXTURES / version
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / f"{name}.chunk").exists():
            continue
        codec = Pca.from_model(MODEL, residual=residual, map=golden_map(name))  # type: ignore[arg-type]
        data = codec.encode_chunk(golden_chunk(name))
        (folder / f"{name}.json").write_text(json.dumps(codec.configuration()))
        (folder / f"{name}.chunk").write_bytes(data)
        np.save(folder / f"{name}.npy", codec.decode_chunk(data))


if __name__ == "__main__":
    write_golden_bytes()
