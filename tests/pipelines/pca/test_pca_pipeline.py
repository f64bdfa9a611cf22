"""PCA out of core: against the exact SVD, over any chunks and workers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray
import zarr
from typer.testing import CliRunner

from stemcodecs.errors import ConfigurationError
from stemcodecs.lowrank import LowRankModel, exact_basis, low_rank_model
from stemcodecs.readers import open_scan
from stemcodecs_pipelines.cli import app
from stemcodecs_pipelines.methods.base import Learning
from stemcodecs_pipelines.methods.registry import parse_method
from stemcodecs_pipelines.pca import fit as pca
from stemcodecs_pipelines.pca import method as pca_method
from stemcodecs_pipelines.pca.fit import choose_rank, pca_basis, plan_pca
from stemcodecs_pipelines.pca.pattern_blocks import PatternBlocks, in_order
from stemcodecs_pipelines.store import contents, job
from stemcodecs_pipelines.store.compress import compress
from tests.lowrank.process import forget_models

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def scan() -> Array:
    generator = np.random.default_rng(0)
    patterns = generator.gamma(0.5, 2.0, (5, 20 * 18))
    rate = generator.random((16, 25, 5)) @ patterns
    return generator.poisson(rate * 4).reshape(16, 25, 20, 18).astype(np.uint16)


@pytest.fixture(autouse=True)
def _stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small scans too go through the range finder."""
    monkeypatch.setattr(pca, "SMALL", 0)


def captured(basis: Any, scan: Array) -> float:
    centred = 2 * np.sqrt(scan.reshape(400, -1) + 0.375)
    centred = centred - centred.mean(0)
    kept = centred @ basis.components.reshape(basis.rank, -1).T
    return float((kept**2).sum() / (centred**2).sum())


@pytest.mark.slow
def test_close_to_the_exact_svd(scan: Array) -> None:
    exact = exact_basis(scan, rank=8)
    basis = pca_basis(scan, rank=8, block_bytes=40_000, workers=2)
    assert captured(basis, scan) > 0.997 * captured(exact, scan)
    flat = basis.components.reshape(8, -1)
    assert np.allclose(flat @ flat.T, np.eye(8), atol=1e-5)
    # The five strong components are exact, the noise behind them is nearly so.
    assert np.allclose(basis.eigenvalues[:5], exact.eigenvalues[:5], rtol=1e-3)
    assert np.isclose(basis.total, exact.total, rtol=1e-4)
    assert np.allclose(basis.mean, exact.mean, atol=1e-4)
    assert np.allclose(basis.mean_counts, exact.mean_counts)
    sharper = pca_basis(scan, rank=8, passes=5, block_bytes=40_000, workers=2)
    assert captured(sharper, scan) > max(captured(basis, scan), 0.9993 * captured(exact, scan))


@pytest.mark.slow
def test_small_scans_are_exact(scan: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pca, "SMALL", 10**9)
    basis, exact = pca_basis(scan, rank=8), exact_basis(scan, rank=8)
    assert np.array_equal(basis.components, exact.components)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zarr", "dask", "npy", "path", "stack"])
def test_any_source_gives_the_same_basis(scan: Array, kind: str, tmp_path: Path) -> None:
    source: Any
    if kind == "zarr":
        source = zarr.create_array({}, data=scan, chunks=(3, 7, 20, 18))
    elif kind == "dask":
        source = da.from_array(scan, chunks=(5, 10, 20, 18))
    elif kind == "npy":
        np.save(tmp_path / "scan.npy", scan)
        source = open_scan(tmp_path / "scan.npy")
    elif kind == "path":
        source = tmp_path / "scan.npy"
        np.save(source, scan)
    else:
        source = scan.reshape(400, 20, 18)
    basis = pca_basis(source, rank=5, workers=1)
    reference = pca_basis(scan, rank=5, workers=2)
    assert np.allclose(basis.components, reference.components, atol=2e-3)
    assert np.allclose(basis.mean_counts, reference.mean_counts)


def test_workers_do_not_change_a_bit(scan: Array) -> None:
    one = pca_basis(scan, rank=5, block_bytes=30_000, workers=1)
    four = pca_basis(scan, rank=5, block_bytes=30_000, workers=4)
    assert np.array_equal(one.components, four.components)


def test_results_do_not_pile_up_behind_a_late_block() -> None:
    class Late:
        """Finishes the first block after all others that it was given."""

        given: list[int]

        def map(self, function: Any, common: Any, indices: Any) -> Any:
            self.given = list(indices)
            yield from (function(common, i) for i in self.given[1:] + self.given[:1])

    engine: Any = Late()
    lengths = []
    results = in_order(engine, lambda index: (index, index * index), range(20), 6)
    for n, result in enumerate(results):
        assert result == n * n
        lengths.append(len(engine.given))
    assert len(lengths) == 20
    assert max(lengths) == 6


@pytest.mark.slow
def test_rank_by_count_splitting(scan: Array) -> None:
    choice = choose_rank(scan, largest=32)
    # Five mixing patterns whose weights share a mean: four or more directions about it.
    assert 3 <= choice.rank <= 8
    assert choice.deviance[0] > choice.deviance.min()
    assert pca_basis(scan, rank="auto").rank == choice.rank
    generator = np.random.default_rng(0)
    noise = generator.poisson(3.0, (300, 8, 8)).astype(np.uint8)
    assert choose_rank(noise).rank == 0
    assert pca_basis(noise, rank="auto").rank == 0
    with pytest.raises(ConfigurationError, match="whole numbers"):
        choose_rank(scan + 0.5)


def test_thinned_halves_are_independent_poisson(scan: Array) -> None:
    blocks = PatternBlocks(source=np.random.default_rng(0).poisson(5.0, (400, 20, 20)))
    a, b = blocks.thinned(0, 1)
    assert np.array_equal(a + b, blocks.read(0))
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02
    assert np.array_equal(a, blocks.thinned(0, 1)[0])


@pytest.mark.parametrize("rank", [0, 361, "auto"])
def test_edges(scan: Array, rank: Any) -> None:
    zeros = np.zeros((30, 6, 6), np.uint16)
    if rank == "auto":
        assert pca_basis(zeros, rank="auto").rank == 0
        assert pca_basis(zeros, rank=3).rank == 0
        with pytest.raises(ConfigurationError, match="stack of patterns"):
            pca_basis(zeros[0], rank=1)
        broken = np.where(np.random.default_rng(0).random(scan.shape) < 0.2, np.nan, scan).astype(np.float32)
        with pytest.raises(ConfigurationError, match="NaN"):
            pca_basis(broken, rank=2)
    else:
        with pytest.raises(ConfigurationError, match="allows 1 to 360"):
            pca_basis(scan, rank=rank)


def test_plan_states_what_is_read(scan: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_pca(scan, rank=5, workers=2, block_bytes=60_000)
    assert plan.blocks == len(PatternBlocks(source=scan, block_bytes=60_000))
    assert plan.columns == 21
    assert "read 2 times" in plan.describe()
    monkeypatch.setattr(pca, "SMALL", 10**9)
    assert "exact" in plan_pca(scan, rank=5).describe()
    blocks = PatternBlocks(source=scan, block_bytes=60_000)
    assert sum(len(blocks.read(i)) for i in range(len(blocks))) == 400


@pytest.mark.slow
def test_pca_command(scan: Array, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    np.save(tmp_path / "scan.npy", scan)
    source, picture = str(tmp_path / "scan.npy"), tmp_path / "pca.png"
    run = CliRunner()
    result = run.invoke(app, ["pca", source, "--rank", "5", "--out", str(picture)])
    assert result.exit_code == 0, result.output
    assert "5 eigen-patterns of 400 positions" in result.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run.invoke(app, ["pca", source, "--out", str(picture)]).exit_code == 2
    for arguments in (
        ["--rank", "none"],
        ["--out", str(tmp_path / "pca.xyz")],
        ["--out", str(tmp_path / "no" / "a.png")],
    ):
        result = run.invoke(app, ["pca", source, *arguments])
        assert result.exit_code == 2
        assert len(result.stderr.strip().splitlines()) == 1
    # Fewer positions than eigen-patterns that are drawn by default.
    np.save(tmp_path / "few.npy", scan[:1, :3])
    assert run.invoke(app, ["pca", str(tmp_path / "few.npy"), "--out", str(tmp_path / "few.png")]).exit_code == 0


@pytest.mark.slow
def test_compress_command(scan: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", scan)
    source, run = str(tmp_path / "scan.npy"), CliRunner()
    for residual in ("none", "bounded", "lossless"):
        store = str(tmp_path / f"{residual}.zarr")
        arguments = ["compress", source, store, "--method", "pca", "--rank", "5"]
        result = run.invoke(app, [*arguments, "--residual", residual])
        assert result.exit_code == 0, result.output
        decoded = zarr.open_group(store, mode="r")["data"][:].astype(float)  # type: ignore[union-attr,index]
        error = np.abs(decoded - scan)
        limit = {"none": np.inf, "bounded": 0.5, "lossless": 0.0}[residual]
        assert (error[scan > 0] <= limit * np.sqrt(scan[scan > 0])).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rank", "5"], "needs --method pca"),
        (["--method", "pca:rank=0"], "at least 1"),
        (["--method", "pca", "--rank", "361"], "allows 1 to 360"),
        (["--method", "pca", "--residual", "some"], "none, bounded or lossless"),
        (["--method", "pca", "--r", "nan"], "above 0"),
        (["--method", "pca:colour=red"], "no option 'colour'"),
        (["--method", "pca", "--rank", "5", "--memory", "301MB"], "memory"),
    ],
)
def test_compress_refuses_in_one_line(scan: Array, arguments: list[str], words: str, tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", scan)
    result = CliRunner().invoke(app, ["compress", str(tmp_path / "scan.npy"), str(tmp_path / "x"), *arguments])
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_values_that_pca_cannot_take(scan: Array, tmp_path: Path) -> None:
    run = CliRunner()
    broken = np.where(np.random.default_rng(0).random(scan.shape) < 0.2, np.nan, scan).astype(np.float32)
    for name, values, words in (("nan", broken, "NaN"), ("signed", scan.astype(np.int32) - 9, "negative")):
        np.save(tmp_path / f"{name}.npy", values)
        result = run.invoke(
            app, ["compress", str(tmp_path / f"{name}.npy"), str(tmp_path / "x"), "--method", "pca:rank=3"]
        )
        assert result.exit_code == 2
        assert words in result.stderr
        assert not (tmp_path / "x").exists()


@pytest.mark.slow
@pytest.mark.parametrize("residual", ["none", "bounded", "lossless"])
def test_an_all_zero_scan_is_exact(residual: str, tmp_path: Path) -> None:
    np.save(tmp_path / "zeros.npy", np.zeros((6, 5, 8, 8), np.uint16))
    for number, rank in enumerate(("auto", "3")):
        store = tmp_path / f"{number}.zarr"
        result = CliRunner().invoke(
            app,
            ["compress", str(tmp_path / "zeros.npy"), str(store), "--method", f"pca:rank={rank},residual={residual}"],
        )
        assert result.exit_code == 0, result.output
        assert not zarr.open_group(store, mode="r")["data"][:].any()  # type: ignore[union-attr,index]


@pytest.mark.slow
def test_without_a_guarantee_the_difference_is_measured(scan: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", scan)
    np.save(tmp_path / "other.npy", np.roll(scan, 1, 0))
    source, store, run = str(tmp_path / "scan.npy"), str(tmp_path / "a.zarr"), CliRunner()
    result = run.invoke(app, ["compress", source, store, "--method", "pca", "--rank", "5", "--chunk", "4,25"])
    assert "no pointwise guarantee" in result.stdout
    assert "verified" not in result.stdout
    decoded = zarr.open_group(store, mode="r")["data"][:]  # type: ignore[union-attr,index]
    apart = 2 * (np.sqrt(decoded + 0.375) - np.sqrt(scan + 0.375))  # type: ignore[operator]
    measured = f"RMS difference is {np.sqrt((apart**2).mean()):.3f} σ of the counting noise, the largest "
    measured += f"{np.abs(apart).max():.1f} σ, total counts {100 * (decoded.sum() / scan.sum() - 1):+.3f} %"  # type: ignore[union-attr]
    assert measured in result.stdout
    result = run.invoke(app, ["verify", source, store])
    assert result.exit_code == 0
    assert measured in result.stdout
    assert run.invoke(app, ["verify", store]).exit_code == 0
    result = run.invoke(app, ["verify", str(tmp_path / "other.npy"), store])
    assert result.exit_code == 2
    assert "does not hold the values" in result.stderr
    chunk = next((tmp_path / "a.zarr" / "data" / "c").rglob("0"))
    chunk = chunk if chunk.is_file() else next(p for p in chunk.rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    for arguments in (["verify", source, store], ["verify", store], ["repair", str(tmp_path / "other.npy"), store]):
        assert run.invoke(app, arguments).exit_code == 2
    result = run.invoke(app, ["repair", source, store])
    assert "1 of 4 blocks repaired" in result.stdout
    assert measured in result.stdout
    assert run.invoke(app, ["verify", source, store]).exit_code == 0


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process that has just started does not know."""
    forget_models(monkeypatch)
    for cached in (job._load_job, contents._contents):
        cached.cache_clear()


@pytest.mark.slow
def test_a_large_model_lies_beside_the_array(scan: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pca_method, "INSIDE_BYTES", 100)
    np.save(tmp_path / "scan.npy", scan)
    source, store, run = str(tmp_path / "scan.npy"), str(tmp_path / "a.zarr"), CliRunner()
    command = ["compress", source, store, "--method", "pca", "--rank", "5", "--residual", "lossless", "--chunk", "4,25"]
    result = run.invoke(app, command)
    assert result.exit_code == 0, result.output
    (model_file,) = (tmp_path / "a.zarr" / "models").glob("pca_*/c/0")
    configuration = json.loads((tmp_path / "a.zarr" / "data" / "zarr.json").read_text())["codecs"][0]["configuration"]
    assert "model" not in configuration
    chunks = sum(p.stat().st_size for p in (tmp_path / "a.zarr" / "data" / "c").rglob("*") if p.is_file())
    assert f"{chunks + model_file.stat().st_size:,} bytes)" in result.stdout
    # A process that knows nothing, and imports nothing of ours.
    program = (
        "import sys, numpy, zarr; store, source = sys.argv[1:]; "
        "data = zarr.open(store, mode='r')['data']; assert (data[3, 5] == numpy.load(source)[3, 5]).all(); "
        "assert 'stemcodecs_pipelines' not in sys.modules; "
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, store, source], check=True)
    forget(monkeypatch)
    assert np.array_equal(xarray.open_zarr(store)["data"].values, scan)
    forget(monkeypatch)
    for arguments in (["info", store], ["verify", source, store], ["verify", store]):
        result = run.invoke(app, arguments)
        assert result.exit_code == 0, result.output
    assert run.invoke(app, ["decompress", store, str(tmp_path / "out.npy")]).exit_code == 0
    assert np.array_equal(np.load(tmp_path / "out.npy"), scan)
    # Interrupted, a run finds the model where it left it.
    forget(monkeypatch)
    assert run.invoke(app, ["repair", source, store]).exit_code == 0
    forget(monkeypatch)
    model_file.unlink()
    result = run.invoke(app, ["verify", source, store])
    assert result.exit_code == 2
    assert "is missing" in result.stderr


@pytest.mark.slow
def test_shards_carry_their_model_or_are_refused(scan: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pca_method, "INSIDE_BYTES", 100)
    np.save(tmp_path / "scan.npy", scan)
    run, source = CliRunner(), str(tmp_path / "scan.npy")
    command = ["--method", "pca:rank=5,residual=lossless", "--chunk", "4,25", "--shards", "8,25"]
    assert run.invoke(app, ["compress", source, str(tmp_path / "a.zarr"), *command]).exit_code == 0
    forget(monkeypatch)
    assert np.array_equal(zarr.open_group(tmp_path / "a.zarr", mode="r")["data"][:], scan)  # type: ignore[index]
    monkeypatch.setattr(low_rank_model, "WARN_BYTES", 100)
    result = run.invoke(app, ["compress", source, str(tmp_path / "b.zarr"), *command])
    assert result.exit_code == 2
    assert "leave --shards out" in result.stderr


@pytest.mark.slow
def test_an_interrupted_run_with_its_model_beside_continues(
    scan: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pca_method, "INSIDE_BYTES", 100)
    np.save(tmp_path / "scan.npy", scan)

    def interrupt(block: Any) -> None:
        raise KeyboardInterrupt

    with open_scan(tmp_path / "scan.npy") as source:
        options: dict[str, Any] = {"method": "pca:rank=4,residual=lossless", "chunk": (2, 25)}
        compress(source, tmp_path / "whole.zarr", **options)
        with pytest.raises(KeyboardInterrupt):
            compress(source, tmp_path / "a.zarr", **options, progress=interrupt)
        forget(monkeypatch)
        resumed = compress(source, tmp_path / "a.zarr", resume=True)
    assert resumed.kept_blocks > 0
    for file in (tmp_path / "whole.zarr").rglob("*"):
        if file.is_file():
            assert (tmp_path / "a.zarr" / file.relative_to(tmp_path / "whole.zarr")).read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_with_a_residual_the_rank_that_takes_least_is_stored(scan: Array, tmp_path: Path) -> None:
    # So few positions that no eigen-pattern is worth its place.
    np.save(tmp_path / "few.npy", scan[:2])
    np.save(tmp_path / "many.npy", np.concatenate([scan] * 10))
    ranks = []
    for name in ("few", "many"):
        with open_scan(tmp_path / f"{name}.npy") as source:
            texts: list[str] = []
            learning = Learning(report=lambda text, done, total, texts=texts: texts.append(text))  # type: ignore[misc]
            encoding = parse_method("pca:residual=lossless").build(source, learning)
            ranks.append(LowRankModel.load(encoding.serializer.model, encoding.serializer.sha256).rank)
            assert texts[-1].endswith(f"{ranks[-1]} is stored smallest")
    assert ranks[0] < ranks[1]


def test_a_block_is_read_once_a_pass(scan: Array) -> None:
    class Counted:
        shape, dtype, reads = scan.shape, scan.dtype, 0

        def read(self, region: Any) -> Array:
            self.reads += 1
            return scan[region]

    for centred in (False, True):
        source = Counted()
        blocks = len(PatternBlocks(source=source, block_bytes=60_000))
        pca_basis(source, rank=5, block_bytes=60_000, workers=2, centred=centred)
        # The first block also gives the mean that is subtracted for accuracy.
        assert source.reads == 2 * blocks + centred
