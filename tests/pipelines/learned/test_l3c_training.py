"""``learned:arch=l3c``: trained by torch, coded by its integers, read without torch; and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from stemcodecs.codecs import Learned, PixelHistogram
from stemcodecs_pipelines.cli import app

Array = np.ndarray[Any, Any]


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, " ".join(result.output.split())


def speckles(*scan: int, seed: int = 0) -> Array:
    """Patterns of speckles, new in every pattern, behind a disk, on a detector that shares charge."""
    random = np.random.default_rng(seed)
    rate = random.gamma(1.0, 1.0, (*scan, 8, 9)).repeat(2, axis=-2).repeat(2, axis=-1)
    y, x = np.mgrid[:16, :18]
    return random.poisson(6 * rate * np.exp(-((y - 8) ** 2 + (x - 9) ** 2) / 40)).astype(np.uint16)


def options(**changed: Any) -> Any:
    from stemcodecs_pipelines.learned.l3c_training import TrainingOptions

    return TrainingOptions(**({"steps": 40, "scales": 1, "width": 4} | changed))


@pytest.mark.slow
@pytest.mark.parametrize("location", [True, False])
def test_integers_take_what_training_promises(location: bool) -> None:
    pytest.importorskip("torch")
    from stemcodecs.learned.l3c_encode import encode_l3c
    from stemcodecs_pipelines.learned.l3c_training import train_l3c
    from tests.learned.random_l3c import shared_l3c

    patterns = speckles(128)
    model, bits = train_l3c(patterns, options(location=location))
    assert (len(np.unique(model.levels)) > 1) == location
    data = encode_l3c(patterns, shared_l3c(model))
    # Training adds a little noise to the latents, which costs it some bits that integers do not take.
    assert 0.75 * bits < 8 * len(data) / patterns.size < 1.06 * bits
    assert np.array_equal(Learned(**shared_l3c(model).configuration()).decode_chunk(data), patterns)


@pytest.mark.slow
def test_same_seed_and_steps_same_network() -> None:
    pytest.importorskip("torch")
    from stemcodecs.learned.l3c_model_bytes import write_l3c
    from stemcodecs_pipelines.learned.l3c_training import train_l3c

    one, again, other = (
        write_l3c(train_l3c(speckles(30), options(steps=3, seed=seed, scales=3))[0]) for seed in (0, 0, 1)
    )
    assert one == again
    assert one != other


@pytest.mark.slow
def test_a_store_is_written_and_read_without_torch(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    scan, store = tmp_path / "scan.npy", tmp_path / "scan.zarr"
    np.save(scan, speckles(8, 20))
    code, output = run("compress", scan, store, "--method", "learned:arch=l3c,seconds=1", "--chunk", "4,10")
    assert code == 0, output
    assert "training an L3C-mini on 160 of 160 patterns for 1 s" in output
    assert "the L3C-mini is estimated to take" in output
    (codec,) = zarr.open_array(store / "data", mode="r").metadata.codecs
    assert isinstance(codec, Learned)
    assert codec.model is not None
    code, output = run("verify", scan, store)
    assert code == 0, output
    code, output = run("info", store, "--detail")
    assert "L3C-mini of" in output
    read = f"""
import sys
sys.modules["torch"] = sys.modules["stemcodecs_pipelines"] = None
import numpy as np, zarr
data = zarr.open({str(store)!r}, mode="r")["data"]
scan = np.load({str(scan)!r})
assert np.array_equal(data[5, 11], scan[5, 11]) and np.array_equal(data[...], scan)
"""
    subprocess.run([sys.executable, "-c", read], check=True)


def test_values_that_are_no_counts_are_stored_by_histograms(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    scan, store = tmp_path / "scan.npy", tmp_path / "scan.zarr"
    np.save(scan, np.random.default_rng(0).normal(size=(3, 4, 16, 16)).astype(np.float32))
    code, output = run("compress", scan, store, "--method", "learned:arch=l3c")
    assert code == 0, output
    assert "nothing for a network to learn" in output
    (codec,) = zarr.open_array(store / "data", mode="r").metadata.codecs
    assert isinstance(codec, PixelHistogram)


def test_without_torch_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("l3c_training", "l3c_float"):
        monkeypatch.delitem(sys.modules, f"stemcodecs_pipelines.learned.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    np.save(tmp_path / "scan.npy", speckles(2, 2))
    code, output = run("compress", tmp_path / "scan.npy", tmp_path / "out.zarr", "--method", "learned:arch=l3c")
    assert code == 2
    assert "arch=l3c needs torch to train; install it with: pip install 'stemcodecs[train]'" in output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learned:seconds=9", "seconds and location are for arch=l3c"),
        ("learned:location=false", "seconds and location are for arch=l3c"),
        ("learned:arch=l3c,steps=9", "model=chunk and steps are not for arch=l3c"),
        ("learned:arch=l3c,model=chunk", "model=chunk and steps are not for arch=l3c"),
        ("learned:arch=l3c,seconds=0", "must be"),
        ("learned:arch=birnat", "must be"),
    ],
)
def test_options_that_do_not_fit(text: str, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", speckles(2, 2))
    code, output = run("compress", tmp_path / "scan.npy", tmp_path / "out.zarr", "--method", text)
    assert code == 2
    assert message in output
