"""pixel_histogram under Zarr's own strategies: any array, chunking, shards, format and selection."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from tests.strategies import MODES, same_bits, scans, simulated_scan

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from zarr.testing.strategies import (
        basic_indices,
        chunk_shapes,
        np_array_and_chunks,
        orthogonal_indices,
        shard_shapes,
    )

from stemcodecs.codecs import NumcodecsPixelHistogram, PixelHistogram

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def _quiet_zarr() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        yield


def examples(n: int) -> settings:
    """Settings of a property that shares its fixtures between all examples."""
    return settings(max_examples=n, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def numeric(array: Array) -> bool:
    return array.dtype.kind in "biuf" and array.dtype.itemsize <= 8


def write(
    array: Array, chunks: tuple[int, ...], zarr_format: int = 3, shards: tuple[int, ...] | None = None, **kwargs: Any
) -> zarr.Array:
    """An array in memory, written whole, and opened anew."""
    store = MemoryStore()
    mode = kwargs.pop("mode", "auto")
    coding: dict[str, Any] = {"compressors": None, "serializer": PixelHistogram(mode=mode), "shards": shards}
    if zarr_format == 2:
        coding = {"compressors": NumcodecsPixelHistogram(mode=mode), "filters": None}
    z = zarr.create_array(
        store, shape=array.shape, chunks=chunks, dtype=array.dtype, zarr_format=zarr_format, **coding, **kwargs
    )
    z[...] = array
    return zarr.open_array(store, mode="r+")


@pytest.mark.slow
@examples(60)
@given(data=st.data(), pair=np_array_and_chunks(), zarr_format=st.sampled_from([2, 3]))
def test_arrays_of_zarrs_own_strategy(
    data: st.DataObject, pair: tuple[Array, tuple[int, ...]], zarr_format: int
) -> None:
    array, chunks = pair
    assume(numeric(array) and all(chunks))
    shards = None
    if zarr_format == 3 and array.size:
        shards = data.draw(st.none() | shard_shapes(shape=array.shape, chunk_shape=chunks))
    z = write(array, chunks, zarr_format, shards, mode=data.draw(st.sampled_from(MODES)))
    assert same_bits(z[...], array)


@pytest.mark.slow
@examples(80)
@given(data=st.data(), array=scans(least_dimensions=1), zarr_format=st.sampled_from([2, 3]))
def test_scans_in_any_chunking(data: st.DataObject, array: Array, zarr_format: int) -> None:
    """Edge chunks, parts of the detector, shards, byte orders; C and Fortran order in format 2."""
    assume(array.size)
    array = np.ascontiguousarray(array)
    chunks = data.draw(chunk_shapes(shape=array.shape))
    assume(np.prod([-(-s // c) for s, c in zip(array.shape, chunks, strict=True)]) <= 64)
    kwargs: dict[str, Any] = {"order": data.draw(st.sampled_from("CF"))} if zarr_format == 2 else {}
    shards = data.draw(st.none() | shard_shapes(shape=array.shape, chunk_shape=chunks)) if zarr_format == 3 else None
    z = write(array, chunks, zarr_format, shards, **kwargs)
    assert same_bits(z[...].astype(array.dtype, copy=False), array)


@pytest.fixture(scope="module")
def scan() -> Array:
    """A scan whose chunks have several groups, and chains in mode ``scan``; edge chunks on every axis."""
    return simulated_scan((13, 22, 7, 9), 6.0).astype(np.uint16)


@pytest.fixture(scope="module")
def stores(scan: Array) -> dict[str, zarr.Array]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        return {
            "neighbour": write(scan, (9, 20, 7, 9), mode="neighbour"),
            "scan": write(scan, (12, 12, 7, 5), mode="scan"),
            "sharded": write(scan, (3, 11, 7, 9), shards=(6, 22, 7, 9), mode="scan"),
            "format2": write(scan, (9, 20, 7, 9), zarr_format=2),
            "stored": write(
                scan.astype(np.float64) + 0.123456789 * np.random.default_rng(0).random(scan.shape), (7, 22, 7, 9)
            ),
        }


NAMES = ["neighbour", "scan", "sharded", "format2", "stored"]


@pytest.mark.slow
@examples(60)
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_basic_selections(data: st.DataObject, name: str, stores: dict[str, zarr.Array]) -> None:
    z = stores[name]
    whole = z[...]
    selection = data.draw(basic_indices(shape=z.shape))
    assert np.array_equal(z[selection], whole[selection])
    assert np.array_equal(z.get_basic_selection(selection), whole[selection])


@pytest.mark.slow
@examples(60)
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_orthogonal_selections(data: st.DataObject, name: str, stores: dict[str, zarr.Array]) -> None:
    z = stores[name]
    for_zarr, for_numpy = data.draw(orthogonal_indices(shape=z.shape))
    assert np.array_equal(z.oindex[for_zarr], z[...][for_numpy])


@pytest.mark.slow
@examples(40)
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_coordinate_and_mask_selections(data: st.DataObject, name: str, stores: dict[str, zarr.Array]) -> None:
    z = stores[name]
    whole = z[...]
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n = data.draw(st.integers(1, 20))
    at = tuple(random.integers(0, s, n) for s in z.shape)
    assert np.array_equal(z.vindex[at], whole[at])
    mask = random.random(z.shape) < 0.001
    assert np.array_equal(z.vindex[mask], whole[mask])


@pytest.mark.slow
@examples(30)
@given(data=st.data(), zarr_format=st.sampled_from([2, 3]), sharded=st.booleans())
def test_partial_writes(data: st.DataObject, zarr_format: int, sharded: bool, scan: Array) -> None:
    """Selections written over what is there: chunks are read, changed and encoded again."""
    expected = scan[:6, :8].copy()
    shards = (4, 8, 7, 9) if sharded and zarr_format == 3 else None
    z = write(expected, (2, 8, 7, 9), zarr_format, shards)
    for _ in range(2):
        selection = data.draw(basic_indices(shape=expected.shape))
        values = np.random.default_rng(data.draw(st.integers(0, 99))).poisson(3.0, expected[selection].shape)
        z[selection] = values.astype(expected.dtype)
        expected[selection] = values
    assert np.array_equal(z[...], expected)
