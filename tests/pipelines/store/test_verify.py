from __future__ import annotations

import numpy as np
import pytest
import zarr

from stemcodecs.errors import CorruptChunkError, IncompleteStoreError, SourceMismatchError, VerificationError
from stemcodecs.readers import open_scan
from stemcodecs_pipelines.store.compress import compress
from stemcodecs_pipelines.store.decompress import decompress
from stemcodecs_pipelines.store.info import info
from stemcodecs_pipelines.store.repair import repair
from stemcodecs_pipelines.store.verify import verify

VICTIM = "data/c/1/0/0/0"


def damage(store, how):
    path = store / VICTIM
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-7])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        data = bytearray(path.read_bytes())
        data[len(data) * 2 // 3] ^= 16
        path.write_bytes(data)


@pytest.mark.slow
def test_intact_store_passes_with_and_without_its_source(scan, store):
    assert verify(scan, store).intact
    report = verify(None, store)
    assert report.intact
    assert (report.blocks, report.values) == (6, np.prod(scan.shape))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["missing", "truncated", "empty"])
@pytest.mark.parametrize("with_source", [True, False])
def test_damage_is_found_and_repaired(scan, store, digests, how, with_source):
    before = digests(store)
    damage(store, how)
    report = verify(scan if with_source else None, store)
    assert [f.index for f in report.failures] == [2]
    assert report.failures[0].position == (4, 0, 0, 0)
    with pytest.raises(VerificationError, match="1 of 6 blocks failed"):
        report.require_intact(store)
    assert [f.index for f in repair(scan, store).failures] == [2]
    assert digests(store) == before


@pytest.mark.slow
def test_wrong_value_is_named_by_its_coordinates(scan, counts, store, tmp_path):
    counts = counts.copy()
    counts[6, 9, 10, 11] += 1
    np.save(tmp_path / "other.npy", counts)
    with open_scan(tmp_path / "other.npy") as other:
        report = verify(other, store)
        assert report.failures[0].position == (6, 9, 10, 11)
        # The store is what the source was: the source must not be repaired into it.
        with pytest.raises(SourceMismatchError, match="original source"):
            repair(other, store)
    assert verify(scan, store).intact


def test_other_shape_and_dtype_are_refused(counts, store, tmp_path):
    for name, array in {"shape": counts[1:], "dtype": counts.astype("u1")}.items():
        np.save(tmp_path / f"{name}.npy", array)
        with (
            open_scan(tmp_path / f"{name}.npy") as other,
            pytest.raises(SourceMismatchError, match="give the source"),
        ):
            verify(other, store)


@pytest.mark.slow
def test_another_scan_of_the_same_kind_is_told_from_a_wrong_store(scan, counts, tmp_path):
    """With a bound, values of another source may lie within it; what the store was made from is noted."""
    store = tmp_path / "poisson.zarr"
    compress(scan, store, method="poisson:r=2", chunk=(4, 8))
    near = counts.copy()
    bright = np.argwhere(counts >= 9)[0]
    near[tuple(bright)] += 1
    np.save(tmp_path / "near.npy", near)
    report = verify(tmp_path / "near.npy", store)
    assert [f.other_source for f in report.failures] == [True]
    with pytest.raises(SourceMismatchError, match="1 of 6 blocks failed"):
        report.require_intact(store)
    assert verify(scan, store).intact


@pytest.mark.slow
def test_a_path_is_opened_as_it_is_said(counts, store, tmp_path):
    counts.tofile(tmp_path / "scan.bin")
    assert verify(tmp_path / "scan.bin", store, shape=counts.shape, dtype="u2").intact
    damage(store, "truncated")
    assert [f.index for f in repair(tmp_path / "scan.bin", store, shape=counts.shape, dtype="u2").failures] == [2]
    assert verify(None, store).intact


def test_chunk_in_another_ones_place_is_found(scan, store):
    chunks = sorted(p for p in (store / "data/c").rglob("*") if p.is_file())
    first, second = (p.read_bytes() for p in chunks[:2])
    chunks[0].write_bytes(second)
    chunks[1].write_bytes(first)
    assert {f.index for f in verify(None, store).failures} >= {0}
    assert {f.index for f in verify(scan, store).failures} >= {0}


@pytest.mark.slow
def test_shards_are_verified_and_repaired(scan, tmp_path, digests):
    store = tmp_path / "shards.zarr"
    compress(scan, store, chunk=(2, 4), shards=(4, 8))
    before = digests(store)
    damage(store, "truncated")
    assert [f.index for f in verify(None, store).failures] == [2]
    repair(scan, store)
    assert digests(store) == before


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npy", ".h5", ".zarr"])
@pytest.mark.parametrize("chunk", [(4, 8), (10, 13), (3, 13), (4, 8, 5, 16), (4, 8, 12, 5)])
def test_decompressed_files_hold_every_value(scan, tmp_path, suffix, chunk):
    compress(scan, tmp_path / "scan.zarr", chunk=chunk)
    out = tmp_path / f"out{suffix}"
    decompress(tmp_path / "scan.zarr", out)
    with open_scan(out) as back:
        assert verify(back, tmp_path / "scan.zarr").intact
    assert {p.name for p in tmp_path.iterdir()} == {"scan.zarr", out.name}


def test_decompressed_zarr_needs_no_stemcodecs(store, tmp_path):
    decompress(store, tmp_path / "plain.zarr")
    data = zarr.open_group(tmp_path / "plain.zarr", mode="r")["data"]
    assert "stemcodecs" not in str(data.metadata.to_dict()["codecs"])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npy", ".h5", ".zarr"])
def test_no_half_file_is_left_by_a_corrupt_store(store, tmp_path, suffix):
    damage(store, "truncated")
    with pytest.raises(CorruptChunkError):
        decompress(store, tmp_path / f"out{suffix}")
    assert [p.name for p in tmp_path.iterdir()] == ["scan.zarr"]


def test_info_knows_the_sizes(scan, store):
    found = info(store)
    assert found.total_bytes == sum(p.stat().st_size for p in store.rglob("*") if p.is_file())
    assert any("10×13×12×16 uint16" in value for _, value in found.rows())


@pytest.mark.slow
def test_info_says_when_chunks_are_missing(store):
    (store / VICTIM).unlink()
    with pytest.raises(IncompleteStoreError, match="1 of 6 chunks are missing"):
        info(store)
