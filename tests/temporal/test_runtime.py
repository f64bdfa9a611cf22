"""Networks in a store: they decode, and where they cannot, one line says why."""

from __future__ import annotations

import hashlib
import sys
import threading
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from stemcodecs.codecs import Tcs  # noqa: E402
from stemcodecs.errors import ConfigurationError, CorruptChunkError, SourceError  # noqa: E402
from stemcodecs.movies import with_decoder  # noqa: E402
from stemcodecs.temporal import Sampling, coding, runtime, weights  # noqa: E402
from stemcodecs.temporal.weights import as_uri  # noqa: E402
from tests.codecs.test_tcs import write  # noqa: E402

FRAMES = 4


def network(**properties: Any) -> bytes:
    """A network that gives the measurement for every frame, plus a tenth of its masks."""
    from onnx import TensorProto, helper

    def value(name: str, channels: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, "y", "x"])

    tenth = helper.make_tensor("tenth", TensorProto.FLOAT, [], [0.1])
    nodes = [helper.make_node("Mul", ["masks", "tenth"], ["m"]), helper.make_node("Add", ["measured", "m"], ["frames"])]
    inputs = [value("measured", 1), value("masks", FRAMES)]
    graph = helper.make_graph(nodes, "test", inputs, [value("frames", FRAMES)], [tenth])
    return written(graph, properties)


def written(graph: Any, properties: dict[str, Any]) -> bytes:
    from onnx import helper

    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, text in {"frames": FRAMES, "measurement": "tiled", "seed": 0, **properties}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(text)
    data: bytes = model.SerializeToString()
    return data


def repeating(**properties: Any) -> bytes:
    """A network of bins of 2 × 2 pixels that gives the first of them for every frame."""
    from onnx import TensorProto, helper, numpy_helper

    measured = helper.make_tensor_value_info("measured", TensorProto.FLOAT, [1, 2, "y", "x"])
    frames = helper.make_tensor_value_info("frames", TensorProto.FLOAT, [1, FRAMES, "Y", "X"])
    kernel = np.zeros((4 * FRAMES, 2, 1, 1), np.float32)
    kernel[:, 0] = 1
    nodes = [
        helper.make_node("Conv", ["measured", "kernel"], ["c"]),
        helper.make_node("DepthToSpace", ["c"], ["frames"], blocksize=2, mode="CRD"),
    ]
    graph = helper.make_graph(nodes, "test", [measured], [frames], [numpy_helper.from_array(kernel, "kernel")])
    return written(graph, properties)


def codec_of(data: bytes, **options: Any) -> Tcs:
    digest = hashlib.sha256(data).hexdigest()
    return Tcs(frames=FRAMES, decoder="network", weights=digest, model=as_uri(data), **options)


@pytest.fixture(scope="module")
def movie() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(50, 200, (6, 13, 18)).astype(np.uint8)


def test_frames_come_from_the_network(movie):
    codec = codec_of(network())
    back = codec.decode_chunk(codec.encode_chunk(movie))
    mean = codec.sampling.measure(movie[:4])[0] / codec.sampling.opened((13, 18))[0]
    expected = mean + 0.1 * mean.std() * codec.sampling.masks((13, 18))
    assert np.abs(back[:4] - expected).max() <= 0.51
    assert back.shape == movie.shape


def test_a_store_takes_its_weights_with_it(movie):
    codec = codec_of(network())
    z = write(movie, (4, 13, 18), codec)
    assert np.array_equal(z[...][:4], codec.decode_chunk(codec.encode_chunk(movie[:4])))
    assert "model" in z.metadata.to_dict()["codecs"][0]["configuration"]
    assert repr(codec) == repr(Tcs.from_dict(codec.to_dict()))
    assert "base64" not in repr(codec)


def test_a_file_of_weights_for_any_store(movie, tmp_path):
    z = write(movie, (4, 13, 18), Tcs(frames=FRAMES))
    (tmp_path / "w.onnx").write_bytes(network())
    found = with_decoder(z, "network", tmp_path / "w.onnx")
    assert np.array_equal(found[:4], codec_of(network()).decode_chunk(codec_of(network()).encode_chunk(movie[:4])))
    with pytest.raises(SourceError, match="give a file of weights, or a sha256"):
        with_decoder(z, "network", tmp_path / "nothing.onnx")


def test_large_frames_are_given_to_birnat_in_parts(monkeypatch):
    movie = np.random.default_rng(0).integers(50, 200, (FRAMES, 61, 150)).astype(np.uint8)
    codec = replace(codec_of(network(network="birnat")), decoder="birnat")
    monkeypatch.setitem(runtime.SEEN_AT_ONCE, "birnat", 48)
    seen, run = [], runtime._run

    def watched(session: Any, feed: dict[str, Any]) -> Any:
        seen.append(feed["measured"].shape[1:])
        return run(session, feed)

    monkeypatch.setattr(runtime, "_run", watched)
    found = codec.decode_chunk(codec.encode_chunk(movie))
    assert len(seen) == 2 * 5
    assert max(max(shape) for shape in seen) == 48
    # This network looks at single pixels, so that parts cannot show.
    assert np.array_equal(found, codec_of(network()).decode_chunk(codec.encode_chunk(movie)))


def test_bins_of_frames_that_do_not_divide():
    movie = np.random.default_rng(1).integers(50, 200, (FRAMES, 9, 14)).astype(np.uint8)
    bins = {"measurement": "bins", "time_bins": 2, "space_bins": 2}
    codec = codec_of(repeating(**bins), **bins)
    found = codec.decode_chunk(codec.encode_chunk(movie))
    padded = np.pad(movie[:2].astype(float), ((0, 0), (0, 1), (0, 0)), constant_values=np.nan)
    means = np.nanmean(padded.reshape(2, 5, 2, 7, 2), axis=(0, 2, 4))
    assert np.abs(found - np.kron(means, np.ones((2, 2)))[None, :9]).max() <= 0.51
    wide = bins | {"space_bins": 3}
    codec = codec_of(repeating(**wide), **wide)
    with pytest.raises(ConfigurationError, match="the network gives frames of"):
        codec.decode_chunk(codec.encode_chunk(movie))


def test_threads_change_nothing(movie, monkeypatch):
    codec = codec_of(network())
    data, found = codec.encode_chunk(movie), []
    for threads in (1, 2):
        monkeypatch.setattr(runtime, "_threads", lambda n=threads: n)
        runtime._session.cache_clear()
        found.append(codec.decode_chunk(data))
    assert np.array_equal(*found)


def test_measurements_that_are_decoded_at_once_are_those_of_one_by_one(monkeypatch):
    sampling = Sampling()
    codec = Tcs(**asdict(sampling), decoder="network", weights=weights.shipped_for(sampling))
    movie = np.random.default_rng(0).integers(50, 200, (35, 30, 41)).astype(np.uint8)
    data = codec.encode_chunk(movie)
    threads = []
    run = runtime._run
    monkeypatch.setattr(runtime, "_run", lambda *a: threads.append(threading.current_thread().name) or run(*a))
    found = codec.decode_chunk(data)
    assert {name[:18] for name in threads} == {"stemcodecs-network"}
    monkeypatch.setattr(coding, "MOST_AT_ONCE", 0)
    assert np.array_equal(codec.decode_chunk(data), found)
    assert threads[4:] == 4 * [threading.current_thread().name]
    # What goes wrong in one of them is told.
    with pytest.raises(CorruptChunkError, match="checksum of a measurement"):
        codec.decode_chunk(data[:-1] + bytes([data[-1] ^ 1]))


def test_without_onnxruntime(movie, monkeypatch):
    codec = codec_of(network(note="not cached"))
    data = codec.encode_chunk(movie)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ConfigurationError, match=r"needs onnxruntime; install it with: pip install 'stemcodecs\[learned\]'"
    ):
        codec.decode_chunk(data)
    # The sums, and every other decoder, do without.
    assert Tcs(frames=FRAMES).decode_chunk(data).shape == movie.shape


def test_unknown_and_damaged_weights(movie):
    unknown = Tcs(frames=FRAMES, decoder="network", weights="ab" * 32)
    with pytest.raises(ConfigurationError, match="no weights abababababababab… come with this stemcodecs"):
        unknown.decode_chunk(unknown.encode_chunk(movie))
    data = network()
    good = codec_of(data)
    for model in (as_uri(data[:-1] + b"x"), as_uri(b"")):
        damaged = Tcs(frames=FRAMES, decoder="network", weights=good.weights, model=model)
        with pytest.raises(ConfigurationError, match="are damaged; restore them"):
            damaged.decode_chunk(good.encode_chunk(movie))
    for model in ("file:///etc/hostname", as_uri(data) + "!"):
        strange = Tcs(frames=FRAMES, decoder="network", weights=good.weights, model=model)
        with pytest.raises(ConfigurationError, match="weights in the configuration are"):
            strange.decode_chunk(good.encode_chunk(movie))


def test_what_is_no_network(movie):
    nonsense = codec_of(b"nonsense")
    with pytest.raises(ConfigurationError, match="onnxruntime cannot run the weights"):
        nonsense.decode_chunk(nonsense.encode_chunk(movie))


@pytest.mark.parametrize(
    ("properties", "options"), [({"frames": 5}, {}), ({}, {"seed": 1}), ({}, {"measurement": "random"})], ids=str
)
def test_weights_for_other_measurements(movie, properties, options):
    codec = codec_of(network(**properties), **options)
    with pytest.raises(ConfigurationError, match=r"the weights were trained for .*; decode it by gap-tv"):
        codec.decode_chunk(codec.encode_chunk(movie))


def test_weights_of_another_network(movie):
    codec = codec_of(network(network="birnat"))
    with pytest.raises(ConfigurationError, match="the weights are of another network, 'birnat'; decode by birnat"):
        codec.decode_chunk(codec.encode_chunk(movie))


def test_weights_too_large_to_travel():
    with pytest.raises(ConfigurationError, match="too large to travel with an array"):
        as_uri(bytes(weights.MOST_BYTES + 1))


def test_shipped_weights_are_what_their_names_say():
    total = 0
    for digest, path in weights.shipped().items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
        assert path.with_suffix(".json").exists()
        total += path.stat().st_size
    assert total < 3_000_000


@pytest.mark.parametrize(
    ("decoder", "simple", "sampling", "gain"),
    [
        ("network", "gap-tv", Sampling(), 1.5),
        ("network", "interpolate", Sampling(measurement="bins", time_bins=4, space_bins=2), 2.5),
        ("birnat", "gap-tv", Sampling(), 0.7),
    ],
    ids=["masks", "bins", "birnat"],
)
def test_the_shipped_networks_are_above_what_needs_no_weights(decoder, simple, sampling, gain):
    """Held-out movies, with a margin below what the benchmark holds."""
    from stemcodecs.simulate import simulate_movie

    digest = weights.shipped_for(sampling, weights.NETWORKS[decoder])
    assert digest is not None
    plain = Tcs(**asdict(sampling), decoder=simple)
    network = replace(plain, decoder=decoder, weights=digest)
    gains = []
    for seed in range(4):
        movie = simulate_movie("any", (10, 62, 70), "mixed", seed=(1 << 28) + seed)
        data = network.encode_chunk(movie.frames)
        errors = [np.square(codec.decode_chunk(data) - movie.clean).mean() for codec in (plain, network)]
        gains.append(10 * np.log10(errors[0] / errors[1]))
    assert np.mean(gains) > gain
