"""``compress --method learned``: one network for the scan or one a chunk, exact, and what is said where none pays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from stemcodecs.codecs import Learned, PixelHistogram
from stemcodecs.simulate import simulate_scan
from stemcodecs_pipelines.cli import app
from stemcodecs_pipelines.methods.registry import parse_method


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, " ".join(result.output.split())


def correlated(scan: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Patterns of speckles, new in every pattern, on a detector that shares charge."""
    random = np.random.default_rng(seed)
    rate = random.gamma(1.0, 1.0, (*scan, 12, 12)).repeat(2, axis=-2).repeat(2, axis=-1)
    return random.poisson(4 * rate).astype(np.uint16)


def serializer(store: Path) -> object:
    (codec,) = zarr.open_array(store / "data", mode="r").metadata.codecs
    return codec


def test_one_network_for_the_scan(tmp_path: Path) -> None:
    scan, store = tmp_path / "scan.npy", tmp_path / "scan.zarr"
    np.save(scan, correlated((12, 20)))
    code, output = run("compress", scan, store, "--method", "learned:steps=300", "--chunk", "6,10")
    assert code == 0, output
    assert "fitting a network to 240 of 240 patterns" in output
    assert "the network is estimated to save" in output
    codec = serializer(store)
    assert isinstance(codec, Learned)
    assert codec.model is not None
    assert np.array_equal(zarr.open_array(store / "data", mode="r")[...], np.load(scan))
    code, output = run("verify", scan, store)
    assert code == 0, output
    assert zarr.open_array(store / "data", mode="r")[7, 11].tobytes() == np.load(scan)[7, 11].tobytes()


def test_a_network_for_few_patterns_must_pay_for_the_states_of_its_groups(tmp_path: Path) -> None:
    counts = simulate_scan("grains", (12, 13), (48, 48), mean_counts=0.3, dtype=np.uint16).counts
    np.save(tmp_path / "scan.npy", counts)
    sizes = []
    for method in ("pixel_histogram", "learned:steps=1500"):
        store = tmp_path / f"{len(sizes)}.zarr"
        code, output = run("compress", tmp_path / "scan.npy", store, "--method", method)
        assert code == 0, output
        sizes.append(sum(path.stat().st_size for path in (store / "data").rglob("*") if path.is_file()))
    # The configuration without a network, and the prefix of a chunk.
    assert sizes[1] <= sizes[0] + 200


@pytest.mark.slow
def test_a_network_in_every_chunk(tmp_path: Path) -> None:
    scan, store = tmp_path / "scan.npy", tmp_path / "scan.zarr"
    np.save(scan, correlated((24, 20)))
    code, output = run("compress", scan, store, "--method", "learned:model=chunk,steps=200", "--chunk", "12,20")
    assert code == 0, output
    codec = serializer(store)
    assert isinstance(codec, Learned)
    assert codec.model is None
    chunk = (store / "data" / "c" / "0" / "0" / "0" / "0").read_bytes()
    assert chunk[:6] == b"SCLN\x01\x01"
    assert np.array_equal(zarr.open_array(store / "data", mode="r")[...], np.load(scan))


def test_counts_without_structure_are_stored_by_histograms(tmp_path: Path) -> None:
    scan, store = tmp_path / "scan.npy", tmp_path / "scan.zarr"
    np.save(scan, np.random.default_rng(0).poisson(1.0, (8, 9, 16, 16)).astype(np.uint8))
    code, output = run("compress", scan, store, "--method", "learned:steps=30")
    assert code == 0, output
    assert "less than it costs: stored by pixel_histogram, as --method pixel_histogram does" in output
    assert isinstance(serializer(store), PixelHistogram)


def test_values_that_are_no_counts_are_stored_by_histograms(tmp_path: Path) -> None:
    scan, store = tmp_path / "scan.npy", tmp_path / "scan.zarr"
    np.save(scan, np.random.default_rng(0).normal(size=(3, 4, 16, 16)).astype(np.float32))
    code, output = run("compress", scan, store, "--method", "learned:model=scan,steps=30")
    assert code == 0, output
    assert "nothing for a network to learn" in output
    assert isinstance(serializer(store), PixelHistogram)


@pytest.mark.slow
def test_structured_scans_take_a_network_a_chunk(tmp_path: Path) -> None:
    from stemcodecs.simulate import simulate_scan

    scan, store = tmp_path / "scan.npy", tmp_path / "scan.zarr"
    np.save(scan, simulate_scan("grains", (24, 24), (24, 24), mean_counts=2.0, dtype=np.uint16).counts)
    code, output = run("compress", scan, store, "--method", "learned:steps=30")
    assert code == 0, output
    assert "scan neighbours pay: a network in every chunk" in output
    codec = serializer(store)
    assert isinstance(codec, Learned)
    assert codec.model is None
    assert np.array_equal(zarr.open_array(store / "data", mode="r")[...], np.load(scan))


@pytest.mark.parametrize("text", ["learned:steps=0", "learned:model=patterns", "learned:seed=-1"])
def test_impossible_options(text: str, tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", correlated((2, 2)))
    code, output = run("compress", tmp_path / "scan.npy", tmp_path / "out.zarr", "--method", text)
    assert code == 2
    assert "must be" in output


def test_images_take_a_network_a_chunk(tmp_path: Path) -> None:
    from stemcodecs.simulate import simulate_tilt_series

    scan, store = tmp_path / "series.npy", tmp_path / "series.zarr"
    np.save(scan, simulate_tilt_series((24, 64, 64), dose=3000.0, seed=1).images)
    code, output = run("compress", scan, store, "--method", "learned:steps=80")
    assert code == 0, output
    assert "the patterns are images: a network for images in every chunk" in output
    codec = serializer(store)
    assert isinstance(codec, Learned)
    assert codec.arch == "images"
    assert np.array_equal(zarr.open_array(store / "data", mode="r")[...], np.load(scan))
    code, output = run("info", store, "--detail")
    assert code == 0, output
    assert "network for images, of 16 and 16 units" in output


def test_a_network_for_images_is_not_one_of_the_scan(tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", correlated((2, 2)))
    method = "learned:arch=images,model=scan"
    code, output = run("compress", tmp_path / "scan.npy", tmp_path / "out.zarr", "--method", method)
    assert code == 2
    assert "leave model out" in output


def test_options_are_noted() -> None:
    method = parse_method("learned:model=scan,steps=12")
    assert method.exact
    assert method.whole_detector
    assert not parse_method("learned:model=chunk").whole_detector
    assert json.loads(json.dumps(method.text)) == "learned:model=scan,steps=12"


def test_info_opens_a_chunk_up(tmp_path: Path) -> None:
    scan, store = tmp_path / "scan.npy", tmp_path / "scan.zarr"
    np.save(scan, correlated((12, 20)))
    code, output = run("compress", scan, store, "--method", "learned:model=scan,steps=300")
    assert code == 0, output
    code, output = run("info", store, "--detail")
    assert code == 0, output
    assert "network of 16 and 16 units" in output
    assert "% saved" in output
    assert "shared by all chunks" in output


def test_what_a_pixel_takes_adds_up_to_the_chunk() -> None:
    from stemcodecs.learned.describe import describe_learned

    array = correlated((8, 20))
    codec = Learned(steps=200)
    data = codec.encode_chunk(array)
    detail = describe_learned(data)
    assert detail.bits is not None
    words = len(data) - detail.header - detail.patches
    assert detail.bits.sum() * 160 / 8 == pytest.approx(words, rel=0.02)
