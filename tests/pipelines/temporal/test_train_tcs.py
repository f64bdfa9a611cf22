"""``stemcodecs train tcs``: a tiny network learns, continues where it stopped, and is exported as it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from stemcodecs.codecs import Tcs  # noqa: E402
from stemcodecs.errors import ConfigurationError, DestinationError, SourceError  # noqa: E402
from stemcodecs.simulate import simulate_movie  # noqa: E402
from stemcodecs.temporal import Sampling  # noqa: E402
from stemcodecs.temporal.interpolate import between_bins  # noqa: E402
from stemcodecs.temporal.network_input import network_input  # noqa: E402
from stemcodecs.temporal.runtime import network_frames  # noqa: E402
from stemcodecs.temporal.weights import as_uri  # noqa: E402
from stemcodecs_pipelines.cli import app  # noqa: E402
from stemcodecs_pipelines.temporal.birnat import Birnat  # noqa: E402
from stemcodecs_pipelines.temporal.export import onnx_bytes  # noqa: E402
from stemcodecs_pipelines.temporal.networks import BinsNetwork, CompactNetwork  # noqa: E402
from stemcodecs_pipelines.temporal.tiled_network import TiledNetwork  # noqa: E402
from stemcodecs_pipelines.temporal.train import Training, TrainingOptions  # noqa: E402
from stemcodecs_pipelines.temporal.train_tcs import draw_curve, train_tcs  # noqa: E402
from stemcodecs_pipelines.temporal.training_movies import TrainingMovies  # noqa: E402

TILED = Sampling(frames=4)
BINS = Sampling(measurement="bins", frames=4, time_bins=2, space_bins=2)
TINY = {"frames": 4, "batch": 2, "crop": 16, "width": 6, "rate": 3e-3}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def movies(count: int = 6, sampling: Sampling = TILED) -> TrainingMovies:
    return TrainingMovies.simulated(count, sampling, motion="slow", seed=0, side=32)


def training(folder: Path, **options: Any) -> Training:
    return Training(TrainingOptions(**{**TINY, **options}), movies(), movies(2), folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    # The network of bins begins as an interpolation: less is left to learn.
    ("network", "measurement", "share"),
    [("compact", "tiled", 0.8), ("compact", "bins", 0.98), ("birnat", "tiled", 0.8)],
)
def test_the_loss_falls_and_the_export_agrees(tmp_path: Path, network: str, measurement: str, share: float) -> None:
    losses = []
    options = {**TINY, "steps": 120, "network": network}
    path = train_tcs(
        tmp_path, options, clips=6, motion="slow", measurement=measurement, time_bins=2, side=32, every=40,
        report=lambda what, done, total, loss, psnr: losses.append((what, done, loss, psnr)),
    )  # fmt: skip
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert [point["step"] for point in curve] == [40, 80, 120]
    assert curve[-1]["loss"] < share * curve[0]["loss"]
    assert curve[-1]["psnr"] > curve[0]["psnr"]
    assert ("simulate", 6) in {(what, done) for what, done, *_ in losses}
    pytest.importorskip("matplotlib")
    assert draw_curve(tmp_path).stat().st_size > 5000
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["sha256"] == path.stem
    assert (card["frames"], card["training"]["steps_done"], card["data"]["clips"]) == (4, 120, 6)
    movie = simulate_movie("grains", (4, 30, 41), "slow", seed=50)
    sampling = BINS if measurement == "bins" else TILED
    decoder: Any = "birnat" if network == "birnat" else "network"
    codec = Tcs(**asdict(sampling), decoder=decoder, weights=path.stem, model=as_uri(path.read_bytes()))
    data = codec.encode_chunk(movie.frames)
    assert np.array_equal(codec.decode_chunk(data), codec.decode_chunk(data))
    assert codec.decode_chunk(data).shape == movie.frames.shape


@pytest.mark.parametrize(
    ("kind", "sampling"), [("compact", TILED), ("compact", BINS), ("birnat", TILED)], ids=["compact", "bins", "birnat"]
)
def test_export_agrees_with_torch(kind: str, sampling: Sampling) -> None:
    torch.manual_seed(1)
    network = {"compact": CompactNetwork(4, width=8, inner=8), "birnat": Birnat(4, 8)}[kind]
    if sampling is BINS:
        network = BinsNetwork(sampling, 8, 8)
    for parameter in network.parameters():
        # As the export will round them, so that only the arithmetic differs; and none of them idle.
        parameter.data = parameter.data + 0.02 * torch.randn_like(parameter)
        if parameter.numel() >= 256:
            unit = parameter.data.abs().flatten(1).amax(1).view(-1, *[1] * (parameter.ndim - 1)) / 127
            parameter.data = (parameter.data / unit).round() * unit
    weights = onnx_bytes(network, sampling, kind)
    total = sampling.measure(simulate_movie("columns", (4, 32, 44), seed=1).frames)
    given = torch.from_numpy(network_input(total, sampling.opened((32, 44))).measured)[None]
    masks = [] if sampling is BINS else [torch.from_numpy(sampling.masks((32, 44))[None].astype("f4"))]
    with torch.no_grad():
        wanted = network(given, *masks)[0].numpy()
    found = network_frames(total, sampling, (32, 44), kind, hashlib.sha256(weights).hexdigest(), as_uri(weights))
    scale = network_input(total, sampling.opened((32, 44)))
    assert np.abs(found - (wanted * scale.scale + scale.shift)).max() < 1e-2


@pytest.mark.parametrize("frames", [4, 7])
def test_one_channel_for_all_tiled_masks_gives_the_same_frames(frames: int) -> None:
    torch.manual_seed(2)
    network = CompactNetwork(frames, stages=3, width=8, inner=8)
    for parameter in network.parameters():
        parameter.data = parameter.data + 0.1 * torch.randn_like(parameter)
    sampling = Sampling(frames=frames, seed=3)
    for shape in ((4, 4), (8, 12), (20, 16)):
        measured = torch.randn(1, 1, *shape)
        masks = torch.from_numpy(sampling.masks(shape)[None].astype("f4"))
        with torch.no_grad():
            wanted = network(measured, masks)
            found = TiledNetwork(network, sampling)(measured, masks)
        assert torch.allclose(found, wanted, atol=1e-3 * float(wanted.std()))


def test_birnat_is_given_what_the_equations_say() -> None:
    """With cells that hand the residual on as the frame, every sum of equations 3 and 4 can be written out."""
    torch.manual_seed(0)
    network = Birnat(4, 4)
    seen: list[Any] = []

    class Cell(torch.nn.Module):
        def forward(self, before: Any, measured: Any, rest: Any, hidden: Any) -> Any:
            seen.append((before, rest, hidden))
            return 0.3 * rest + 0.1 * before, hidden + 1

    network.forwards, network.backwards = Cell(), Cell()
    measured = torch.randn(1, 1, 8, 8)
    masks = torch.from_numpy(TILED.masks((8, 8))[None].astype("f4"))
    forward, backward = network.estimates(measured, masks)
    total = measured[:, 0] * masks.sum(1)
    for k in range(1, 4):
        before, rest, hidden = seen[k - 1]
        taken = sum(masks[:, t] * forward[:, t] for t in range(k))
        taken += sum(masks[:, t] * measured[:, 0] for t in range(k + 1, 4))
        assert torch.allclose(rest[:, 0], total - taken, atol=1e-5)
        assert torch.equal(before[:, 0], forward[:, k - 1])
        assert (hidden == k - 1).all()
    for number, k in enumerate((2, 1, 0)):
        before, rest, hidden = seen[3 + number]
        taken = sum(masks[:, t] * forward[:, t] for t in range(4) if t != k)
        assert torch.allclose(rest[:, 0], total - taken, atol=1e-5)
        assert torch.equal(before[:, 0], backward[:, k + 1])
        # The hidden units of the last forward cell go on.
        assert (hidden == 3 + number).all()
    assert torch.equal(backward[:, 3], forward[:, 3])


def test_bins_begin_as_their_interpolation() -> None:
    network = BinsNetwork(BINS, 8, 8)
    means = np.random.default_rng(0).normal(size=(2, 12, 14)).astype(np.float32)
    with torch.no_grad():
        found = network(torch.from_numpy(means)[None])[0].numpy()
    wanted = between_bins(means, BINS.bin_edges, 2, (24, 28))
    assert np.abs(found - wanted)[:, 4:-4, 4:-4].max() < 1e-5


@pytest.mark.slow
def test_a_training_that_was_stopped_continues_as_if_it_had_not(tmp_path: Path) -> None:
    whole = training(tmp_path / "whole", steps=12)
    whole.run(every=6)
    stopped = training(tmp_path / "parts", steps=12)
    for _ in range(6):
        stopped._one_step()
    stopped.loss = whole.curve[0].loss
    stopped.save()
    again = training(tmp_path / "parts", steps=12)
    again.resume()
    assert again.step == 6
    again.run(every=6)
    for one, other in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_divergence_stops_the_training(tmp_path: Path) -> None:
    diverging = training(tmp_path, steps=400, rate=0.9)
    with pytest.raises(ConfigurationError, match=r"diverged at step .*; start again with a lower --rate"):
        diverging.run(every=50)


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist; leave --resume out"):
        training(tmp_path, steps=3).resume()
    training(tmp_path, steps=3).save()
    with pytest.raises(ConfigurationError, match="made with other rate, steps"):
        training(tmp_path, steps=4, rate=1e-3).resume()
    with pytest.raises(DestinationError, match="holds a training"):
        train_tcs(tmp_path, TINY)
    (tmp_path / "checkpoint.pt").write_bytes(b"none")
    with pytest.raises(SourceError, match="is damaged"):
        training(tmp_path, steps=3).resume()


def test_own_movies(tmp_path: Path) -> None:
    movie = simulate_movie(shape=(17, 70, 40), seed=2).frames
    own = TrainingMovies.of_movies([movie], TILED, side=32)
    assert own.noisy.shape == (8, 4, 32, 32)
    learn, held_out = own.split(2)
    assert (len(learn), len(held_out)) == (6, 2)
    with pytest.raises(ConfigurationError, match="no movie has 4 frames of 128"):
        TrainingMovies.of_movies([movie], TILED)


@pytest.mark.slow
def test_the_command_continues_what_it_began(tmp_path: Path) -> None:
    words = ["train", "tcs", str(tmp_path), "--frames", "4", "--clips", "2", "--steps", "2", "--width", "6"]
    words += ["--crop", "16", "--batch", "1"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "weights for measurement=tiled, frames=4, seed=0" in done.stdout
    assert "step 2 of 2: loss" in done.stderr
    weights = {path.read_bytes() for path in tmp_path.glob("*.onnx")}
    again = CliRunner().invoke(app, [*words, "--resume"])
    assert again.exit_code == 0, again.output
    assert {path.read_bytes() for path in tmp_path.glob("*.onnx")} == weights
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "give --resume to continue it" in refused.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--motion", "still"], "--motion still must be one of slow, mixed, fast"),
        (["--measurement", "holes"], "--measurement holes must be one of tiled, random, bins"),
        (["--network", "birnat", "--measurement", "bins"], "--network birnat is for masks"),
        (["--rate", "2"], "--rate 2.0 must be between 0 and 1"),
        (["--crop", "18"], "--crop 18 must be a multiple of 4"),
    ],
)
def test_unusable_options(tmp_path: Path, words: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["train", "tcs", str(tmp_path / "out"), *words])
    assert done.exit_code == 2
    assert message in done.stderr
