"""Images of movies and tilt series: bit for bit on every path, below what knows patterns only, and one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemcodecs.codecs import Learned
from stemcodecs.entropy.chunk.header import read_header
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.errors import ConfigurationError, CorruptChunkError
from stemcodecs.learned.describe import describe_learned
from stemcodecs.learned.fit import NetworkOptions
from stemcodecs.learned.fit_images import _training_data, fit_images, image_layouts
from stemcodecs.learned.image_model import IMAGES, read_image_network, write_image_network
from stemcodecs.learned.prefix import LENGTH, NETWORK, read_prefix
from stemcodecs.simulate import simulate_tilt_series
from tests import learned_format_decoder
from tests.learned.random_networks import random_image_chunk, random_image_network
from tests.learned.test_lossless import TILES, examples, possible
from tests.strategies import CAMPAIGN_SHARE, same_bits, scans

Array = np.ndarray[Any, Any]


def tilt_series(images: int = 20, side: int = 60) -> Array:
    return simulate_tilt_series((images, side, side), seed=3).images


def extremes() -> Array:
    """Images with edges, flat places, and single pixels at both ends of 16 bits."""
    random = np.random.default_rng(7)
    array = random.poisson(900.0, (36, 7, 9)).astype(np.uint16)
    array[:, :3], array[:, 3:, 5:] = 4, random.integers(0, 65536, (36, 4, 4))
    array[5, 4, 1], array[:, 0, 0], array[7, 6, 8] = 65535, 65535, 0
    return array


@pytest.mark.slow
@examples(60)
@given(array=scans(), seed=st.integers(0, 2**32 - 1), tile=st.sampled_from(TILES))
def test_any_network_is_lossless(array: Array, seed: int, tile: tuple[int, int]) -> None:
    data = random_image_chunk(array, seed, tile if possible(tile, array.shape) else (1, 1))
    assert data is None or same_bits(Learned().decode_chunk(data), array)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@examples(3_000 // CAMPAIGN_SHARE)
@given(array=scans(), seed=st.integers(0, 2**32 - 1), tile=st.sampled_from(TILES))
def test_3_000_networks(array: Array, seed: int, tile: tuple[int, int]) -> None:
    data = random_image_chunk(array, seed, tile if possible(tile, array.shape) else (1, 1))
    assert data is None or same_bits(Learned().decode_chunk(data), array)


@pytest.mark.slow
def test_every_path_reads_what_another_wrote(path: str) -> None:
    data = random_image_chunk(extremes(), 3, (1, 2))
    assert data is not None
    assert same_bits(Learned().decode_chunk(data), extremes())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_independent_decoder_reads_random_networks(seed: int) -> None:
    array = extremes() if seed % 2 else extremes()[:30].astype(np.int32) - 100
    data = random_image_chunk(array, seed, (1, 2) if seed % 2 else (1, 1))
    assert data is not None
    assert same_bits(learned_format_decoder.decode(data).astype(array.dtype), np.ascontiguousarray(array))


@pytest.mark.parametrize("dtype", ["i2", "u1", ">i4"])
def test_fitted_images_of_every_dtype(dtype: str) -> None:
    array = (tilt_series().astype(np.int32) + 31_920).clip(0, 255).astype(dtype)
    array[3, 4, 5] = 250
    codec = Learned(steps=12, arch="images")
    assert same_bits(codec.decode_chunk(codec.encode_chunk(array)), array)


def test_a_tilt_series_is_smaller_than_by_patterns_and_the_choice_is_found() -> None:
    array = simulate_tilt_series((20, 60, 60), dose=3000.0, seed=3).images
    images, found, patterns = (
        Learned(steps=100, arch=arch).encode_chunk(array) for arch in ("images", "auto", "context")
    )
    assert len(images) < 0.97 * len(patterns)
    assert found == images
    assert read_prefix(found) == NETWORK
    assert read_header(found[LENGTH:]).model[0] == IMAGES


def test_patterns_are_not_taken_for_images() -> None:
    rate = np.random.default_rng(1).gamma(0.3, 2.0, (24, 24))
    array = np.random.default_rng(2).poisson(rate, (130, 24, 24)).astype(np.uint16)
    one, other = (Learned(steps=40, arch=arch).encode_chunk(array) for arch in ("auto", "context"))
    assert one == other


@pytest.mark.parametrize(("static", "length"), [(True, 2), (False, 1)])
def test_the_image_before_is_looked_at_where_it_helps(static: bool, length: int) -> None:
    random = np.random.default_rng(3)
    texture = random.integers(0, 200, (1 if static else 36, 24, 24))
    counts = (texture + random.integers(0, 4, (36, 24, 24))).astype(np.uint8).reshape(36, -1)
    layouts = image_layouts(GroupLayout.of_shape((36, 24, 24)), chains=True)
    assert fit_images(counts, layouts, NetworkOptions(steps=200)).layout.chain_length == length


def test_one_image_is_read_alone(tmp_path: Any) -> None:
    import zarr

    array = tilt_series(70, 32)
    store = zarr.create_array(
        tmp_path, shape=array.shape, chunks=array.shape, dtype=array.dtype, compressors=None,
        serializer=Learned(steps=40, arch="images"),
    )  # fmt: skip
    store[...] = array
    assert same_bits(np.asarray(zarr.open_array(tmp_path, mode="r")[66]), array[66])


def test_the_fit_and_the_coder_see_the_same_features() -> None:
    """Sizes that the fit estimates are those of the bytes: that needs the same features on both sides."""
    from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
    from stemcodecs.entropy.values.plane import to_plane
    from stemcodecs.learned.encode_groups import encode_groups
    from stemcodecs.learned.image_chain import UnrolledImages

    array = tilt_series(32, 64)
    plane = to_plane(array)
    assert plane is not None
    counts = plane.counts.reshape(32, -1)
    fit = fit_images(counts, image_layouts(GroupLayout.of_shape(array.shape), chains=True), NetworkOptions(steps=300))
    encoded = encode_groups(GroupedCounts(counts, fit.layout, 0), UnrolledImages(fit.model), plane)
    assert 8 * encoded.nbytes / array.size == pytest.approx(fit.bits, rel=0.01)


def test_what_a_chunk_says_of_itself() -> None:
    array = tilt_series()
    data = Learned(steps=100, arch="images").encode_chunk(array)
    detail = describe_learned(data)
    assert detail.mode == "network for images, of 16 and 16 units"
    assert "saved" in detail.classes[0].method
    assert detail.bits is not None
    words = len(data) - detail.header - detail.patches
    assert detail.bits.sum() * len(array) / 8 == pytest.approx(words, rel=0.02)


def test_damaged_networks_are_refused() -> None:
    layout = GroupLayout.of_shape((40, 12, 12), (1, 2))
    model = random_image_network(layout, np.random.default_rng(0))
    data = write_image_network(model)
    again = read_image_network(data, layout.detector)
    assert again.first == model.first
    assert again.neighbours == model.neighbours
    for end in range(len(data)):
        with pytest.raises(CorruptChunkError):
            read_image_network(data[:end], layout.detector)
    with pytest.raises(CorruptChunkError, match="unknown architecture"):
        read_image_network(b"\x01" + data[1:], layout.detector)


def test_a_first_pixel_beyond_sixteen_bits_is_refused() -> None:
    from dataclasses import replace

    model = random_image_network(GroupLayout.of_shape((40, 12, 12)), np.random.default_rng(0))
    with pytest.raises(CorruptChunkError, match="first pixel"):
        read_image_network(write_image_network(replace(model, first=65536)), (12, 12))


def test_unknown_architectures_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="arch 'movies' is unknown"):
        Learned(arch="movies")


def test_neighbours_stay_on_small_images() -> None:
    data = _training_data(np.zeros((40, 4), np.uint16), GroupLayout.of_shape((40, 4, 1)))
    assert all(abs(dx) == 0 for _, _, dx in data.neighbours.tolist())
