"""``compress --method tcs``: the choice of a measurement, what is said of it, and the report of ``verify``."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from stemcodecs.codecs import Tcs
from stemcodecs.errors import ConfigurationError
from stemcodecs.movies import with_decoder
from stemcodecs.readers import open_scan
from stemcodecs.simulate import simulate_movie
from stemcodecs.temporal import runtime
from stemcodecs_pipelines.cli import app
from stemcodecs_pipelines.methods.registry import parse_method
from stemcodecs_pipelines.run.plan import make_plan
from stemcodecs_pipelines.temporal.distance import measure
from stemcodecs_pipelines.temporal.sampled_quality import squared_distance


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A movie with a scene cut after frame 34."""
    one, other = (simulate_movie(k, (35, 48, 52), "slow", seed=3, dose=150).frames for k in ("grains", "fibres"))
    path = tmp_path_factory.mktemp("movie") / "movie.npy"
    np.save(path, np.concatenate([one, other]))
    return path


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.output


@pytest.mark.slow
def test_compress_verify_and_info(movie: Path, tmp_path: Path) -> None:
    store = tmp_path / "out.zarr"
    code, output = run("compress", movie, store, "--method", "tcs", "--chunk", "30")
    assert code == 0, output
    assert (
        "distance from the frames without noise, about, of 2 samples: bins with interpolate" in output
    )  # one has the cut
    assert ("readers need onnxruntime" in output) == bool(find_spec("onnxruntime"))
    assert "1 of 7 measurements came back exactly" in output
    code, output = run("verify", movie, store)
    assert code == 0
    assert "no pointwise guarantee" in output
    code, output = run("info", store)
    assert "nothing is guaranteed about single values" in output
    data = zarr.open_group(store, mode="r")["data"]
    assert isinstance(data, zarr.Array)
    source = np.load(movie)
    assert np.array_equal(data[30:40], source[30:40])
    view = with_decoder(data, "measurement")
    codec = data.metadata.codecs[0]  # type: ignore[union-attr]
    sums = codec.sampling.measure(source[:10])
    assert np.abs(view[: codec.time_bins].astype(int) - sums).max() <= codec.step // 2
    assert codec.step > 1


@pytest.mark.slow
def test_masks_and_no_choice(movie: Path, tmp_path: Path) -> None:
    store = tmp_path / "out.zarr"
    method = "tcs:measurement=random,seed=7,step=1,frames=5,decoder=gap-tv,incoherent=measured"
    code, output = run("compress", movie, store, "--method", method)
    assert code == 0, output
    assert "0 of 14 measurements" in output
    data = zarr.open_group(store, mode="r")["data"]
    codec = data.metadata.codecs[0]  # type: ignore[union-attr]
    assert (codec.measurement, codec.seed, codec.step, codec.frames) == ("random", 7, 1, 5)


@pytest.mark.slow
def test_a_network_where_it_is_asked_for(movie: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    store = tmp_path / "out.zarr"
    code, output = run("compress", movie, store, "--method", "tcs:decoder=network")
    assert code == 0, output
    assert "bins with network" in output
    assert "tiled with network" in output
    data = zarr.open_group(store, mode="r")["data"]
    codec = data.metadata.codecs[0]  # type: ignore[union-attr]
    assert codec.decoder == "network"
    # The package has the weights: the store names them.
    assert codec.model is None
    assert codec.weights is not None


@pytest.mark.slow
def test_without_onnxruntime_a_store_is_not_called_damaged(
    movie: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    store = tmp_path / "out.zarr"
    code, output = run("compress", movie, store, "--method", "tcs:measurement=bins,decoder=network")
    assert code == 0, output
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    runtime._session.cache_clear()
    for command in (("verify", movie, store), ("verify", store), ("decompress", store, tmp_path / "back.npy")):
        code, output = run(*command)
        assert code == 2
        assert "needs onnxruntime; install it with: pip install 'stemcodecs[learned]'" in output
        assert "corrupt" not in output
    assert run("info", store)[0] == 0


def test_options_that_cannot_be_are_refused(movie: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(method: str) -> str:
        code, output = run("compress", movie, tmp_path / "no.zarr", "--method", method)
        assert code == 2
        return output

    assert "time_bins=6 are more than frames=5" in refused("tcs:frames=5,time_bins=6")
    assert "no weights of network for" in refused("tcs:frames=11,decoder=network")
    monkeypatch.setattr("stemcodecs_pipelines.temporal.method.find_spec", lambda name: None)
    assert "decoder=network needs onnxruntime; install it with" in refused("tcs:decoder=network")


@pytest.mark.parametrize(
    ("method", "with_onnxruntime", "without"),
    [
        ("tcs", ["interpolate", "network", "gap-tv", "network"], ["interpolate", "gap-tv"]),
        ("tcs:measurement=tiled", ["gap-tv", "network"], ["gap-tv"]),
        ("tcs:frames=9", ["interpolate", "gap-tv"], ["interpolate", "gap-tv"]),
        ("tcs:decoder=gap-tv", ["gap-tv", "gap-tv"], ["gap-tv", "gap-tv"]),
    ],
)
def test_networks_are_tried_where_they_can_be_run(
    monkeypatch: pytest.MonkeyPatch, method: str, with_onnxruntime: list[str], without: list[str]
) -> None:
    for there, expected in ((True, with_onnxruntime), (False, without)):
        monkeypatch.setattr("stemcodecs_pipelines.temporal.method.find_spec", lambda name, there=there: there)
        chosen = parse_method(method)
        assert [codec.decoder for codec in chosen._candidates()] == expected  # type: ignore[attr-defined]


def test_the_distance_is_that_from_the_frames_without_noise() -> None:
    """A decoder that keeps the noise of the frames is not taken for one that comes near to them."""
    for kind, seed in (("grains", 1), ("nanoparticles", 2)):
        movie = simulate_movie(kind, (10, 64, 64), "slow", seed=seed, dose=50)
        for codec in (
            Tcs(measurement="bins", time_bins=4, space_bins=2, decoder="interpolate"),
            Tcs(measurement="bins", time_bins=10, space_bins=1, decoder="interpolate"),
            Tcs(),
        ):
            frames = codec.decode_chunk(codec.encode_chunk(movie.frames)).astype(float)
            true = np.sqrt(np.square(frames - movie.clean).mean())
            assert squared_distance(codec, [movie.frames]) ** 0.5 == pytest.approx(true, rel=0.25)


def test_chunks_hold_whole_measurements(tmp_path: Path) -> None:
    np.lib.format.open_memmap(tmp_path / "long.npy", "w+", np.uint8, (500, 512, 512)).flush()  # no bytes on the disk
    with open_scan(str(tmp_path / "long.npy")) as scan:
        assert make_plan(scan).chunk == (256, 512, 512)
        assert make_plan(scan, together=10).chunk == (250, 512, 512)
        assert make_plan(scan, together=300).chunk == (300, 512, 512)
        assert make_plan(scan, together=8, chunk=(13,)).chunk == (13, 512, 512)


def test_the_plan_counts_what_decoding_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stemcodecs_pipelines.temporal.method.find_spec", lambda name: None)
    smooth = parse_method("tcs").scratch_bytes((512, 512))
    assert 5 * 4 * 10 * 512 * 512 <= smooth <= 8 * 4 * 10 * 512 * 512
    monkeypatch.setattr("stemcodecs_pipelines.temporal.method.find_spec", lambda name: True)
    assert parse_method("tcs").scratch_bytes((512, 512)) > smooth
    assert parse_method("pixel_histogram").scratch_bytes((512, 512)) == 0


def test_distance_merges() -> None:
    source = np.random.default_rng(0).integers(0, 250, (8, 6, 6)).astype(np.uint8)
    decoded = source.copy()
    decoded[5] += 2
    region = (slice(0, 8), slice(0, 6), slice(0, 6))
    whole = measure(source, decoded, region, 4)
    parts = [measure(source[a:b], decoded[a:b], region, 4) for a, b in ((0, 4), (4, 8))]
    assert parts[0].merge(parts[1]) == whole
    assert (whole.values, whole.largest, whole.measurements, whole.exact) == (288, 2, 2, 1)
    assert whole.psnr == pytest.approx(
        10 * np.log10(float(source.max()) ** 2 / np.square(decoded - source * 1.0).mean())
    )
    assert measure(source, source, region, 4).psnr == np.inf


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("tcs:frames=1", "frames '1' must be a whole number of at least 2"),
        ("tcs:measurement=holes", "measurement 'holes' must be auto, bins, tiled or random"),
        ("tcs:measurement=tiled,decoder=interpolate", "decoder=interpolate does not fit measurement=tiled"),
        ("tcs:measurement=tiled,frames=9,decoder=network", "no weights of network for measurement=tiled, frames=9"),
        ("tcs:measurement=bins,frames=9,decoder=network", "no weights of network for measurement=bins, frames=9"),
        ("tcs:measurement=bins,decoder=birnat", "decoder=birnat does not fit measurement=bins"),
        ("tcs:measurement=tiled,frames=9,decoder=birnat", "no weights of birnat for measurement=tiled, frames=9"),
    ],
)
def test_unusable_options(method: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_method(method)


def test_what_is_no_movie_stops_the_run(tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", np.zeros((4, 8, 8), np.float32))
    code, output = run("compress", tmp_path / "scan.npy", tmp_path / "out.zarr", "--method", "tcs")
    assert code == 2
    assert "cannot measure float32; store uint8 or uint16" in output
