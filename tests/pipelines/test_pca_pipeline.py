"""PCA out of core: against the exact SVD, over any chunks and workers, interrupted and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from stemcodecs.errors import ConfigurationError, DestinationError
from stemcodecs.lowrank import exact_basis
from stemcodecs.readers import open_scan
from stemcodecs_pipelines import pca, pca_checkpoint
from stemcodecs_pipelines.cli import app
from stemcodecs_pipelines.pca import choose_rank, pca_basis, plan_pca
from stemcodecs_pipelines.pca_blocks import PatternBlocks, in_order

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


def test_small_scans_are_exact(scan: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pca, "SMALL", 10**9)
    basis, exact = pca_basis(scan, rank=8), exact_basis(scan, rank=8)
    assert np.array_equal(basis.components, exact.components)


@pytest.mark.parametrize("kind", ["zarr", "dask", "npy", "stack"])
def test_any_source_gives_the_same_basis(scan: Array, kind: str, tmp_path: Path) -> None:
    source: Any
    if kind == "zarr":
        source = zarr.create_array({}, data=scan, chunks=(3, 7, 20, 18))
    elif kind == "dask":
        source = da.from_array(scan, chunks=(5, 10, 20, 18))
    elif kind == "npy":
        np.save(tmp_path / "scan.npy", scan)
        source = open_scan(tmp_path / "scan.npy")
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


@pytest.mark.parametrize("stop", [5, 17])
def test_a_killed_run_resumes_with_the_same_bytes(
    scan: Array, stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pca_checkpoint, "EVERY", 0.0)
    file = tmp_path / "pca.checkpoint"
    options: dict[str, Any] = {"rank": 5, "block_bytes": 60_000, "workers": 2, "checkpoint": file}
    seen: list[int] = []

    def interrupt(done: int, total: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pca_basis(scan, **options, progress=interrupt)
    assert file.exists()
    resumed = pca_basis(scan, **options, progress=lambda done, total: seen.append(done))
    assert seen[0] == stop + 1
    assert not file.exists()
    whole = pca_basis(scan, rank=5, block_bytes=60_000, workers=1)
    assert np.array_equal(resumed.components, whole.components)
    assert np.array_equal(resumed.mean_counts, whole.mean_counts)


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


def test_a_checkpoint_of_another_run_is_refused(scan: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pca_checkpoint, "EVERY", 0.0)
    file = tmp_path / "pca.checkpoint"

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pca_basis(scan, rank=5, checkpoint=file, progress=interrupt)
    with pytest.raises(DestinationError, match="other options"):
        pca_basis(scan, rank=6, checkpoint=file)
    file.write_bytes(b"nothing")
    with pytest.raises(DestinationError, match="not a PCA checkpoint"):
        pca_basis(scan, rank=5, checkpoint=file)


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
        broken = scan.astype(np.float32)
        broken[9, 9, 9, 9] = np.nan
        with pytest.raises(ConfigurationError, match="NaN"):
            pca_basis(broken, rank=2)
    else:
        with pytest.raises(ConfigurationError, match="allows 1 to 360"):
            pca_basis(scan, rank=rank)


def test_plan_states_what_is_read(scan: Array) -> None:
    plan = plan_pca(scan, rank=5, workers=2, block_bytes=60_000)
    assert plan.blocks == len(PatternBlocks(source=scan, block_bytes=60_000))
    assert plan.columns == 21
    assert "read 2 times" in plan.describe()
    blocks = PatternBlocks(source=scan, block_bytes=60_000)
    assert sum(len(blocks.read(i)) for i in range(len(blocks))) == 400


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
    assert run.invoke(app, ["pca", source, "--rank", "none"]).exit_code == 2


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
    result = run.invoke(app, ["compress", source, str(tmp_path / "x"), "--rank", "5"])
    assert result.exit_code == 2
    result = run.invoke(app, ["compress", source, str(tmp_path / "x"), "--method", "pca:rank=0"])
    assert result.exit_code == 2
