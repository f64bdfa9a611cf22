"""Compressors of others: their layouts, their sizes, and what becomes of one that is wrong."""

from __future__ import annotations

import gzip
import time
from functools import partial

import numpy as np
import pytest

from stemcodecs_pipelines.compare.lossless_peers import LONG_PEERS, PEERS, SLOW_PEERS
from stemcodecs_pipelines.compare.lossy_peers import LOSSY_PEERS, LossyPeer
from stemcodecs_pipelines.compare.peer_coders import Coder, Peer, as_it_lies, pixel_major, same_bits, size_of, tiled
from stemcodecs_pipelines.compare.peer_rows import peer_row
from stemcodecs_pipelines.compare.report import State
from stemcodecs_pipelines.compare.run import compare
from tests.pipelines.compare.conftest import GZIP

INSTALLED = [peer for peer in (*PEERS, *LONG_PEERS, *SLOW_PEERS) if peer.installed]


@pytest.mark.parametrize("peer", INSTALLED, ids=lambda peer: peer.name)
@pytest.mark.parametrize("dtype", ["u1", "u2", "i4"])
def test_every_setting_gives_every_value_back(peer, dtype, disk):
    given = peer.accepts(disk[0, :5].astype(dtype))
    for coder in (coder for coder in peer.settings if coder.installed):
        assert same_bits(coder.decode(coder.encode(given), given), given), coder.layout


@pytest.mark.parametrize("peer", [p for p in (*PEERS, *LOSSY_PEERS) if p.installed], ids=lambda peer: peer.name)
def test_time_of_a_peer_is_that_of_its_thread(peer, disk):
    """What it does in threads of its own would make it look fast."""
    given = peer.accepts(np.tile(disk.reshape(-1, 24, 24)[:60].astype(np.uint8), (1, 2, 2)))
    coder = next(coder for coder in peer.settings if coder.installed)
    coder.decode(coder.encode(given), given)
    before, in_thread = time.process_time(), time.thread_time()
    for _ in range(3):
        coder.decode(coder.encode(given), given)
    in_thread = time.thread_time() - in_thread
    assert time.process_time() - before - in_thread < 0.2 * in_thread + 0.0005


def test_what_takes_long_is_left_out_with_its_time_unless_it_is_asked_for(disk_file, few):
    def encode(values):
        end = time.thread_time() + 0.01
        while time.thread_time() < end:
            pass
        return values.tobytes()

    peer = Peer(
        name="long",
        settings=[as_it_lies(encode, lambda data, like: np.frombuffer(data, like.dtype).reshape(like.shape))],
    )
    few(partial(peer_row, peer, longest=0.001), partial(peer_row, peer, longest=10))
    left_out, done = sorted(compare(disk_file).rows, key=lambda row: row.state is State.DONE)
    assert (left_out.state, done.state) == (State.LEFT_OUT, State.DONE)
    assert left_out.note == "would take about 0 s of a core; --all takes it in"
    assert left_out.stored_bytes is None


@pytest.mark.parametrize("count", [1, 5, 9, 10])
def test_tiles_are_one_image_and_come_back(count, disk):
    seen = []

    def encode(image):
        seen.append(image.shape)
        return image.tobytes()

    coder = tiled(encode, lambda data, like: np.frombuffer(data, like.dtype).reshape(like.shape))
    patterns = disk[0, :count] if count < 10 else disk[0, :10]
    assert same_bits(coder.decode(coder.encode(patterns), patterns), patterns)
    (shape,) = seen
    assert shape[0] * shape[1] >= patterns.size
    assert max(shape) <= 2 * min(shape) or count < 3


def test_the_smaller_layout_is_taken():
    """A pixel that has the same count in every pattern is a run, if these stand side by side."""
    pattern = np.random.default_rng(0).integers(0, 255, (256, 256), np.uint8)
    patterns = np.ascontiguousarray(np.broadcast_to(pattern, (16, 256, 256)))
    assert GZIP.best(patterns).layout == "pixel-major"
    sizes = [size_of(coder.encode(patterns)) for coder in GZIP.settings]
    assert size_of(GZIP.best(patterns).encode(patterns)) == min(sizes)


def test_what_takes_16_bits_refuses_more_and_floats():
    peer = Peer(name="images", settings=[], kinds="u", widest=2)
    assert peer.accepts(np.array([[[0, 70000]]], np.int32)) is None
    assert peer.accepts(np.array([[[-1, 5]]], np.int16)) is None
    assert peer.accepts(np.array([[[0.5, 1.0]]], np.float32)) is None
    np.testing.assert_array_equal(peer.accepts(np.array([[[0, 300]]], np.int64)), [[[0, 300]]])


def broken(change):
    """A peer whose decoder is wrong."""

    def decode(data, like):
        out = np.frombuffer(gzip.decompress(data), like.dtype).reshape(like.shape).copy()
        return change(out)

    coder = as_it_lies(lambda values: gzip.compress(values.tobytes()), decode)
    return Peer(name="broken", settings=[coder])


def first_off_by_one(values):
    values[3, 2, 1] += 1
    return values


def test_a_peer_that_loses_a_value_is_found_out_and_the_others_go_on(disk_file, few):
    few(broken(first_off_by_one), "pixel_histogram", GZIP)
    rows = {row.name: row for row in compare(disk_file).rows}
    assert rows["broken"].state is State.LOSES
    assert "pattern 3, pixel 2, 1" in rows["broken"].note
    assert rows["broken"].bits_per_value is None
    assert rows["pixel_histogram"].state is rows["gzip -6"].state is State.DONE


@pytest.mark.parametrize("change", [lambda v: v.astype(np.int32), lambda v: v[:-1]], ids=["dtype", "shape"])
def test_a_peer_that_gives_back_something_else_is_found_out(change, disk_file, few):
    few(broken(change))
    assert compare(disk_file).rows[0].state is State.LOSES


def test_not_a_number_must_come_back_bit_by_bit(tmp_path, few):
    """NaN of another payload is another value."""
    values = np.zeros((70, 8, 8), np.float32)
    values[0, 0, 0] = np.nan
    np.save(tmp_path / "nan.npy", values)

    def forget_sign(out):
        return np.where(np.isnan(out), -out, out).astype(np.float32)

    few(broken(forget_sign), GZIP)
    states = {row.name: row.state for row in compare(tmp_path / "nan.npy").rows}
    assert states == {"broken": State.LOSES, "gzip -6": State.DONE}


def test_a_peer_that_raises_is_listed_with_its_words(disk_file, few):
    def encode(values):
        raise RuntimeError("the library\nsays no")

    few(Peer(name="raises", settings=[Coder(encode=encode, decode=lambda data, like: like)]), GZIP)
    rows = {row.name: row for row in compare(disk_file).rows}
    assert (rows["raises"].state, rows["raises"].note) == (State.FAILED, "RuntimeError: the library says no")
    assert rows["gzip -6"].state is State.DONE


def test_a_peer_that_is_not_there_is_listed_with_the_command_that_installs_it(disk_file, few):
    absent = Coder(encode=bytes, decode=lambda data, like: like, package="no_such_package")
    few(
        Peer(name="absent", settings=[absent], install="pip install it"),
        Peer(
            name="no program", settings=[pixel_major(bytes, lambda d, like: like)], program="no-such", install="get it"
        ),
    )
    rows = {row.name: row for row in compare(disk_file).rows}
    assert (rows["absent"].state, rows["absent"].note) == (State.MISSING, "pip install it")
    assert (rows["no program"].state, rows["no program"].note) == (State.MISSING, "get it")


def test_sizes_are_those_of_the_tool_itself(disk, disk_file, few):
    few(GZIP)
    (row,) = compare(disk_file).rows
    patterns = disk.reshape(-1, 24 * 24)
    sizes = [len(gzip.compress(np.ascontiguousarray(p).tobytes(), 6, mtime=0)) for p in (patterns, patterns.T)]
    assert row.stored_bytes == min(sizes)
    assert row.bits_per_value == 8 * min(sizes) / disk.size
    assert row.bits_error == 0


@pytest.mark.parametrize("peer", [p for p in LOSSY_PEERS if p.installed and p.bound], ids=lambda peer: peer.name)
def test_lossy_peers_keep_the_bound_that_they_are_set_to(peer):
    """Every count up to 5000, and larger ones."""
    counts = np.concatenate([np.arange(5000), np.random.default_rng(0).integers(0, 60000, 11384)])
    counts = counts.astype(np.uint16).reshape(64, 16, 16)
    for coder in (coder for coder in peer.settings if coder.installed):
        decoded = coder.decode(coder.encode(counts), counts)
        assert peer.keeps(decoded, counts), coder.layout


def test_a_lossy_peer_that_breaks_its_bound_is_found_out(disk_file, few):
    def decode(data, like):
        return np.frombuffer(data, like.dtype).reshape(like.shape) + np.float32(0.75)

    coder = as_it_lies(lambda values: values.tobytes(), decode)
    few(LossyPeer(name="half a sigma", settings=[coder], bound=0.5), LossyPeer(name="one", settings=[coder], bound=1.0))
    states = {row.name: row.state for row in compare(disk_file).rows}
    assert states == {"half a sigma": State.LOSES, "one": State.DONE}
