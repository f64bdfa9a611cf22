"""Networks of architecture ``l3c``: lossless whatever they predict, alike on every path, refused where impossible."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stemcodecs.codecs import Learned
from stemcodecs.entropy.chunk.header import read_header
from stemcodecs.entropy.kernels.threads import set_threads
from stemcodecs.errors import ConfigurationError, CorruptChunkError
from stemcodecs.learned.context_model import Dense
from stemcodecs.learned.describe import describe_learned
from stemcodecs.learned.l3c_model import L3cModel
from stemcodecs.learned.l3c_model_bytes import read_l3c, write_l3c
from stemcodecs.learned.path import available
from stemcodecs.learned.prefix import HISTOGRAMS, LENGTH, NETWORK, read_prefix
from tests import learned_format_decoder
from tests.learned.random_l3c import l3c_chunk, random_l3c, shared_l3c
from tests.strategies import CAMPAIGN_SHARE, DTYPES, same_bits, scans, simulated_scan

Array = np.ndarray[Any, Any]


def examples(n: int) -> settings:
    return settings(max_examples=n, suppress_health_check=[HealthCheck.function_scoped_fixture])


def counts(*shape: int, mean: float = 6.0, seed: int = 1) -> Array:
    """With a pixel that is always the same, and one that is always zero but for once."""
    out = simulated_scan(shape, mean, seed)
    out[..., 0], out[..., -1, -1] = 0, 7
    out[(0,) * len(shape)] = 100
    return out


def network(array: Array, seed: int = 2) -> L3cModel:
    found = random_l3c(array, seed)
    assert found is not None
    return found


def coded(array: Array, seed: int = 2) -> bytes:
    data = l3c_chunk(array, network(array, seed))
    assert data is not None
    return data


def any_network(array: Array, seed: int) -> None:
    model = random_l3c(array, seed, wild=True)
    data = None if model is None else l3c_chunk(array, model)
    if data is not None:
        decoded = Learned().decode_chunk(data)
        assert same_bits(decoded, array)
        assert decoded.flags.f_contiguous == array.flags.f_contiguous


@pytest.mark.slow
@examples(60)
@given(array=scans(), seed=st.integers(0, 2**32 - 1))
def test_any_network_is_lossless(array: Array, seed: int) -> None:
    any_network(array, seed)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@examples(2_000 // CAMPAIGN_SHARE)
@given(array=scans(), seed=st.integers(0, 2**32 - 1))
def test_2_000_networks(array: Array, seed: int) -> None:
    any_network(array, seed)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype: str) -> None:
    array = counts(70, 7, 6).astype(dtype)
    model = network(array)
    data = l3c_chunk(array, model)
    assert data is not None
    assert same_bits(Learned().decode_chunk(data), array)
    codec = Learned(**shared_l3c(model).configuration())
    assert same_bits(codec.decode_chunk(codec.encode_chunk(array)), array)


@pytest.mark.parametrize("shape", [(3, 1, 1), (65, 1, 9), (2, 2, 9, 1), (70, 5), (9,), (1, 17, 16)])
@pytest.mark.parametrize("seed", [2, 3])
def test_every_shape(shape: tuple[int, ...], seed: int) -> None:
    array = simulated_scan(shape, 30.0, seed).astype(np.uint16)
    assert same_bits(Learned().decode_chunk(coded(array, seed)), array)


def test_values_beyond_their_windows_are_patched() -> None:
    array = counts(70, 8, 8, mean=1.0).astype(np.int32)
    array[3, 4:6, 2:5], array[69, 7, 7], array[5, 0, 0] = 60000, 2**31 - 1, -5
    data = coded(array)
    assert same_bits(Learned().decode_chunk(data), array)
    assert any(group.patches for group in read_header(data[LENGTH:]).groups)


@pytest.mark.slow
def test_instruction_paths_and_threads_write_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    array, chunks = counts(130, 9, 11, mean=300.0).astype(np.uint16), set()
    before = set_threads(1)
    try:
        for name in available():
            for threads in (1, 2):
                monkeypatch.setenv("STEMCODECS_SIMD", name)
                set_threads(threads)
                chunks.add(coded(array, 4))
    finally:
        set_threads(before)
    assert len(chunks) == 1


@pytest.mark.slow
def test_every_path_reads_what_another_wrote(path: str) -> None:
    array = counts(70, 9, 11, mean=300.0).astype(np.uint16)
    assert same_bits(Learned().decode_chunk(coded(array, 4)), array)


@pytest.mark.parametrize("seed", range(4))
def test_independent_decoder_reads_random_networks(seed: int) -> None:
    """Levels of every pixel (even seeds) and one for all, small weights and any: written from FORMAT.md alone."""
    array = counts(66, 4, 5, mean=900.0 if seed == 3 else 3.0).astype(np.int32) - 1
    model = random_l3c(array, seed, wild=seed > 1)
    assert model is not None
    data = l3c_chunk(array, model)
    assert data is not None
    assert same_bits(learned_format_decoder.decode(data).astype(array.dtype), array)


def test_latents_say_what_their_encoder_saw() -> None:
    """Another encoder gives other latents and other bytes, which the same predictors decode."""
    array = counts(64, 8, 8).astype(np.uint16)
    model = network(array)
    encoders = tuple(
        dataclasses.replace(
            stack,
            layers=(*stack.layers[:2], dataclasses.replace(stack.layers[2], weights=-stack.layers[2].weights)),
        )
        for stack in model.encoders
    )
    other = dataclasses.replace(model, encoders=encoders)
    one, two = l3c_chunk(array, model), l3c_chunk(array, other)
    assert one is not None
    assert two is not None
    assert one != two
    for data in (one, two):
        assert same_bits(Learned().decode_chunk(data), array)


def test_data_that_a_network_does_not_fit_are_coded_by_histograms() -> None:
    array = counts(66, 8, 8, mean=0.2).astype(np.uint16)
    codec = Learned(**shared_l3c(network(array)).configuration())
    bright = np.random.default_rng(1).poisson(np.linspace(1, 60000, 64).reshape(8, 8), (70, 8, 8))
    for other in (
        bright.clip(0, 65535).astype(np.uint16),
        np.random.default_rng(0).normal(size=(70, 8, 8)).astype(np.float32),
        np.zeros((0, 8, 8), np.int16),
    ):
        data = codec.encode_chunk(other)
        assert read_prefix(data) == HISTOGRAMS
        assert same_bits(codec.decode_chunk(data), other)


def test_chunks_need_their_own_network_and_the_whole_detector() -> None:
    array = counts(66, 8, 8).astype(np.uint16)
    codec, other = (Learned(**shared_l3c(network(array, seed)).configuration()) for seed in (2, 4))
    data = codec.encode_chunk(array)
    assert read_prefix(data) == NETWORK
    for wrong in (other, Learned()):
        with pytest.raises(CorruptChunkError, match="another shared model"):
            wrong.decode_chunk(data)
    with pytest.raises(ConfigurationError, match="chunks must span the whole detector"):
        codec.encode_chunk(array[..., :5])


def test_network_bytes_come_back() -> None:
    array = counts(66, 8, 8).astype(np.uint16)
    data = write_l3c(network(array))
    assert write_l3c(read_l3c(data, (8, 8))) == data
    for end in range(len(data)):
        with pytest.raises(CorruptChunkError):
            read_l3c(data[:end], (8, 8))
    with pytest.raises(CorruptChunkError):
        read_l3c(data + b"\0", (8, 8))
    with pytest.raises(CorruptChunkError):
        read_l3c(data, (8, 9))


@pytest.mark.parametrize(
    "change",
    [
        {"gain": 0}, {"gain": 40000}, {"level_gain": 0}, {"level_offset": 40000}, {"latents": 3}, {"latents": 10},
        {"level_scale": 0}, {"level_scale": 1 << 48}, {"encoders": ()}, {"predictors": ()},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_networks_are_refused(change: dict[str, Any]) -> None:
    model = network(counts(66, 8, 8).astype(np.uint16))
    if change.get("predictors") == ():
        change = {"predictors": model.predictors[:-1]}
    with pytest.raises(CorruptChunkError, match="impossible network"):
        dataclasses.replace(model, **change).check()


@pytest.mark.parametrize("wrong", ["weights", "bias", "shift", "shape"])
@pytest.mark.parametrize("layer", range(3))
def test_impossible_layers_are_refused(wrong: str, layer: int) -> None:
    model = network(counts(66, 8, 8).astype(np.uint16))
    stack = model.predictors[1]
    one = stack.layers[layer]
    changed: dict[str, Dense] = {
        "weights": dataclasses.replace(one, weights=one.weights + 40000),
        "bias": dataclasses.replace(one, bias=one.bias + 2**31),
        "shift": dataclasses.replace(one, shift=32),
        "shape": dataclasses.replace(one, weights=one.weights[:, 1:]),
    }
    layers = [changed[wrong] if k == layer else each for k, each in enumerate(stack.layers)]
    predictors = (model.predictors[0], dataclasses.replace(stack, layers=tuple(layers)), *model.predictors[2:])
    with pytest.raises(CorruptChunkError, match="impossible network"):
        dataclasses.replace(model, predictors=predictors).check()


def test_truncated_chunks_are_refused() -> None:
    data = coded(counts(66, 5, 6).astype(np.uint16))
    for end in range(0, len(data), 97):
        with pytest.raises(CorruptChunkError):
            Learned().decode_chunk(data[:end])
    with pytest.raises(CorruptChunkError):
        Learned().decode_chunk(data + b"\0")


def test_what_a_chunk_takes_adds_up() -> None:
    array = counts(130, 9, 8).astype(np.uint16)
    data = coded(array)
    detail = describe_learned(data)
    assert "L3C-mini" in detail.mode
    assert detail.bits is not None
    assert detail.bits[1:, 0].sum() == 0
    assert detail.bits[1:-1, 1:-1].min() > 0
    words = sum(group.words for group in read_header(data[LENGTH:]).groups)
    latents = float(detail.mode.rpartition("latents take ")[2].split()[0])
    assert (detail.bits.sum() + latents * 72) * 130 / 8 == pytest.approx(words, rel=0.05)


def test_four_blocks_of_states() -> None:
    """Groups of many bytes take all of them."""
    array = np.random.default_rng(0).poisson(3000, (66, 40, 40)).astype(np.uint16)
    data = coded(array, 20)
    assert read_header(data[LENGTH:]).blocks == 4
    assert same_bits(Learned().decode_chunk(data), array)
