"""``stemcodecs.tcs`` through Zarr: frames, measurements, parts, and what must not be taken."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from stemcodecs.codecs import NumcodecsTcs, Tcs
from stemcodecs.errors import ConfigurationError, CorruptChunkError, FormatVersionError, UnsupportedDtypeError
from stemcodecs.movies import with_decoder
from stemcodecs.simulate import simulate_movie

Array = np.ndarray[Any, Any]

BINS = {"measurement": "bins", "time_bins": 4, "space_bins": 2, "decoder": "interpolate"}


SCENE = simulate_movie("grains", (25, 37, 41), "slow", seed=4, dose=100)


@pytest.fixture(scope="module")
def movie() -> Array:
    return SCENE.frames


def write(movie: Array, chunks: tuple[int, ...], codec: Any, **kwargs: Any) -> zarr.Array:
    store = MemoryStore()
    coding = {"compressors": codec, "filters": None} if kwargs.get("zarr_format") == 2 else {"serializer": codec}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        options = {"compressors": None, **coding, **kwargs}
        z = zarr.create_array(store, shape=movie.shape, chunks=chunks, dtype=movie.dtype, **options)
    z[...] = movie
    return zarr.open_array(store, mode="r")


@pytest.mark.parametrize("options", [{}, {"measurement": "random"}, BINS, BINS | {"decoder": "gap-tv"}], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_frames_come_back_about(movie, options, dtype, pipeline):
    gain = 1 if dtype == np.uint8 else 16
    source = movie.astype(dtype) * dtype(gain)
    z = write(source, (20, 37, 41), Tcs(**options))
    back = z[...]
    assert back.dtype == dtype
    # Nearer to the frames without noise than those with noise are.
    assert np.abs(back - gain * SCENE.clean).mean() < np.abs(source - gain * SCENE.clean).mean()
    # Frames beyond the end of the movie, which fill its last chunk, have not darkened the last of them.
    assert abs(back[-1].mean() / source[-1].mean() - 1) < 0.01
    assert np.array_equal(z[17:23, 5:9, ::3], back[17:23, 5:9, ::3])
    assert np.array_equal(z.oindex[[3, 24], :, [1, 2]], back[[3, 24]][:, :, [1, 2]])
    assert np.array_equal(z.vindex[[3, 24], [0, 1], [1, 2]], back[[3, 24], [0, 1], [1, 2]])


@pytest.mark.parametrize("options", [{}, {"step": 5}, BINS], ids=str)
def test_measurements_can_be_read(movie, options, pipeline):
    codec = Tcs(**options, incoherent="measured")
    z = write(movie, (20, 37, 41), codec)
    view = with_decoder(z, "measurement")
    planes = codec.time_bins
    assert view.shape[0] == 3 * planes
    sums = np.concatenate([codec.sampling.measure(movie[a:b]) for a, b in ((0, 10), (10, 20), (20, 25))])
    apart = np.abs(view[...].astype(int) - sums)
    assert apart.max() <= codec.step // 2
    assert np.array_equal(view[1:3, 2:5], view[...][1:3, 2:5])
    with pytest.raises(ConfigurationError, match="through a view"):
        view[0] = 0


@pytest.mark.parametrize("step", [1, 300])
@pytest.mark.parametrize("options", [{}, {"measurement": "random", "frames": 128}, BINS | {"time_bins": 3}], ids=str)
def test_sums_of_white_noise_over_all_values_are_exact(options, step):
    # Their differences take more than 16 bits, and their products more than the 24 of a float.
    noise = np.random.default_rng(0).integers(0, 65536, (13, 37, 41), np.uint16)
    noise[:, 5:20, :9], noise[:, 5:20, 9:15] = 0, 65535
    codec = Tcs(**options, step=step, incoherent="measured")
    view = replace(codec, decoder="measurement")
    sums = np.concatenate([codec.sampling.measure(noise[a : a + codec.frames]) for a in range(0, 13, codec.frames)])
    back = view.decode_chunk(codec.encode_chunk(noise))
    assert np.array_equal(back, (sums.astype(np.int64) + step // 2) // step * step)


def test_measurements_of_chunks_that_cut_frames(movie):
    codec = Tcs(**BINS, incoherent="measured")
    view = with_decoder(write(movie, (10, 20, 21), codec), "measurement")
    assert view.shape == (12, 19, 21)  # 10 + 9 rows, 11 + 10 columns
    assert np.array_equal(view[:4, :10, :11], codec.sampling.measure(movie[:10, :20, :21]))


def test_one_measurement_is_read_for_a_frame(movie, monkeypatch):
    z = write(movie, (25, 37, 41), Tcs())
    seen = []
    from stemcodecs.temporal import coding

    whole = coding.decode_frames
    monkeypatch.setattr(coding, "decode_frames", lambda *a: seen.append(a[3]) or whole(*a))
    z[12]
    assert len(seen) == 1


def test_scans_are_series_of_movies(movie):
    """The fast axis of a scan in the place of time."""
    scan = np.stack([movie[:12], movie[5:17], movie[:12][::-1]])
    z = write(scan, (2, 12, 37, 41), Tcs())
    assert np.array_equal(z[0], write(movie[:12], (12, 37, 41), Tcs())[...])
    assert np.array_equal(z[1:, 11], z[...][1:, 11])
    view = with_decoder(z, "measurement")
    assert view.shape == (3, 2, 37, 41)
    assert np.array_equal(view[2, 0], Tcs().sampling.measure(scan[2, :10])[0])


def test_shards_and_format_2(movie):
    whole = write(movie, (10, 37, 41), Tcs())[...]
    sharded = write(movie, (10, 37, 41), Tcs(), shards=(30, 37, 41))
    assert np.array_equal(sharded[...], whole)
    assert np.array_equal(sharded[13], whole[13])
    for order in "CF":
        old = write(movie, (10, 37, 41), NumcodecsTcs(), zarr_format=2, order=order)
        assert np.array_equal(old[...], whole)


def test_both_byte_orders():
    movie = np.random.default_rng(0).integers(0, 4000, (4, 9, 8)).astype(">u2")
    codec = NumcodecsTcs(frames=2)
    back = codec.decode(codec.encode(movie))
    assert back.dtype == np.dtype(">u2")
    assert np.array_equal(back, codec.decode(codec.encode(movie.astype("<u2"))))


@pytest.mark.parametrize("shape", [(0, 8, 8), (3, 0, 8), (1, 1, 1), (11, 1, 3), (2, 0, 5, 8, 8)])
def test_shapes_at_the_edge(shape):
    movie = np.full(shape, 200, np.uint8)
    for options in ({}, BINS):
        codec = Tcs(**options)
        back = codec.decode_chunk(codec.encode_chunk(movie))
        assert back.shape == shape
        assert not back.size or np.abs(back.astype(int) - movie).max() <= 1


def test_black_frames_cost_nothing_and_stay_black():
    movie = np.zeros((30, 16, 16), np.uint8)
    movie[:7] = 100
    data = Tcs().encode_chunk(movie)
    back = Tcs().decode_chunk(data)
    assert (back[7:] == 0).all()
    assert (back[:7] == 100).all()
    assert len(Tcs().encode_chunk(movie * 0)) < 60


def test_a_cut_is_kept_exactly(movie):
    cut = np.concatenate([movie[:15], simulate_movie("fibres", (10, 37, 41), "slow", seed=9).frames])
    codec = Tcs()
    back = codec.decode_chunk(codec.encode_chunk(cut))
    assert np.array_equal(back[10:20], cut[10:20])
    assert not np.array_equal(back[:10], cut[:10])
    # Its measurement can be read all the same.
    view = Tcs(decoder="measurement")
    assert np.array_equal(view.decode_chunk(codec.encode_chunk(cut))[1], codec.sampling.measure(cut[10:20])[0])


def test_a_frame_that_is_left_is_kept_exactly_where_that_is_smaller(movie):
    codec = Tcs(**BINS)
    data = codec.encode_chunk(movie[:11])
    back = codec.decode_chunk(data)
    assert np.array_equal(back[10], movie[10])
    assert not np.array_equal(back[:10], movie[:10])
    sums = replace(codec, decoder="measurement").decode_chunk(data)
    assert np.array_equal(sums[4:], codec.sampling.measure(movie[10:11]))
    measured = replace(codec, incoherent="measured")
    assert len(measured.encode_chunk(movie[:11])) >= len(data)
    assert not np.array_equal(measured.decode_chunk(measured.encode_chunk(movie[:11]))[10], movie[10])


def test_it_says_that_nothing_is_guaranteed():
    assert Tcs().to_dict()["configuration"]["guarantee"] == "no pointwise guarantee"


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint32, np.bool_])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(UnsupportedDtypeError, match="store uint8 or uint16"):
        write(np.zeros((4, 8, 8), dtype), (4, 8, 8), Tcs())
    with pytest.raises(UnsupportedDtypeError, match="store uint8 or uint16"):
        Tcs().encode_chunk(np.zeros((4, 8, 8), dtype))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": "magic"}, "decoder 'magic' is none of gap-tv"),
        ({"decoder": "interpolate"}, "does not fit measurement 'tiled'"),
        (
            {"decoder": "birnat", "weights": "ab" * 32, **{k: v for k, v in BINS.items() if k != "decoder"}},
            "does not fit measurement 'bins'",
        ),
        ({"decoder": "network"}, "they need them"),
        ({"weights": "ab" * 32}, "belong to the decoders network and birnat"),
        ({"decoder": "network", "weights": "AB"}, "64 hexadecimal digits"),
        ({"incoherent": "dropped"}, "must be 'exact' or 'measured'"),
        ({"frames": 1}, "stemcodecs.tcs: frames 1 must be"),
    ],
)
def test_configurations_that_cannot_be(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Tcs(**options)


def test_unknown_and_newer_configurations_are_refused():
    stored = Tcs().to_dict()
    with pytest.raises(ConfigurationError, match="unknown configuration zoom"):
        Tcs.from_dict({**stored, "configuration": {**stored["configuration"], "zoom": 2}})
    with pytest.raises(FormatVersionError, match="configuration version 2"):
        Tcs.from_dict({**stored, "configuration": {**stored["configuration"], "version": 2}})


def test_two_dimensions_are_no_movie():
    with pytest.raises(ConfigurationError, match="time, y and x"):
        write(np.zeros((8, 8), np.uint8), (8, 8), Tcs())


def test_views_are_for_arrays_of_this_codec(movie):
    plain = zarr.create_array(MemoryStore(), shape=(4, 8, 8), dtype="u1")
    with pytest.raises(ConfigurationError, match=r"only an array that stemcodecs.tcs stored"):
        with_decoder(plain, "measurement")
    with pytest.raises(ConfigurationError, match="cannot be written through a view"):
        Tcs(decoder="measurement").encode_chunk(movie)
    bins = write(movie, (10, 37, 41), Tcs(**BINS))
    smooth = with_decoder(bins, "gap-tv")[...]
    assert smooth.shape == movie.shape
    assert not np.array_equal(smooth, bins[...])


@pytest.mark.slow
def test_every_truncation_is_refused(movie):
    codec = Tcs()
    data = codec.encode_chunk(movie[:12, :16, :16])
    for length in range(len(data)):
        with pytest.raises(CorruptChunkError):
            codec.decode_chunk(data[:length])


@pytest.mark.slow
def test_flipped_bits_are_refused(movie):
    codec = Tcs()
    data = bytearray(codec.encode_chunk(movie[:12, :16, :16]))
    for at in range(len(data)):
        data[at] ^= 0x10
        with pytest.raises((CorruptChunkError, FormatVersionError)):
            codec.decode_chunk(bytes(data))
        data[at] ^= 0x10


def test_a_chunk_measured_otherwise_is_refused(movie):
    data = Tcs(seed=1).encode_chunk(movie)
    with pytest.raises(CorruptChunkError, match="measured in another way"):
        Tcs(seed=2).decode_chunk(data)


def test_a_chunk_of_another_shape_is_refused(movie):
    store = MemoryStore()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        z = zarr.create_array(
            store, shape=(20, 8, 8), chunks=(10, 8, 8), dtype="u1", serializer=Tcs(), compressors=None
        )
    from zarr.buffer import cpu

    from stemcodecs.zarr_private import sync

    sync(store.set("c/0/0/0", cpu.Buffer.from_bytes(Tcs().encode_chunk(movie[:10]))))
    for selection in (..., slice(0, 1)):
        with pytest.raises(CorruptChunkError, match="the array expects"):
            z[selection]


def test_the_same_bytes_give_the_same_frames(movie):
    data = Tcs().encode_chunk(movie)
    assert data == Tcs().encode_chunk(movie)
    assert np.array_equal(Tcs().decode_chunk(data), Tcs().decode_chunk(data))
