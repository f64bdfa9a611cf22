"""``compress --method pca`` of detectors with gaps and dead pixels: marks stay, the rest is as without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from stemcodecs.errors import VerificationError
from stemcodecs_pipelines import pca_basis
from stemcodecs_pipelines.cli import app
from stemcodecs_pipelines.methods.registry import parse_method

Array = np.ndarray[Any, Any]

RANDOM = np.random.default_rng(9)
RATE = np.tensordot(RANDOM.random((12, 13, 2)), RANDOM.gamma(0.7, 3.0, (2, 18, 20)), 1)
COUNTS = RANDOM.poisson(RATE)
GAP = np.zeros((18, 20), bool)
GAP[8:10], GAP[2, 3] = True, True
HERE_AND_THERE = RANDOM.random(COUNTS.shape) < 0.002
WHERE = GAP | HERE_AND_THERE
WHOLE = (slice(0, 12), slice(0, 13), slice(0, 18), slice(0, 20))


def marked(dtype: str, mark: float) -> Array:
    values = COUNTS.astype(dtype)
    values[WHERE] = mark
    return values


MARKS: dict[str, tuple[str, Any]] = {
    "PILATUS": ("i4", -1), "EIGER": ("u4", 2**32 - 1), "16 bits": ("u2", 65535), "NaN": ("f4", np.nan),
    "64 bits": ("u8", 2**64 - 1), "32 in 64": ("f8", 2**32 - 1), "infinity": ("f4", -np.inf),
}  # fmt: skip


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("name", "residual"),
    [
        *((name, residual) for name in MARKS for residual in ("none", "lossless")),
        ("PILATUS", "bounded"),
        ("NaN", "bounded"),
    ],
)
def test_marks_are_kept_and_the_guarantee_holds(name: str, residual: str, tmp_path: Path) -> None:
    values = marked(*MARKS[name])
    np.save(tmp_path / "scan.npy", values)
    store = tmp_path / "out.zarr"
    method = f"pca:rank=2,residual={residual}"
    output = run("compress", tmp_path / "scan.npy", store, "--method", method, "--chunk", "6,8")
    assert "kept exactly" in output
    run("verify", tmp_path / "scan.npy", store)
    data: Any = zarr.open_group(store, mode="r")["data"]
    decoded = data[:]
    bits = f"u{values.dtype.itemsize}"
    assert (decoded.view(bits)[WHERE] == values.view(bits)[WHERE]).all()
    assert decoded[3, 4].tobytes() == data[3, 4].tobytes()
    clean, back = COUNTS[~WHERE].astype(float), decoded[~WHERE].astype(float)
    if residual == "lossless":
        assert (clean == back).all()
    elif residual == "bounded":
        assert (np.abs(back - clean) <= 0.5 * np.sqrt(clean) + 1e-9).all()
    else:
        # As near to the rate as without marks: two eigen-patterns say nearly all of it.
        error = back - RATE[~WHERE]
        assert np.sqrt((error**2).mean()) < 0.5 * np.sqrt(RATE.mean())


def test_marks_tell_the_fit_nothing() -> None:
    """The basis of a scan with gaps is that of the scan without these pixels."""
    gaps = np.where(GAP, 0, COUNTS).astype("i4")
    clean = pca_basis(gaps, rank=2)
    with_marks = np.where(GAP, -1, COUNTS).astype("i4")
    for values in (with_marks, np.where(GAP, np.nan, COUNTS).astype("f4")):
        basis = pca_basis(values, rank=2)
        assert np.array_equal(basis.components, clean.components)
        assert np.array_equal(basis.mean, clean.mean)
    scattered = pca_basis(marked("u4", 2**32 - 1), rank=2)
    assert np.abs(np.einsum("kyx,kyx->k", scattered.components, clean.components)).min() > 0.995


@pytest.mark.parametrize("residual", ["none", "bounded", "lossless"])
@pytest.mark.parametrize("name", ["PILATUS", "NaN", "infinity"])
def test_a_lost_mark_is_found(name: str, residual: str) -> None:
    values = marked(*MARKS[name])
    method = parse_method(f"pca:rank=2,residual={residual}")
    method.compare(values, values.copy(), WHOLE)
    for wrong in (7, 0):
        decoded = values.copy()
        decoded[5, 6, 8, 9] = wrong
        with pytest.raises(VerificationError) as caught:
            method.compare(values, decoded, WHOLE)
        assert caught.value.index == (5, 6, 8, 9)


def test_a_rank_is_chosen_beside_marks(tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", marked("i4", -1))
    run("compress", tmp_path / "scan.npy", tmp_path / "out.zarr", "--method", "pca:residual=lossless")
    decoded = np.asarray(zarr.open_group(tmp_path / "out.zarr", mode="r")["data"])
    assert np.array_equal(decoded, marked("i4", -1))
