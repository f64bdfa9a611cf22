"""``stemcodecs train tcs``: a tiny network learns, continues where it stopped, and is exported as it is."""

from __future__ import annotations

import json
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
from stemcodecs.temporal.network_input import network_input  # noqa: E402
from stemcodecs.temporal.runtime import network_frames  # noqa: E402
from stemcodecs.temporal.weights import as_uri  # noqa: E402
from stemcodecs_pipelines.cli import app  # noqa: E402
from stemcodecs_pipelines.temporal.export import onnx_bytes  # noqa: E402
from stemcodecs_pipelines.temporal.networks import CompactNetwork  # noqa: E402
from stemcodecs_pipelines.temporal.train import Training, TrainingOptions  # noqa: E402
from stemcodecs_pipelines.temporal.train_tcs import draw_curve, train_tcs  # noqa: E402
from stemcodecs_pipelines.temporal.training_movies import TrainingMovies  # noqa: E402

TINY = {"frames": 4, "batch": 2, "crop": 16, "width": 6, "rate": 3e-3}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def movies(count: int = 6) -> TrainingMovies:
    return TrainingMovies.simulated(count, 4, motion="slow", mask="tiled", mask_seed=0, seed=0, side=32)


def training(folder: Path, **options: Any) -> Training:
    return Training(TrainingOptions(**{**TINY, **options}), movies(), movies(2), folder)


@pytest.mark.slow
def test_the_loss_falls_and_the_export_agrees(tmp_path: Path) -> None:
    losses = []
    options = {**TINY, "steps": 120}
    path = train_tcs(
        tmp_path, options, clips=6, motion="slow", side=32, every=40,
        report=lambda what, done, total, loss, psnr: losses.append((what, done, loss, psnr)),
    )  # fmt: skip
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert [point["step"] for point in curve] == [40, 80, 120]
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]
    assert curve[-1]["psnr"] > curve[0]["psnr"]
    assert ("simulate", 6) in {(what, done) for what, done, *_ in losses}
    pytest.importorskip("matplotlib")
    assert draw_curve(tmp_path).stat().st_size > 5000
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["sha256"] == path.stem
    assert (card["frames"], card["training"]["steps_done"], card["data"]["clips"]) == (4, 120, 6)
    movie = simulate_movie("grains", (4, 30, 41), "slow", seed=50)
    codec = Tcs(frames=4, decoder="network", weights=path.stem, model=as_uri(path.read_bytes()))
    data = codec.encode_chunk(movie.frames)
    assert np.array_equal(codec.decode_chunk(data), codec.decode_chunk(data))
    assert codec.decode_chunk(data).shape == movie.frames.shape


def test_export_agrees_with_torch(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = CompactNetwork(4, width=6, inner=8)
    for parameter in network.parameters():
        # As the export will round them, so that only the arithmetic differs; and none of them idle.
        parameter.data = (parameter.data + 0.02 * torch.randn_like(parameter)).half().float()
    weights = onnx_bytes(network, 4, {"frames": "4", "measurement": "tiled", "seed": "0"})
    import hashlib

    sampling = Sampling(frames=4)
    total = sampling.measure(simulate_movie("columns", (4, 32, 44), seed=1).frames)[0]
    masks = sampling.masks((32, 44))
    given = network_input(total, masks)
    with torch.no_grad():
        wanted = network(torch.from_numpy(given.measured)[None, None], torch.from_numpy(masks[None].astype("f4")))
    found = network_frames(total, sampling, hashlib.sha256(weights).hexdigest(), as_uri(weights))
    assert np.abs(found - (wanted[0].numpy() * given.scale + given.shift)).max() < 1e-2


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
    own = TrainingMovies.of_movies([movie], 4, mask="tiled", mask_seed=0, side=32)
    assert own.noisy.shape == (8, 4, 32, 32)
    learn, held_out = own.split(2)
    assert (len(learn), len(held_out)) == (6, 2)
    with pytest.raises(ConfigurationError, match="no movie has 4 frames of 128"):
        TrainingMovies.of_movies([movie], 4, mask="tiled", mask_seed=0)


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
        (["--measurement", "bins"], "--measurement bins must be one of tiled, random"),
        (["--rate", "2"], "--rate 2.0 must be between 0 and 1"),
        (["--crop", "18"], "--crop 18 must be a multiple of 4"),
    ],
)
def test_unusable_options(tmp_path: Path, words: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["train", "tcs", str(tmp_path / "out"), *words])
    assert done.exit_code == 2
    assert message in done.stderr
