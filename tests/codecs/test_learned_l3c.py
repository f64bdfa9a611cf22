"""``stemcodecs.learned`` with a shared network of architecture ``l3c`` under Zarr: both formats, shards, patterns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

from stemcodecs.codecs import Learned, NumcodecsLearned
from stemcodecs.errors import ConfigurationError
from stemcodecs.learned.prefix import NETWORK, read_prefix
from tests.learned.random_l3c import random_l3c, shared_l3c
from tests.strategies import same_bits, simulated_scan

Array = np.ndarray[Any, Any]

SELECTIONS = [np.s_[3, 5], np.s_[:, 19], np.s_[7:9, 3:5, 2], np.s_[..., 6], np.s_[9, 1:18:7, ::3, 5:7], np.s_[...]]


@pytest.fixture(scope="module")
def array() -> Array:
    return simulated_scan((10, 20, 8, 7), 5.0, seed=3).astype(np.uint16)


@pytest.fixture(scope="module")
def shared(array: Array) -> dict[str, str]:
    model = random_l3c(array, 2)
    assert model is not None
    return shared_l3c(model).configuration()


@pytest.mark.parametrize("sharded", [False, True])
def test_parts_of_a_scan(tmp_path: Path, array: Array, shared: dict[str, str], sharded: bool) -> None:
    z = zarr.create_array(
        tmp_path / "a", shape=array.shape, chunks=(5, 20, 8, 7), dtype=array.dtype, serializer=Learned(**shared),
        compressors=None, shards=(10, 20, 8, 7) if sharded else None,
    )  # fmt: skip
    z[...] = array
    if not sharded:
        assert read_prefix((tmp_path / "a/c/1/0/0/0").read_bytes()) == NETWORK
    z = zarr.open_array(tmp_path / "a", mode="r")
    for selection in SELECTIONS:
        assert same_bits(np.asarray(z[selection]), array[selection])


def test_zarr_format_2(tmp_path: Path, array: Array, shared: dict[str, str]) -> None:
    numcodecs.register_codec(NumcodecsLearned)
    z = zarr.create_array(
        tmp_path / "a", shape=array.shape, chunks=(10, 10, 8, 7), dtype=">u2", zarr_format=2, filters=None,
        compressors=NumcodecsLearned(**shared), order="F",
    )  # fmt: skip
    z[...] = array
    assert np.array_equal(np.asarray(zarr.open_array(tmp_path / "a", mode="r")[...]), array)


def test_an_edited_network_is_refused(array: Array, shared: dict[str, str]) -> None:
    edited = shared | {"model": shared["model"][:-8] + "AAAAAAAA"}
    with pytest.raises(ConfigurationError, match="does not match its digest"):
        Learned(**edited).decode_chunk(Learned(**shared).encode_chunk(array))
